"""What drives a browser in these tests stays up, whatever a page does meanwhile."""

from __future__ import annotations

import time

import pytest

from tests.docs.browser import FOUND, LIMIT, Browser, Tab, needs_chromium


@needs_chromium
@pytest.mark.page("CONTRIBUTING.md", "`tests/docs/browser.py`")
def test_a_page_that_does_much_ends_nothing() -> None:
    running = Browser(str(FOUND))
    try:
        tab = Tab(running, "data:text/html,<p>here</p>")
        tab.run("setInterval(() => { for (let each = 0; each < 20; each++) console.log(each) })")
        for _ in range(3):
            time.sleep(0.1)  # it tells much meanwhile, and nobody reads
            # The answer comes behind all that: with a bound on what waits it would never arrive.
            assert running.line.ping().wait(LIMIT)
        assert tab.run("1 + 1") == 2
    finally:
        running.close()

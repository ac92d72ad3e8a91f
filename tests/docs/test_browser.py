"""What drives a browser in these tests stays up, whatever a page does meanwhile."""

from __future__ import annotations

import pytest

from tests.docs import browser
from tests.docs.browser import FOUND, LINE, Browser, Tab, needs_chromium, wait_for


@needs_chromium
@pytest.mark.page("CONTRIBUTING.md", "`tests/docs/browser.py`")
def test_a_page_that_does_much_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    # With pings, to see that what comes between two calls keeps no answer to one waiting.
    monkeypatch.setattr(browser, "LINE", LINE | {"ping_interval": 0.1})
    running = Browser(str(FOUND))
    try:
        tab = Tab(running, "data:text/html,<p>here</p>")
        tab.run("setInterval(() => { for (let each = 0; each < 20; each++) console.log(each) })")
        for _ in range(3):  # the first answer may have been on its way
            running.line.latency = 0.0
            wait_for(lambda: running.line.latency)
        assert tab.run("1 + 1") == 2
    finally:
        running.close()

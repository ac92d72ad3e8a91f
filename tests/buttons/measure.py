"""What a Run button costs: `nox -s buttons -- measure`.

It prints the weight of the first click, the seconds from the click to the verdict, with an empty cache and
with a full one, and the round trips a second in a session of the reader's own: each the best of several.
"""

from __future__ import annotations

import json
import time

from tests.buttons.pages import SITE, Page, Server, chromium, firefox, tab_of

ECHO = "docs_src/index/echo.py"
TRIES = 3
MESSAGES = 500


def weight() -> int:
    """The bytes that the first click loads: everything but the packages of single examples."""
    folder = SITE / "ws-doctest"
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    files = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".whl"]
    files += [folder / "packages" / name for name in config["base"]]
    files += [folder / "packages" / name for name in config["examples"][ECHO]]
    return sum(path.stat().st_size for path in files)


def seconds_to_the_verdict(page: Page) -> float:
    page.wait(f"{page.place(ECHO)}?.querySelector('button') != null")
    begun = time.perf_counter()
    assert page.click_run(ECHO) == "same"
    return time.perf_counter() - begun


def round_trips(page: Page) -> float:
    """How many messages are sent and answered in a second, each of them shown."""
    page.say(ECHO, "> connect /")
    log = f"{page.place(ECHO)}.querySelector('[role=log]')"
    page.wait(f"{log}.children.length === 2")
    lines = "\n".join(f"> text {number}" for number in range(MESSAGES))
    begun = time.perf_counter()
    page.say(ECHO, lines)
    page.wait(f"{log}.children.length === {2 + 2 * MESSAGES}")
    return MESSAGES / (time.perf_counter() - begun)


def main() -> None:
    server = Server()
    server.cached = True
    print(f"weight of the first click: {weight() / 1e6:.1f} MB")  # noqa: T201 - this is what it is for
    for make in (chromium, firefox):
        first, again, rates = [], [], []
        for _ in range(TRIES):
            browser = make()
            try:
                page = Page(tab_of(browser, f"http://{server.host}/"), server.host)
                first.append(seconds_to_the_verdict(page))
                rates.append(round_trips(page))
                page = Page(tab_of(browser, f"http://{server.host}/"), server.host)
                again.append(seconds_to_the_verdict(page))
            finally:
                browser.close()
        print(  # noqa: T201 - the same
            f"{make.__name__}: first click {min(first):.1f} s, on another page {min(again):.1f} s, "
            f"{max(rates):.0f} messages and answers a second"
        )
    server.close()


if __name__ == "__main__":
    main()

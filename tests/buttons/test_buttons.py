"""Every Run button of the built site, in headless Chromium and Firefox; `nox -s buttons` builds the site."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from html import escape

import pytest

from tests.buttons.pages import (
    BUTTONS,
    DOCS,
    FILES,
    ROOT,
    SITE,
    AnyTab,
    Open,
    Page,
    Server,
    chromium,
    firefox,
    tab_of,
)
from tests.docs.browser import Browser
from tests.docs.firefox import Firefox
from ws_doctest.buttons import Button
from ws_doctest.site import rendered_path

ECHO = "docs_src/index/echo.py"
ROOM = "docs_src/guides/channels/room.py"
TICKET = "docs_src/project/transcripts/ticket.py"

CHAT = "docs_src/guides/chat/chat.py"
SEND = 'await websocket.send_text(f"You said: {text}")'
LINE = next(n for n, line in enumerate((ROOT / ECHO).read_text("utf-8").split("\n"), 1) if SEND in line)
SESSION = (ROOT / ECHO).with_suffix(".ws").read_text("utf-8").splitlines()


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@pytest.fixture(scope="session", params=[chromium, firefox], ids=["chromium", "firefox"])
def browser(request: pytest.FixtureRequest) -> Iterator[Browser | Firefox]:
    browser: Browser | Firefox = request.param()
    yield browser
    browser.close()


@pytest.fixture
def opened(browser: Browser | Firefox, server: Server) -> Iterator[Open]:
    """Opens a page, by its path."""
    tabs: list[AnyTab] = []

    def open_page(path: str) -> Page:
        tabs.append(tab_of(browser, f"http://{server.host}{path}"))
        return Page(tabs[-1], server.host)

    yield open_page
    for tab in tabs:
        tab.close()
    server.answers.clear()
    server.policy = server.make_policy()


def page_of(files: list[str]) -> bytes:
    """A page with the buttons of these examples."""
    places = "".join(f'<div class="ws-run" data-example="{file}"></div>' for file in files)
    script = '<script type="module" src="/ws-doctest/page.js"></script>'
    return f'<!doctype html><link rel="icon" href="data:,">{places}{script}'.encode()


@pytest.fixture(scope="module")
def everything(browser: Browser | Firefox, server: Server) -> Iterator[Page]:
    """One page with the button of every example."""
    server.answers["/everything/"] = (200, page_of(FILES))
    tab = tab_of(browser, f"http://{server.host}/everything/")
    yield Page(tab, server.host)
    tab.close()


def fresh(page: Page, file: str) -> Page:
    """A page on which an example has its own code."""
    if page.run(f"{page.place(file)}.querySelector('.ws-run-code') != null"):
        page.click(file, "Reset the code")
    return page


@pytest.mark.parametrize("file", FILES)
def test_every_example_does_what_its_page_shows(everything: Page, file: str) -> None:
    assert everything.click_run(file) == "same", everything.text(file)
    scripts = everything.run(f"{everything.place(file)}.querySelectorAll('.ws-run-results ol').length")
    assert scripts >= 1
    steps = everything.run(
        f"[...{everything.place(file)}.querySelectorAll('.ws-run-results li')].map((li) => li.className)"
    )
    assert steps
    assert set(steps) - {"ws-run-print"} == {"ws-run-same"}


def test_nothing_went_wrong_meanwhile(everything: Page) -> None:
    everything.click_run(ECHO)
    assert everything.tab.complaints() == []
    assert everything.hosts() == {everything.host}


def test_nothing_is_loaded_before_the_first_click_and_all_from_here(opened: Open) -> None:
    page = opened("/")
    page.wait(f"{page.place(ECHO)}?.querySelector('button') != null")
    before = [address for address in page.tab.requests() if "/ws-doctest/" in address]
    assert sorted(address.rpartition("/")[2] for address in before) == ["page.js", "style.css"]
    assert page.click_run(ECHO) == "same"
    after = page.tab.requests()
    assert any(address.endswith("/pyodide/pyodide.asm.wasm.gz") for address in after)
    assert page.hosts() == {page.host}
    assert len([address for address in after if address.endswith(".whl")]) >= 3
    # A second example of the page starts no second Python.
    assert page.click_run("docs_src/guides/fastapi/echo.py") == "same"
    assert sum("/pyodide.asm.mjs" in address for address in page.tab.requests()) == 1
    assert page.tab.complaints() == []


@pytest.mark.parametrize(
    ("new", "error"),
    [
        (
            "await websocket.send_text(text.nothing)",
            "AttributeError: 'str' object has no attribute 'nothing'",
        ),
        ("await websocket.send_text(", "SyntaxError: '(' was never closed"),
    ],
)
def test_a_mistake_shows_the_traceback_with_its_line(everything: Page, new: str, error: str) -> None:
    page = fresh(everything, ECHO)
    assert page.click_run(ECHO) == "same"
    page.change(ECHO, SEND, new)
    assert page.click_run(ECHO) == "different"
    said = page.text(ECHO, ".ws-run-results")
    assert f'File "{ECHO}", line {LINE}' in said
    assert error in said
    assert page.run(f"{page.place(ECHO)}.querySelector('details').open")
    assert f"{LINE - 1}\n▸{LINE}\n" in page.text(ECHO, ".ws-run-numbers")
    page.click(ECHO, "Reset the code")
    assert page.click_run(ECHO) == "same"
    assert "▸" not in page.text(ECHO, ".ws-run-numbers")


def test_another_behaviour_is_shown_as_the_difference(everything: Page) -> None:
    page = fresh(everything, ECHO)
    assert page.click_run(ECHO) == "same"
    page.change(ECHO, "You said", "You say")
    assert page.click_run(ECHO) == "different"
    marks = f"{page.place(ECHO)}.querySelectorAll('.ws-run-results .ws-run-mark')"
    marks = page.run(f"[...{marks}].map((mark) => mark.innerText)")
    assert marks == ["✓", "✓", "✓", "✗", "✓"]
    said = page.text(ECHO, ".ws-run-problem")
    assert "-< text You said: Hello!\n+< text You say: Hello!" in said
    assert page.text(ECHO, "[role=status]") == "1 of 1 session, 5 lines: not as on this page."


def test_an_endless_loop_can_be_stopped(everything: Page) -> None:
    page = fresh(everything, ECHO)
    assert page.click_run(ECHO) == "same"
    # In the reader's own session.
    page.change(ECHO, SEND, "while True: pass")
    page.say(ECHO, "> connect /")
    page.wait(f"{page.place(ECHO)}.querySelectorAll('[role=log] li').length === 2")
    page.say(ECHO, "> text Hello!")
    page.wait(f"{page.place(ECHO)}.querySelectorAll('[role=log] li').length === 3")
    page.click(ECHO, "Stop")
    assert page.state(ECHO) == "stopped"
    # In a replay. The click starts Python again.
    page.click(ECHO, "Run again")
    page.wait(f"{page.place(ECHO)}.dataset.state === 'running'")
    page.click(ECHO, "Stop")
    assert page.state(ECHO) == "stopped"
    assert page.text(ECHO, "[role=status]") == "Stopped. Run starts Python again."
    page.click(ECHO, "Reset the code")
    page.say(ECHO, "> connect /")  # which starts it as well
    page.wait(f"{page.place(ECHO)}.querySelector('[role=log]').innerText.includes('< accept')")
    assert page.click_run(ECHO) == "same"


def test_the_readers_own_lines_by_keyboard_alone(everything: Page) -> None:
    page = fresh(everything, ECHO)
    place = page.place(ECHO)
    page.run(f"(delete {place}.dataset.state, {place}.querySelector('.ws-run-main').focus(), 0)")
    page.tab.press("Enter")
    page.wait(f"{page.place(ECHO)}.dataset.state === 'same'")
    page.run(f"{page.place(ECHO)}.querySelector('details').removeAttribute('open') ?? null")
    assert page.run("document.activeElement.innerText") == "Run again"
    seen = []
    for _ in range(6):  # the focus goes on, and is never caught
        page.tab.press("Tab")
        seen.append(page.run("document.activeElement.tagName"))
    assert seen[:4] == ["BUTTON", "SUMMARY", "TEXTAREA", "BUTTON"]
    page.run(f"{page.place(ECHO)}.querySelector('.ws-run-lines').focus() ?? null")
    # The transcript's own lines are there to be sent, one after the other.
    for count in (2, 4, 5):
        page.tab.press("Enter")
        page.wait(f"{page.place(ECHO)}.querySelectorAll('[role=log] li').length === {count}")
    assert page.log(ECHO) == SESSION


def test_lines_of_the_readers_own(everything: Page) -> None:
    page = fresh(everything, ECHO)
    assert page.click_run(ECHO) == "same"
    page.say(ECHO, 'connect /\ntext One\njson {"two":2}')  # without the mark, too
    page.wait(f"{page.place(ECHO)}.querySelectorAll('[role=log] li').length === 6")
    assert page.log(ECHO) == [
        "> connect /",
        "< accept",
        "> text One",
        "< text You said: One",
        '> json {"two": 2}',
        '< text You said: {"two": 2}',
    ]
    page.say(ECHO, "hello")
    page.wait(f"{page.place(ECHO)}.querySelectorAll('[role=log] li').length === 7")
    assert "after `>` comes one of connect" in page.log(ECHO)[-1]
    page.say(ECHO, "> close")
    page.wait(f"{page.place(ECHO)}.querySelectorAll('[role=log] li').length === 8")
    page.say(ECHO, "> text Still there?")
    page.wait(f"{page.place(ECHO)}.querySelectorAll('[role=log] li').length === 9")
    assert "a transcript starts with `> connect PATH`" in page.log(ECHO)[-1]
    page.say(ECHO, "> connect /again")
    page.wait(f"{page.place(ECHO)}.querySelectorAll('[role=log] li').length === 11")


def test_several_clients_and_values_that_have_a_name(everything: Page) -> None:
    page = everything
    assert page.click_run(ROOM) == "same"
    page.say(ROOM, "ann > connect /\nbob > connect /\nann > text Hello, Bob")
    page.wait(f"{page.place(ROOM)}.querySelectorAll('[role=log] li').length === 7")
    assert {"ann < text Hello, Bob", "bob < text Hello, Bob"} < set(page.log(ROOM))
    # A value that changes on every run is put in where its name stands.
    assert page.click_run(TICKET) == "same"
    page.say(TICKET, "ann > connect /")
    page.wait(f"{page.place(TICKET)}.querySelectorAll('[role=log] li').length === 3")
    page.say(TICKET, "ann > text 4A\nann > close")
    page.wait(f"{page.place(TICKET)}.querySelectorAll('[role=log] li').length === 5")
    page.say(TICKET, "ann > connect /?ticket=$ticket")
    page.wait(f'{page.place(TICKET)}.innerText.includes(\'"seat": "4A"}}\')')
    # Requests over HTTP.
    assert page.click_run(CHAT) == "same"
    page.say(CHAT, "ann > POST /ticket\nann > body ann")
    page.wait(f"{page.place(CHAT)}.querySelector('[role=log]').innerText.includes('ann < 200')")


def test_what_cannot_be_loaded_is_said_and_loaded_at_the_next_click(opened: Open, server: Server) -> None:
    page = opened("/")
    page.wait(f"{page.place(ECHO)}?.querySelector('button') != null")
    server.answers["/ws-doctest/config.json"] = (404, b"")
    assert page.click_run(ECHO) == "failed"
    assert "config.json: HTTP status 404" in page.text(ECHO, "[role=status]")
    server.answers.clear()
    assert page.click_run(ECHO) == "same"


def test_without_a_network(opened: Open, server: Server) -> None:
    page = opened("/")
    page.wait(f"{page.place(ECHO)}?.querySelector('button') != null")
    server.answers["/ws-doctest/examples.zip"] = (0, b"")
    assert page.click_run(ECHO) == "failed"
    assert "/ws-doctest/examples.zip cannot be loaded" in page.text(ECHO, "[role=status]")
    assert "Are you offline?" in page.text(ECHO, "[role=status]")
    server.answers.clear()
    assert page.click_run(ECHO) == "same"


def test_two_examples_that_need_the_same_packages(opened: Open, server: Server) -> None:
    """Both are clicked before the packages are there."""
    files = ["docs_src/guides/fastapi/echo.py", "docs_src/guides/browser-wire/fastapi_rooms.py"]
    needed = json.loads((SITE / "ws-doctest" / "config.json").read_text("utf-8"))["examples"]
    (package,) = (name for name in needed[files[1]] if name.startswith("fastapi-"))
    assert package in needed[files[0]]
    server.answers["/two/"] = (200, page_of([ECHO, *files]))
    held = server.may_answer[f"/ws-doctest/packages/{package}"] = threading.Event()
    try:
        page = opened("/two/")
        page.wait(f"{page.place(ECHO)}?.querySelector('button') != null")
        assert page.click_run(ECHO) == "same"  # so Python is there
        for file in files:
            page.click(file, "Run it here")
        page.wait(f"performance.now() > {page.run('performance.now()')} + 1000")
        assert {page.state(file) for file in files} == {"loading"}
        held.set()
        for file in files:
            page.wait(f"!['loading', 'running'].includes({page.place(file)}.dataset.state)")
            assert page.state(file) == "same", page.text(file)
    finally:
        held.set()


FLOODS = {
    "prints": "while True: print('x' * 100)",
    "empty lines": "while True: print()",
    "one line": "print('x' * 50_000_000)",
    "messages": "while True: await websocket.send_text('x' * 1000)",
}


@pytest.mark.parametrize("flood", FLOODS.values(), ids=FLOODS)
def test_what_never_ends_does_not_fill_the_page(everything: Page, flood: str) -> None:
    page = fresh(everything, ECHO)
    assert page.click_run(ECHO) == "same"
    page.change(ECHO, SEND, flood)
    page.click(ECHO, "Run again")
    if "print" in flood:
        page.wait(f"{page.place(ECHO)}.innerText.includes('The rest of the output is not shown.')")
    else:
        page.wait(f"{page.place(ECHO)}.querySelectorAll('.ws-run-results li').length >= 3")
    assert page.run(f"{page.place(ECHO)}.querySelectorAll('li').length") < 1010
    assert len(page.text(ECHO)) < 150_000
    if page.run(f"{page.place(ECHO)}.dataset.state === 'running'"):
        page.click(ECHO, "Stop")
        assert page.state(ECHO) == "stopped"
    page.click(ECHO, "Reset the code")
    assert page.click_run(ECHO) == "same"
    # Another run may show as much again.
    assert "The rest of the output" not in page.text(ECHO)


@pytest.mark.parametrize("code", ["import os; os._exit(3)", "import os; os.abort()"])
def test_code_that_ends_python(everything: Page, code: str) -> None:
    """The next click starts it again."""
    page = fresh(everything, ECHO)
    assert page.click_run(ECHO) == "same"
    page.change(ECHO, SEND, code)
    assert page.click_run(ECHO) == "failed"
    assert page.text(ECHO, "[role=status]")
    page.click(ECHO, "Reset the code")
    assert page.click_run(ECHO) == "same"


@pytest.mark.parametrize(
    "change",
    [{"script_src": "'self'"}, {"worker_src": "'none'"}, {"connect_src": "'none'"}],
    ids=["wasm", "worker", "connections"],
)
def test_each_part_of_the_policy_is_needed(opened: Open, server: Server, change: dict[str, str]) -> None:
    server.policy = server.make_policy(**change)
    page = opened("/")
    page.wait(f"{page.place(ECHO)}?.querySelector('button') != null")
    assert page.click_run(ECHO) == "failed"
    assert page.text(ECHO, "[role=status]")


@pytest.mark.parametrize("button", BUTTONS, ids=lambda button: f"{button.page.stem}-{button.file}")
def test_the_built_page_has_the_button_or_says_why_not(button: Button) -> None:
    rendered = rendered_path(button.page.relative_to(DOCS), SITE)
    assert rendered is not None
    html = rendered.read_text(encoding="utf-8")
    if button.reason:
        assert f"This example has no Run button: {escape(button.reason)}." in html
    else:
        assert f'data-example="{button.file}"' in html

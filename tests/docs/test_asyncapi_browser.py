"""The page of an AsyncAPI document in Chromium: to read it, connect, send a message, see what comes back."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import msgspec
import pytest
import uvicorn
from pydantic import BaseModel, Field
from starlette.applications import Starlette
from starlette.routing import Mount, WebSocketRoute

from docs_src.guides.asyncapi import chat
from lilya.websockets import WebSocket
from lilya.websockets.asyncapi import AsyncAPI, describe
from lilya.websockets.starlette import WebSocketRoute as OurRoute
from lilya.websockets.typed import JSON, MessagePack
from tests.docs.browser import Browser, Tab, needs_chromium, wait_for
from tests.lilya_websockets.test_asyncapi_page import HOSTILE

pytestmark = [needs_chromium, pytest.mark.page("docs/guides/asyncapi.md", "## Serve the document and a page")]

STATUS = "document.querySelector('.console [role=status]').textContent"
LOG = "[...document.querySelectorAll('.log li')].map((item) => item.innerText)"
FOCUS = "document.activeElement.innerText || document.activeElement.name"

# What reaches beyond the window although nothing around it scrolls, and text whose contrast to what is behind
# it is below 4.5 (WCAG 2.2, 1.4.3).
LOOK = """(() => {
    const scrolls = (element) => element && (
        ['auto', 'scroll'].includes(getComputedStyle(element).overflowX) || scrolls(element.parentElement));
    const light = (colour) => {
        const [red, green, blue] = colour.match(/[\\d.]+/g).map((part) => part / 255)
            .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
    };
    const behind = (element) => {
        const colour = getComputedStyle(element).backgroundColor;
        return colour === 'rgba(0, 0, 0, 0)' ? behind(element.parentElement) : colour;
    };
    const contrast = (element) => {
        const colours = [getComputedStyle(element).color, behind(element)];
        const [low, high] = colours.map(light).sort((a, b) => a - b);
        return (high + 0.05) / (low + 0.05);
    };
    const told = (element) => `${element.tagName} ${element.textContent.trim().slice(0, 40)}`;
    const width = document.documentElement.clientWidth;
    const shown = [...document.querySelectorAll('#page *')].filter((element) => element.checkVisibility());
    return {
        wide: shown.filter((element) => element.getBoundingClientRect().right > width + 1
            && !scrolls(element.parentElement)).map(told),
        faint: shown.filter((element) => !element.matches(':disabled') && [...element.childNodes].some(
            (node) => node.nodeType === 3 && node.data.trim()) && contrast(element) < 4.5).map(told),
    };
})()"""


@contextmanager
def opened(browser: Browser, app: Any, path: str = "/asyncapi") -> Iterator[Tab]:
    """The page of an app that runs."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_for(lambda: server.started)
        port = server.servers[0].sockets[0].getsockname()[1]
        tab = Tab(browser, f"http://127.0.0.1:{port}{path}")
        try:
            yield tab
            assert tab.complaints() == []
            assert tab.hosts() == {f"127.0.0.1:{port}"}
        finally:
            tab.close()
    finally:
        server.should_exit = True
        thread.join()


def press(tab: Tab, key: str, code: int, modifiers: int = 0, text: str = "") -> None:
    options = {"key": key, "code": key, "windowsVirtualKeyCode": code, "modifiers": modifiers}
    tab.call("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", text=text, **options)
    tab.call("Input.dispatchKeyEvent", type="keyUp", **options)


def go_to(tab: Tab, wanted: str) -> None:
    """Press the tab key until something has the focus."""
    for _ in range(60):
        press(tab, "Tab", 9)
        if tab.run(f"({FOCUS}).startsWith({wanted!r})"):
            return
    raise AssertionError(f"the tab key never leads to {wanted}")


def open_all(tab: Tab) -> None:
    tab.run("void document.querySelectorAll('details').forEach((each) => { each.open = true; })")


def test_with_the_keyboard_alone(browser: Browser) -> None:
    with opened(browser, chat.app) as tab:
        assert tab.run("document.title") == "Chat"
        press(tab, "Tab", 9)
        assert tab.run(FOCUS) == "Skip to the channels"
        go_to(tab, "Count")
        go_to(tab, "Say")
        press(tab, "Enter", 13, text="\r")
        assert tab.run("location.hash") == "#schema-Say"
        tab.run("void document.querySelector('#list').focus()")
        go_to(tab, "Count")
        press(tab, "Enter", 13, text="\r")
        go_to(tab, "Put into the console")
        press(tab, "Enter", 13, text="\r")
        assert tab.run(FOCUS) == "Connect"
        press(tab, "Enter", 13, text="\r")
        tab.wait(f"{STATUS} === 'Connected.'")
        go_to(tab, "message")
        press(tab, "Enter", 13, modifiers=2)
        tab.wait(f"{LOG}.length === 3")
        log = tab.run(LOG)
        assert [entry.partition("\n")[0] for entry in log] == ["Connected", "Sent", "Received Counted"]
        assert '"reply_to":"1","messages":0' in log[2]
        tab.run("void document.querySelector('.console').querySelector('button').focus()")
        press(tab, "Enter", 13, text="\r")
        tab.wait(f"{LOG}.length === 4")
        assert tab.run(LOG)[3] == "Closed with 1000"
        assert tab.run(STATUS) == "Not connected."


def test_what_is_sent_and_what_comes_back(browser: Browser) -> None:
    with opened(browser, chat.app) as tab:
        open_all(tab)
        # The first message is there, made from its example; another room is chosen.
        tab.run(
            "void (() => { const room = document.querySelector('[name=room]'); room.value = 'kitchen';"
            " room.dispatchEvent(new Event('input')); })()"
        )
        assert tab.run("document.querySelector('[name=url]').value").endswith("/rooms/kitchen")
        tab.run("document.querySelector('.console form').requestSubmit()")
        tab.wait(f"{STATUS} === 'Connected.'")
        send = "document.querySelectorAll('.console form')[1].requestSubmit()"
        tab.run(send)
        tab.wait(f"{LOG}.length === 3")
        assert tab.run(LOG)[2] == 'Received Said\n{"type":"said","text":"kitchen: Hello"}'
        # What the app refuses is shown as it comes.
        tab.run("void (document.querySelector('[name=message]').value = '{}')")
        tab.run(send)
        tab.wait(f"{LOG}.length === 5")
        assert '"type":"error"' in tab.run(LOG)[4]
        # A path that the app does not have.
        tab.run("document.querySelector('.console form').requestSubmit()")
        tab.wait(f"{STATUS} === 'Not connected.'")
        tab.run("void (document.querySelector('[name=url]').value += '/nowhere')")
        tab.run("document.querySelector('.console form').requestSubmit()")
        tab.wait(f"{LOG}.at(-1) === 'Closed with 1006'")
        tab.run("void (document.querySelector('[name=url]').value = 'nonsense:')")
        tab.run("document.querySelector('.console form').requestSubmit()")
        tab.wait(f"{STATUS}.includes('URL')")


def test_an_app_below_a_prefix(browser: Browser) -> None:
    app = Starlette(routes=[Mount("/prefix", chat.app)])
    with opened(browser, app, "/prefix/asyncapi") as tab:
        open_all(tab)
        servers = (
            "[...document.querySelector('[name=server]').options].map((each) => new URL(each.value).pathname)"
        )
        assert tab.run(servers) == ["/", "/prefix", "/"]
        tab.run(
            "void (() => { const field = document.querySelector('[name=server]'); field.selectedIndex = 1;"
            " field.dispatchEvent(new Event('input')); })()"
        )
        tab.run("document.querySelector('.console form').requestSubmit()")
        tab.wait(f"{STATUS} === 'Connected.'")


class Hostile(BaseModel):
    __doc__ = HOSTILE
    kind: Literal["hostile"] = Field(description=HOSTILE)
    text: str = Field(HOSTILE, pattern="<b>")


class Deep(BaseModel):
    kind: Literal["deep"] = "deep"
    inner: Deep | None = None
    pairs: list[tuple[int, str]] = Field(min_length=1)
    by_name: dict[str, int] = {}
    at_least: int = Field(ge=18)
    either: bool | Literal["a"]


class Binary(WebSocket[Deep], codec=JSON(binary=True)):
    pass


@describe(Binary, title=HOSTILE, tags=[HOSTILE], deprecated=True)
async def binary(websocket: Any) -> None:
    websocket = Binary.wrap(websocket)
    async with websocket:
        async for message in websocket.iter_messages():
            await websocket.send_message(message)
            await websocket.send_bytes(b"\xff\x00")


async def hostile(websocket: WebSocket[Hostile | Deep, int]) -> None: ...


def hostile_app() -> Any:
    hostile.__doc__ = HOSTILE
    app = Starlette(routes=[OurRoute("/binary/{a}/{rest:path}", binary), WebSocketRoute("/hostile", hostile)])
    app.routes.append(Mount("/asyncapi", AsyncAPI(app, title=HOSTILE, description=HOSTILE)))
    return app


def test_hostile_texts_stay_texts(browser: Browser) -> None:
    with opened(browser, hostile_app()) as tab:
        open_all(tab)
        assert tab.run("document.title.includes('alert(1)')")
        assert tab.run("document.querySelectorAll('#page script, #page img').length") == 0
        assert tab.run("document.querySelector('#list').innerText").count("<img src=x onerror=alert(2)>") > 5


def test_a_made_example_is_one_that_the_app_takes(browser: Browser) -> None:
    """Without transcripts the page makes an example from the schema; here in binary messages."""
    with opened(browser, hostile_app()) as tab:
        open_all(tab)
        tab.run(
            "void (() => { for (const [name, value] of [['a', 'x y'], ['rest', 'b/c']]) {"
            " const field = document.querySelector(`.console [name=${name}]`); field.value = value;"
            " field.dispatchEvent(new Event('input')); } })()"
        )
        assert tab.run("document.querySelector('[name=url]').value").endswith("/binary/x%20y/b/c")
        tab.run("document.querySelector('.console form').requestSubmit()")
        tab.wait(f"{STATUS} === 'Connected.'")
        tab.run("document.querySelectorAll('.console form')[1].requestSubmit()")
        tab.wait(f"{LOG}.length === 4")
        log = tab.run(LOG)
        assert [entry.partition("\n")[0] for entry in log[1:]] == [
            "Sent, binary",
            "Received binary, Deep",
            "Received binary",
        ]
        assert log[3].endswith("\nff 00")


class Point(msgspec.Struct, tag="point"):
    x: int
    labels: dict[str, list[str | None]]
    data: bytes = b""


class Packed(WebSocket[Point], codec=MessagePack()):
    pass


@describe(Packed)
async def packed(websocket: Any) -> None:
    websocket = Packed.wrap(websocket)
    async with websocket:
        async for message in websocket.iter_messages():
            await websocket.send_message(Point(message.x * 2, message.labels, b"\xff\x00"))
            await websocket.send_bytes(b"\xc1")


def packed_app() -> Any:
    app = Starlette(routes=[OurRoute("/packed", packed)])
    app.routes.append(Mount("/asyncapi", AsyncAPI(app)))
    return app


def test_messagepack_in_the_console(browser: Browser) -> None:
    with opened(browser, packed_app()) as tab:
        open_all(tab)
        assert tab.run("document.querySelector('[name=kind]').value") == "MessagePack"
        tab.run("document.querySelector('.console form').requestSubmit()")
        tab.wait(f"{STATUS} === 'Connected.'")
        tab.run(
            "void (document.querySelector('[name=message]').value ="
            ' \'{"type": "point", "x": 21, "labels": {"ä": ["b", null]}}\')'
        )
        tab.run("document.querySelectorAll('.console form')[1].requestSubmit()")
        tab.wait(f"{LOG}.length === 4")
        log = tab.run(LOG)
        headings, texts = zip(*(entry.partition("\n")[::2] for entry in log[1:]), strict=True)
        assert headings == ("Sent, MessagePack", "Received MessagePack, Point", "Received binary")
        assert json.loads(texts[1]) == {
            "type": "point",
            "x": 42,
            "labels": {"ä": ["b", None]},
            "data": "ff 00",
        }
        assert texts[2] == "c1"
        tab.run("void (document.querySelector('[name=message]').value = '{')")
        tab.run("document.querySelectorAll('.console form')[1].requestSubmit()")
        tab.wait(f"{STATUS}.startsWith('Not sent: the message must be JSON')")
        assert len(tab.run(LOG)) == 4


# Of every form that MessagePack has for what JSON can hold, and around the limits of each.
NUMBERS = [
    sign * (2**power + more)
    for power in (0, 5, 7, 8, 15, 16, 31, 32, 52)
    for more in (-1, 0)
    for sign in (1, -1)
]
VALUES: list[Any] = [
    *(None, True, False, 0.5, -1e300, "", "é", "x" * 31, "x" * 32, "x" * 255, "x" * 256, "x" * 65536),
    *NUMBERS,
    *([0] * length for length in (0, 15, 16, 65535, 65536)),
    *({str(number): number for number in range(length)} for length in (0, 15, 16, 65536)),
    {"a": [{"b": [[]]}], "__proto__": 1},
]


def test_messagepack_is_that_of_msgspec(browser: Browser) -> None:
    with opened(browser, packed_app()) as tab:
        for value in VALUES:
            text = json.dumps(value)
            sent = tab.run(f"[...packed(JSON.parse({json.dumps(text)}))].join()")
            assert msgspec.msgpack.decode(bytes(map(int, sent.split(",")))) == value, text[:80]
            came = f"new Uint8Array({list(msgspec.msgpack.encode(value))}).buffer"
            assert json.loads(tab.run(f"JSON.stringify(unpacked({came}))")) == value, text[:80]
        # What JSON has no form of, and what is no message.
        for data, shown in (
            (msgspec.msgpack.encode(b"\x01\xff"), "01 ff"),
            (msgspec.msgpack.encode(msgspec.msgpack.Ext(5, b"\x01")), "05 01"),
            (msgspec.msgpack.encode(2**63), str(2**63)),
            (msgspec.msgpack.encode({1: 2}), {"1": 2}),
            (b"\xca\x3f\x00\x00\x00", 0.5),
        ):
            assert (
                json.loads(tab.run(f"JSON.stringify(unpacked(new Uint8Array({list(data)}).buffer))")) == shown
            )
        for data in (b"", b"\xc1", b"\xa2a", b"\x92\x01", b"\x01\x02", b"\xdd\xff\xff\xff\xff", b"\xa1\xff"):
            came = f"new Uint8Array({list(data)}).buffer"
            assert tab.run(f"(() => {{ try {{ unpacked({came}); }} catch {{ return 1 }} }})()") == 1, data


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_and_can_be_read(browser: Browser, scheme: str) -> None:
    for app in (chat.app, hostile_app()):
        with opened(browser, app) as tab:
            open_all(tab)
            for width in (1300, 400):
                tab.resize(width, 900, scheme)
                assert tab.run(LOOK) == {"wide": [], "faint": []}, width


@pytest.mark.parametrize(
    ("planted", "found"),
    [
        ("document.querySelector('h1').style.color = '#888'", "faint"),
        ("document.querySelector('h1').style.width = '200vw'", "wide"),
    ],
)
def test_planted_faults(browser: Browser, planted: str, found: str) -> None:
    with opened(browser, chat.app) as tab:
        tab.resize(400, 900, "light")
        tab.run(f"void ({planted})")
        assert len(tab.run(LOOK)[found]) == 1

"""The chat room of the page *A chat room*, opened by people: in Chromium, with a network that breaks."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import pytest
from websockets import Subprotocol
from websockets.sync.client import ClientConnection, connect

from tests.docs.browser import LIMIT, Browser, Tab, Wire, needs_chromium, wait_for

pytestmark = pytest.mark.page("docs/guides/chat.md", "A test opens it in a headless Chromium")

ROOT = Path(__file__).parents[2]
HTML = ROOT / "docs_src" / "guides" / "chat" / "chat.html"

TEXTS = "[...document.querySelectorAll('#log li:not(.pending) p')].map((text) => text.textContent)"
PENDING = "[...document.querySelectorAll('#log .pending p')].map((text) => text.textContent)"
MEMBERS = "[...document.querySelectorAll('#members li')].map((item) => item.textContent).join()"
STATUS = "document.querySelector('#status').textContent"
CROWD = 54  # messages while somebody is away: more than a new client is given


# The page's connections, what it gives for a ticket, and how many of those are wrong.
HOOKS = """void (() => {
    window.sockets = [];
    window.WebSocket = class extends WebSocket {
        constructor(...all) { super(...all); sockets.push(this); }
    };
    window.given = (body) => body;
    window.wrong = 0;
    const fetched = fetch;
    window.fetch = (url, options) => wrong-- > 0
        ? Promise.resolve(new Response("wrong"))
        : fetched(url, {...options, body: given(options.body)});
})()"""
CLIENT = 'CLIENT = files("lilya.websockets.channels") / "client.js"'


class Served:
    """The chat room, live beside the docs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "site").mkdir(parents=True)
        (folder / "site" / "index.html").write_text("<h1>The docs</h1>")
        self.example = folder / "docs_src" / "guides" / "chat"
        shutil.copytree(HTML.parent, self.example)
        # With a copy of the client, which can be changed.
        client = (files("lilya.websockets.channels") / "client.js").read_bytes()
        (self.example / "client.js").write_bytes(client)
        app = self.example / "chat.py"
        text = app.read_text(encoding="utf-8")
        assert CLIENT in text
        app.write_text(text.replace(CLIENT, 'CLIENT = PAGE.with_name("client.js")'), encoding="utf-8")
        self.port = 0
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "ws_doctest", "serve", "--site", "site", "--examples", "docs_src"]
        self.process = subprocess.Popen(
            [*command, "--port", str(self.port)],
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self.process.stdout is not None
        found = re.search(r"http://127.0.0.1:(\d+)/", self.process.stdout.readline())
        assert found
        self.port = int(found[1])

    def address(self, host: str | None = None) -> str:
        return f"http://{host or f'127.0.0.1:{self.port}'}/live/guides/chat/chat"

    def stop(self) -> None:
        self.process.send_signal(signal.SIGINT)
        self.process.communicate(timeout=LIMIT)
        assert self.process.returncode == 0

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


class Room:
    """Two people in one room, the second one over a wire that can break."""

    def __init__(self, browser: Browser, folder: Path) -> None:
        self.served = Served(folder)
        self.wire = Wire(self.served.port)
        self.tabs: list[Tab] = []
        self.browser = browser

    def enter(self) -> tuple[Tab, Tab]:
        ann = Tab(self.browser, self.served.address())
        bob = Tab(self.browser, self.served.address(self.wire.address))
        self.tabs = [ann, bob]
        for tab, name in zip(self.tabs, ("ann", "bob"), strict=True):
            tab.run(HOOKS)
            tab.type("#name", name)
        for tab in self.tabs:
            tab.wait(f"{MEMBERS} === 'ann,bob' && {STATUS} === 'Connected.'")
        return ann, bob

    def close(self) -> None:
        for tab in self.tabs:
            tab.close()
        self.wire.close()
        self.served.close()


@pytest.fixture
def room(browser: Browser, tmp_path: Path) -> Iterator[Room]:
    room = Room(browser, tmp_path)
    yield room
    room.close()


@contextlib.contextmanager
def enter(address: str, name: str) -> Iterator[ClientConnection]:
    """Connect as somebody, with a ticket, and join the room."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"{address}/ticket", name.encode(), timeout=LIMIT) as answer:
        ticket = answer.read().decode()
    subprotocols = [Subprotocol(each) for each in ("lilya.channels.v1", "bearer", ticket)]
    url = f"{address.replace('http:', 'ws:')}/room"
    with connect(url, subprotocols=subprotocols, proxy=None) as websocket:
        websocket.send(json.dumps({"type": "join", "channel": "room:lobby"}))
        yield websocket


def crowd(address: str) -> list[str]:
    """Others, who say much."""
    texts = [f"crowd {number}" for number in range(CROWD)]
    for part in range(3):
        with enter(address, f"crowd{part}") as websocket:
            mine = texts[part * CROWD // 3 : (part + 1) * CROWD // 3]
            for text in mine:
                message = {"type": "publish", "channel": "room:lobby", "key": text, "data": text}
                websocket.send(json.dumps(message))
            heard = 0
            while heard < len(mine):
                heard += json.loads(websocket.recv(LIMIT))["type"] == "published"
    return texts


def talk(room: Room) -> tuple[list[str], list[str], list[str]]:
    """What each sees in the end, and what was to be seen."""
    ann, bob = room.enter()
    ann.type("#text", "one")
    bob.wait(f"{TEXTS}.includes('one')")

    # Bob's network is gone.
    room.wire.open = False
    room.wire.cut()
    bob.wait("document.body.classList.contains('lost')")
    bob.type("#text", "from afar")
    bob.wait(f"{PENDING}.join() === 'from afar'")
    many = crowd(room.served.address())
    ann.type("#text", "where is he?")
    ann.wait(f"{TEXTS}.includes('where is he?')")
    room.wire.open = True
    bob.wait(f"{STATUS} === 'Connected.'")
    bob.type("#text", "back")
    for tab in (ann, bob):
        tab.wait(f"{TEXTS}.includes('back')")
    wanted = ["one", *many, "where is he?", "from afar", "back", "once", "late", "end"]
    if bob.run(PENDING):  # what he said before has not come before: the rest can be spared
        return ann.run(TEXTS), bob.run(TEXTS), wanted

    # What he says arrives, and he does not hear of it.
    room.wire.deaf = True
    bob.type("#text", "once")
    ann.wait(f"{TEXTS}.includes('once')")
    bob.wait(f"{PENDING}.join() === 'once'")
    room.wire.deaf = False
    room.wire.cut()
    bob.wait("document.body.classList.contains('lost')")
    bob.wait(f"{STATUS} === 'Connected.'")

    # What he says is on its way for so long that he says it again: the room knows that it is the same.
    with enter(room.served.address(), "witness") as witness:
        room.wire.slow = True
        bob.type("#text", "late")
        wait_for(lambda: room.wire.late)
        room.wire.slow = False
        room.wire.cut()
        ann.wait(f"{TEXTS}.includes('late')")
        room.wire.deliver()
        bob.type("#text", "end")
        heard: list[str] = []
        while "end" not in heard:
            message = json.loads(witness.recv(LIMIT))
            heard += [message["data"]["text"]] if message["type"] == "event" else []
        assert heard == ["late", "end"]
    for tab in (ann, bob):
        tab.wait(f"{TEXTS}.includes('end')")
    return ann.run(TEXTS), bob.run(TEXTS), wanted


@needs_chromium
@pytest.mark.page("docs/guides/chat.md", "## No lost messages")
def test_nothing_is_lost_or_doubled_when_the_network_breaks(room: Room) -> None:
    ann, bob, wanted = talk(room)
    assert ann == wanted
    assert bob == wanted
    for tab, host in zip(room.tabs, (f"127.0.0.1:{room.served.port}", room.wire.address), strict=True):
        assert tab.run(PENDING) == []
        assert tab.run("document.querySelectorAll('.gap').length") == 0
        assert tab.hosts() == {host}  # and nobody else
        assert tab.complaints() == []


# In the page, and in the client that it uses.
FAULTS = [
    ("chat.html", "pending.get(key)?.remove();", ""),
    ("chat.html", "room.publish(text, { key })", "room.publish(text)"),
    ("client.js", "since: position ?? undefined, ", ""),
    ("client.js", "heard();\n    outbox.start();", "heard();\n    outbox.start();\n    unpublished.clear();"),
]


@needs_chromium
@pytest.mark.parametrize(("name", "old", "new"), FAULTS)
@pytest.mark.page("docs/guides/chat.md", "## No lost messages")
def test_planted_fault(room: Room, name: str, old: str, new: str) -> None:
    file = room.served.example / name
    text = file.read_text(encoding="utf-8")
    assert text.count(old) == 1
    file.write_text(text.replace(old, new), encoding="utf-8")
    ann, bob, wanted = talk(room)
    assert (ann, bob, room.tabs[1].run(PENDING)) != (wanted, wanted, [])


@needs_chromium
@pytest.mark.page("docs/guides/chat.md", "It was away longer than the room remembers")
def test_a_restart_of_the_server_is_told(room: Room) -> None:
    """It ends every connection by 1012, and channels in memory forget what was said."""
    ann, bob = room.enter()
    ann.type("#text", "before")
    bob.wait(f"{TEXTS}.includes('before')")
    room.served.stop()
    for tab in (ann, bob):
        tab.wait("document.body.classList.contains('lost')")
    bob.type("#text", "<b>after</b>")  # it is text, whatever it looks like
    room.served.start()
    for tab in (ann, bob):
        tab.wait(f"{TEXTS}.join() === 'before,<b>after</b>' && {MEMBERS} === 'ann,bob'")
        assert tab.run("document.querySelectorAll('.gap').length") == 1
        assert tab.run(PENDING) == []


@needs_chromium
@pytest.mark.page("docs/guides/chat.md", "| The server refuses a ticket for a name")
def test_the_page_fits_every_screen_and_can_be_read_out_and_tells_a_refusal(room: Room) -> None:
    ann, bob = room.enter()
    bob.type("#text", "a-very-long-word-" * 20)
    ann.wait(f"{TEXTS}.length === 1")
    for scheme in ("light", "dark"):
        for width in (1280, 400, 320):
            ann.resize(width, 700, scheme)
            assert ann.run("document.documentElement.scrollWidth") <= width
            assert ann.run("document.documentElement.scrollHeight") <= 700
    tree = ann.call("Accessibility.getFullAXTree")["nodes"]
    named = {
        (node["role"]["value"], node.get("name", {}).get("value", ""))
        for node in tree
        if not node["ignored"] and "role" in node
    }
    for wanted in (
        ("heading", "Chat room"),
        ("status", ""),
        ("log", "Messages"),
        ("region", "Here now"),
        ("textbox", "Message"),
        ("button", "Send"),
    ):
        assert wanted in named, sorted(named)

    ann.run('for (let count = 0; count < 60; count++) sockets.at(-1).send(\'{"type":"ping"}\')')
    ann.wait("!document.querySelector('#join').hidden")
    assert ann.run(STATUS) == "The room is closed to you: too many messages."
    bob.run("given = () => 'x'.repeat(31); sockets.at(-1).close()")  # no ticket for such a name
    bob.wait("!document.querySelector('#join').hidden")
    assert bob.run(STATUS) == "The room is closed to you: a name has 1 to 30 characters."


@needs_chromium
def test_a_ticket_that_is_refused_is_no_end(room: Room) -> None:
    """The page fetches another one: a server that has restarted has another key."""
    ann, bob = room.enter()
    bob.run("given = (body) => body; wrong = 1; sockets.at(-1).close()")
    bob.wait("document.body.classList.contains('lost')")
    bob.type("#text", "here again")
    ann.wait(f"{TEXTS}.includes('here again')")


def contrasts(html: str) -> dict[tuple[str, str, str], float]:
    """How far each text is from what is behind it (WCAG 2.2, "contrast ratio"), in both schemes."""
    light, dark = (
        dict(re.findall(r"--([\w-]+): (#\w+);", part)) for part in re.findall(r":root \{(.*?)\}", html, re.S)
    )
    pairs = [
        (text, back)
        for text, backs in {
            "text": ("back", "card", "own"),
            "faint": ("back", "card", "own"),
            "warn": ("back", "card"),
            "on-accent": ("accent",),
        }.items()
        for back in backs
    ]

    def luminance(colour: str) -> float:
        digits = colour[1:] if len(colour) == 7 else "".join(digit * 2 for digit in colour[1:])
        parts = [int(digits[place : place + 2], 16) / 255 for place in (0, 2, 4)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    found = {}
    for scheme, colours in (("light", light), ("dark", dark)):
        for text, back in pairs:
            one, other = sorted((luminance(colours[text]), luminance(colours[back])))
            found[scheme, text, back] = (other + 0.05) / (one + 0.05)
    return found


@pytest.mark.page("docs/guides/chat.md", "## The web page")
def test_every_text_can_be_seen() -> None:
    html = HTML.read_text(encoding="utf-8")
    assert {pair: ratio for pair, ratio in contrasts(html).items() if ratio < 4.5} == {}
    planted = contrasts(html.replace("--faint: #566364", "--faint: #b0b8b8"))
    assert planted["light", "faint", "card"] < 4.5


def test_waiting_ends() -> None:
    assert wait_for(lambda: 7) == 7

"""Everything that can end a conversation, and what client and handler then see, on every server.

`ENDINGS` has one entry for each, with the result that is the same everywhere. `SERVERS` has the results that
a server makes different, each with the reason.
"""

from __future__ import annotations

import math
import select
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from fnmatch import fnmatch
from typing import Any, NamedTuple

from .client import BINARY, Client, close_frame, frame
from .running import MOST, Server

SECRET = b"xyzzy-what-no-peer-may-see"
CHUNK = frame(b"x" * 65536, BINARY)
FLOOD = 512  # of them are sent to a handler that does not read
STALL = 1.0  # seconds without progress after which a client counts as held back
PATIENCE = 5.0  # seconds after which a connection by hand counts as left open; `feeds` takes two at least

NOTHING = "\N{EN DASH}"  # the client has left, and sees nothing more


class Outcome(NamedTuple):
    """What was seen at both ends."""

    client: str
    handler: str


class Seen(NamedTuple):
    """The same, with all that the client got, and what was counted."""

    outcome: Outcome
    received: bytes
    figures: dict[str, float]
    observed: str = ""
    """What observers were told, if there was one."""


# What the client does, and what it sees


Act = Callable[[Server, Client, str], str]


def go(server: Server, client: Client, number: str) -> str:
    client.send(frame(b"go"))
    return client.end()


def nothing(server: Server, client: Client, number: str) -> str:
    return client.end()


def released(server: Server, client: Client, number: str) -> str:
    server.release(number)
    return client.end()


def sends(*frames: bytes) -> Act:
    def act(server: Server, client: Client, number: str) -> str:
        client.send(b"".join(frames))
        return client.end()

    return act


def closes(code: int | None = None, reason: str = "") -> Act:
    """The client closes, and sees the server's answer."""

    def act(server: Server, client: Client, number: str) -> str:
        client.send(frame(b"before") + close_frame(code, reason))
        return client.answer()

    return act


def resets(server: Server, client: Client, number: str) -> str:
    client.send(frame(b"before"))
    client.reset()
    return NOTHING


def sends_too_much(server: Server, client: Client, number: str) -> str:
    client.send(frame(bytes(MOST + 1), BINARY) + close_frame(1000))
    return in_no_words(client.end())


def sends_no_text(server: Server, client: Client, number: str) -> str:
    client.send(frame(b"\xff\xfe"))
    return in_no_words(client.end())


def in_no_words(seen: str) -> str:
    """Without a reason, where that is in the server's own words."""
    return " ".join(seen.split()[:2]) if seen.startswith(("close 1007", "close 1009")) else seen


def vanishes(server: Server, client: Client, number: str) -> str:
    """The end of the TCP stream, without a close frame."""
    client.send(frame(b"before"))
    client.socket.shutdown(socket.SHUT_WR)
    return client.end()


def stays_away(server: Server, client: Client, number: str) -> str:
    """Reads nothing until the handler has ended; then all of it."""
    told = server.notes.wait_for(number, "blocked", "never blocked")
    client.figures["MiB sent"] = told["sent"] / 2**20
    server.notes.say(number, told["event"])
    server.notes.put_back(server.notes.wait_for(number, "ended"))
    # Where nothing blocks, it depends on how fast the client reads: daphne waits one second for its answer.
    return client.end() if told["event"] == "blocked" else NOTHING


def floods(server: Server, client: Client, number: str) -> str:
    """Sends to a handler that does not read, until it is held back; then the handler is let go."""
    data = memoryview(CHUNK * FLOOD)
    sent = 0
    client.socket.setblocking(False)
    while sent < len(data) and select.select([], [client.socket], [], STALL)[1]:
        sent += client.socket.send(data[sent : sent + (1 << 18)])
    held = "held back" if sent < len(data) else "never held back"
    server.release(number)
    # The frame that was begun, and no more.
    frames = -(-sent // len(CHUNK))
    client.send(bytes(data[sent : frames * len(CHUNK)]) + close_frame(1000))
    client.end()
    client.figures["MiB taken"] = sent / 2**20
    told = server.notes.wait_for(number, "received")
    server.notes.say(
        number, "nothing lost" if told["data"] == frames else f"{told['data']} of {frames} received"
    )
    return held


def echoed(server: Server, client: Client, number: str) -> str:
    """Messages of every form come back as they were."""
    client.send(
        frame("été".encode())
        + frame(b"\0\xff", BINARY)
        + frame(b"in ", fin=False)
        + frame(b"parts", 0)
        + frame()
        + frame(b"", BINARY)
        + frame(b"last")
    )
    seen = []
    while (found := client.frame()) is not None and found.payload != b"last":
        seen.append(repr(found.payload.decode()) if found.opcode == 1 else f"0x{found.payload.hex()}")
    client.send(close_frame(1000))
    client.end()
    return ", ".join(seen)


def denied(server: Server, client: Client, number: str) -> str:
    """The HTTP response, or what comes instead."""
    status, headers = client.response()
    if status == 101:
        return f"accepted, {client.end()}"
    body = client.body(headers)
    with_header = f" x-a: {headers['x-a']}" if "x-a" in headers else ""
    return f"HTTP {status}{with_header} {body}".rstrip()


def refused(server: Server, client: Client, number: str) -> str:
    """The same without the body, which is the server's own."""
    status, _ = client.response()
    return f"accepted, {client.end()}" if status == 101 else f"HTTP {status}"


def accepted(server: Server, client: Client, number: str) -> str:
    _, headers = client.response()
    agreed = [f"{name}: {headers[name]}" for name in ("sec-websocket-protocol", "x-a") if name in headers]
    return ", ".join([*agreed, client.end()])


# What the handler sees


def ended(server: Server, number: str, limit: float | None = None) -> str:
    """How the handler was left, and what the WebSocket tells of the end."""
    note = server.notes.wait_for(number, "ended", limit=limit)
    if note["by"] == "client" and note["code"] in (1007, 1009):
        note["reason"] = ""  # the server's own words
    told = " ".join(
        str(part) for part in (note["by"], note["code"], note["reason"]) if part not in (None, "")
    )
    return "; ".join([note["left"], told or "no end", *map(noted, server.notes.of(number))])


def noted(note: dict[str, Any]) -> str:
    """What else a handler has told."""
    if note["event"] == "received":
        return f"got {note['data']}"
    return str(note["event"])


class Ending(NamedTuple):
    """One way for a conversation to end."""

    name: str
    title: str
    """For a reader."""
    path: str
    """The handler, as the app's path has it after `block` or `hand`; or the whole path."""
    act: Act
    same: Outcome
    """What client and handler see, with a block, unless the server makes it impossible."""
    by_hand: bool = False
    """Whether the same is looked at without a block, too."""

    def run(self, server: Server, way: str = "block", *, observed: bool = False) -> Seen:
        number = server.number()
        whole = "/" in self.path
        path = self.path if whole else f"{way}/{self.path}"
        with server.connect(f"observed/{path}" if observed else path, number, "superchat, chat") as client:
            if way == "hand":
                client.patience = PATIENCE
            if not whole:
                status, _ = client.response()
                assert status == 101
                server.notes.wait_for(number, "open")
            outcome = Outcome(self.act(server, client, number), ended(server, number))
            told = told_to_observers(server, number) if observed else ""
            return Seen(outcome, bytes(client.received), client.figures, told)


def told_to_observers(server: Server, number: str) -> str:
    """How a connection ended, in an observer's words. One of them was told once that it opened, if it did."""
    number = f"{number} observed"
    note = server.notes.wait_for(number, "ended", "refused")
    opened = [other["event"] for other in server.notes.of(number)]
    assert opened == (["opened"] if note["event"] == "ended" else [])
    told = [note["event"], note["by"], *([] if note["code"] is None else [str(note["code"])])]
    return " ".join([*told, *(["failed"] if note["failed"] else [])])


LEAVING: list[tuple[str, str, Act, str, str]] = [
    (
        "closes-4001",
        "It closes with 4001 and a reason",
        closes(4001, "été"),
        "close 4001 été",
        "client 4001 été",
    ),
    ("closes-1000", "It closes with 1000", closes(1000), "close 1000", "client 1000"),
    ("closes", "It closes without a code", closes(), "close without a code", "client 1005"),
    ("resets", "It resets the connection", resets, NOTHING, "network 1006"),
    ("vanishes", "It disappears without a close frame", vanishes, "no close frame", "network 1006"),
]
HANDLERS = {
    "reads": "; got ['before']",
    "feeds": "",
    "waits": "",
    "sleeps": "",
}


def _leaving() -> Iterator[Ending]:
    """A client that leaves, from every kind of handler."""
    for name, title, act, client, told in LEAVING:
        for path, received in HANDLERS.items():
            same = Outcome(client, f"quietly; {told}{received}")
            yield Ending(f"{name}-{path}", title, path, act, same, path in ("reads", "feeds"))


def _handlers() -> Iterator[Ending]:
    """What the handler does, or is done to it."""
    failed = Outcome("close 1011", "ValueError; server 1011")
    yield Ending("returns", "It returns", "returns", go, Outcome("close 1000", "quietly; server 1000"), True)
    yield Ending("raises", "It raises", "raises", go, failed, True)
    yield Ending("raises-in-group", "A task in its task group raises", "raises-in-group", go, failed, True)
    cancelled = Outcome("close 1011", "CancelledError; server 1011")
    yield Ending("cancelled", "It is cancelled", "cancelled", released, cancelled, True)
    closed = Outcome("close 4000 été", "quietly; server 4000 été")
    yield Ending("app-closes", "It closes with 4000 and a reason", "closes", go, closed, True)


def _limits() -> Iterator[Ending]:
    for name, title, act, end, received in (
        ("too-big", "`max_message_size`", sends(frame(b"x" * 1001)), "1009 message too big", []),
        (
            "too-many",
            "`max_messages_per_second`",
            sends(*(frame(b"x") for _ in range(11))),
            "1008 too many messages",
            ["x"] * 10,
        ),
        ("idle", "`idle_timeout`", nothing, "1001 idle", []),
        ("heartbeat", "`heartbeat`", nothing, "1011 no answer", []),
    ):
        yield Ending(
            name, title, name, act, Outcome(f"close {end}", f"quietly; server {end}; got {received}")
        )


def _frames() -> Iterator[Ending]:
    """What the client sends, or does not read."""
    forms = Outcome("'été', 0x00ff, 'in parts', '', 0x", "quietly; client 1000")
    yield Ending("echoes", "Echo of every kind of message", "echoes", echoed, forms, True)
    not_text = Outcome("close 1007", "quietly; client 1007; got []")
    yield Ending("bad-utf8", "Text that is not UTF-8", "reads", sends_no_text, not_text, True)
    over = Outcome("close 1009", "quietly; client 1009; got []")
    yield Ending("over-server", "A message over the server's size limit", "reads", sends_too_much, over, True)
    held = Outcome("held back", "quietly; client 1000; nothing lost")
    yield Ending("floods", "The client sends, but the handler does not receive", "holds", floods, held, True)
    blocked = Outcome("close 1000", "quietly; server 1000; blocked")
    yield Ending(
        "pours", "The handler sends, but the client does not read", "pours", stays_away, blocked, True
    )


def _handshakes() -> Iterator[Ending]:
    agreed = Outcome("sec-websocket-protocol: chat, x-a: b, close 1000", "quietly; server 1000")
    yield Ending("headers", "`accept` with a subprotocol and headers", "accepting/headers", accepted, agreed)
    response = Outcome("HTTP 401 x-a: b Sign in first.", "quietly; server")
    yield Ending("denies", "`deny(401, …)` with a body and a header", "accepting/deny", denied, response)
    forbidden = Outcome("HTTP 403", "quietly; server 1000")
    yield Ending("refuses", "`close()` before `accept`", "accepting/refuse", refused, forbidden)
    failed = Outcome("HTTP 500", "ValueError; no end")
    yield Ending("raises-before", "An exception before `accept`", "accepting/raise", refused, failed)


GROUPS = {
    "The handler": tuple(_handlers()),
    "The client leaves": tuple(_leaving()),
    "Messages and flow control": tuple(_frames()),
    "Limits of the block": tuple(_limits()),
    "The handshake": tuple(_handshakes()),
}
ENDINGS = {ending.name: ending for group in GROUPS.values() for ending in group}


# A server that is told to stop


class Stop(NamedTuple):
    """A handler that is running when the server is told to stop."""

    title: str
    path: str
    same: Outcome


STOPS = {
    "stop-reads": Stop(
        "The handler receives", "reads", Outcome("close 1012", "quietly; server 1012; got []")
    ),
    "stop-sleeps": Stop(
        "The handler works, with `cancel_on_disconnect`",
        "sleeps",
        Outcome("close 1012", "quietly; server 1012"),
    ),
    "stop-sleeps-on": Stop(
        "The handler works, without `cancel_on_disconnect`",
        "sleeps-on",
        Outcome("close 1012", "CancelledError; server 1012"),
    ),
    "stop-pours": Stop(
        "The handler sends, and the client does not read",
        "pours-on",
        Outcome("no close frame", "quietly; server 1012"),
    ),
}
EACH = 2  # connections of each
GIVE_UP = 10.0  # seconds after which a server counts as one that does not stop


def stop(server: Server, way: str = "block") -> tuple[dict[str, Seen], float]:
    """Tell a server to stop while handlers of every kind are running; what was seen, and how long it took."""
    with ExitStack() as stack:
        clients = {}
        for name, (_, path, _) in STOPS.items():
            if way == "hand" and path == "sleeps":
                continue
            for _ in range(EACH):
                number = server.number()
                client = stack.enter_context(server.connect(f"{way}/{path}", number))
                client.response()
                server.notes.wait_for(number, "open")
                if path == "pours-on":
                    server.notes.wait_for(number, "much")
                clients[number] = (name, client)
        started = time.monotonic()
        server.terminate()
        saw = {number: client.end() for number, (name, client) in clients.items() if name != "stop-pours"}
        try:
            server.process.wait(GIVE_UP)
            took = time.monotonic() - started
        except subprocess.TimeoutExpired:
            took = math.inf
        saw |= {number: client.end() for number, (name, client) in clients.items() if name == "stop-pours"}
        found: dict[str, set[Outcome]] = {}
        received: dict[str, bytes] = {}
        for number, (name, client) in clients.items():
            try:
                told = ended(server, number, limit=0.5)
            except TimeoutError:
                told = "ended with the process"
            found.setdefault(name, set()).add(Outcome(saw[number], told))
            received[name] = received.get(name, b"") + bytes(client.received)
        return {
            name: Seen(
                Outcome(
                    " or ".join(sorted({outcome.client for outcome in outcomes})),
                    " or ".join(sorted({outcome.handler for outcome in outcomes})),
                ),
                received[name],
                {},
            )
            for name, outcomes in found.items()
        }, took


# What a server makes different


class Difference(NamedTuple):
    """Cells of the matrix that are the server's doing: what is seen there instead, and why."""

    server: str
    endings: tuple[str, ...]
    """Their names, with wildcards."""
    why: str
    client: str | None = None
    told: str | None = None
    """What the WebSocket tells of the end."""
    handler: str | None = None
    """All that is seen there, if more is different."""
    sometimes: str | None = None
    """How what is seen there begins at other times: the server ends a race of its own either way."""

    def of(self, same: Outcome) -> Outcome:
        left, _, *rest = same.handler.split("; ")
        handler = same.handler if self.told is None else "; ".join([left, self.told, *rest])
        return Outcome(same.client if self.client is None else self.client, self.handler or handler)


WSPROTO, LEGACY = "uvicorn wsproto", "uvicorn websockets"
_FROM_CLIENT = ("closes-*", "floods", "echoes")
_NO_ACCEPT_HEADERS = (
    "It sends the accepted subprotocol, but no headers. The package warns about this once per process."
)
_UNREAD = (
    "It cannot send a close frame while the client does not read. After `close_timeout`, the block "
    "stops waiting, and the connection ends without a close frame."
)
_KILLED = (
    "It ends the connections and the process at once. It sends no close frame, does not cancel "
    "handlers, and gives them no time to clean up."
)
_NO_CODE_OF_FAILURE = "It ends the connection without a close frame, and reports 1006 to the app."

DIFFERENCES = (
    Difference("uvicorn", ("pours",), _UNREAD, client="no close frame"),
    Difference(WSPROTO, ("pours",), _UNREAD, client="no close frame"),
    Difference(
        WSPROTO, ("bad-utf8",), "It ends the connection without a close frame.", client="no close frame"
    ),
    Difference(
        LEGACY,
        ("bad-utf8", "over-server"),
        "It sends the code to the client, but reports 1006 to the app.",
        told="network 1006",
    ),
    Difference(
        LEGACY,
        ("stop-pours",),
        "It cannot send a close frame while the client does not read, and ends before the handler does.",
        handler="ended with the process",
    ),
    Difference(
        "hypercorn",
        _FROM_CLIENT,
        "It always reports 1006 without a reason to the app, however the client left.",
        told="network 1006",
    ),
    Difference("hypercorn", ("bad-utf8",), _NO_CODE_OF_FAILURE, client="no close frame", told="network 1006"),
    Difference(
        "hypercorn",
        ("over-server",),
        "It sends the code to the client, but reports 1006 to the app.",
        told="network 1006",
    ),
    *(
        Difference(
            "hypercorn",
            (f"stop-{name}",),
            "It does not tell clients or handlers that it stops. After `graceful_timeout`, it cancels "
            "the handlers, and the block closes with 1012.",
            client="close 1012",
            handler=f"CancelledError; server 1012{received}",
        )
        for name, received in (("reads", "; got []"), ("sleeps", ""), ("pours", ""))
    ),
    Difference("granian", ("closes-4001-*",), "It does not pass the reason to the app.", told="client 4001"),
    Difference(
        "granian",
        ("resets-*", "vanishes-*"),
        "It reports 1005 to the app, as for a close frame without a code.",
        told="client 1005",
    ),
    Difference(
        "granian",
        ("bad-utf8",),
        "It closes without a code, and reports 1005 to the app.",
        client="close without a code",
        told="client 1005",
    ),
    Difference(
        "granian",
        ("over-server",),
        "It has no configurable size limit: use `max_message_size`.",
        client="close 1000",
        handler=f"quietly; client 1000; got ['{MOST + 1} bytes']",
    ),
    Difference("granian", ("pours",), _UNREAD, client="no close frame"),
    Difference(
        "granian",
        ("headers",),
        _NO_ACCEPT_HEADERS,
        client="sec-websocket-protocol: chat, close 1000",
        handler="quietly; server 1000; warned by RuntimeWarning",
    ),
    Difference("granian", ("raises-before",), "If the app raises, it answers with 403.", client="HTTP 403"),
    Difference(
        "granian",
        ("stop-*",),
        "It ends the connections and the process at once, without a close frame and without cancelling "
        "handlers. Some handlers see a disconnect with code 1005. Most have no time to clean up.",
        client="no close frame",
        handler="ended with the process",
        sometimes="quietly; client 1005",
    ),
    Difference("daphne", ("app-closes",), "It does not send the reason.", client="close 4000"),
    Difference(
        "daphne",
        ("closes-4001-*",),
        "It answers every close with 1000, and does not pass the reason to the app.",
        client="close 1000",
        told="client 4001",
    ),
    *(
        Difference("daphne", (f"closes-{name}",), "It answers every close with 1000.", client="close 1000")
        for name in HANDLERS
    ),
    Difference(
        "daphne",
        ("cancelled", "too-big", "too-many", "idle", "heartbeat"),
        "It sends only the codes 1000 and 3000-4999, and 1011 if an exception reaches it. For any other "
        "code, the block closes with 1000.",
        client="close 1000",
    ),
    Difference("daphne", ("bad-utf8",), _NO_CODE_OF_FAILURE, client="no close frame", told="network 1006"),
    Difference("daphne", ("over-server",), _NO_CODE_OF_FAILURE, client="no close frame", told="network 1006"),
    Difference(
        "daphne",
        ("floods",),
        "It has no flow control, and keeps everything that arrives in memory.",
        client="never held back",
    ),
    Difference(
        "daphne",
        ("pours",),
        "It has no flow control: it keeps everything that you send in memory, and a send never waits. "
        "One second after a close that the client does not answer, it drops the connection and all "
        "unread messages.",
        client=NOTHING,
        handler="quietly; server 1000; never blocked",
    ),
    Difference(
        "daphne", ("echoes",), "It drops empty messages from the app.", client="'été', 0x00ff, 'in parts'"
    ),
    Difference(
        "daphne",
        ("headers",),
        _NO_ACCEPT_HEADERS,
        client="sec-websocket-protocol: chat, close 1000",
        handler="quietly; server 1000; warned by RuntimeWarning",
    ),
    Difference(
        "daphne",
        ("denies",),
        "It does not support denial responses: `deny()` closes the connection, and the client gets 403.",
        client="HTTP 403",
        handler="quietly; server 1000",
    ),
    Difference("daphne", ("stop-*",), _KILLED, client="no close frame", handler="ended with the process"),
)


def difference(server: str, ending: str) -> Difference | None:
    """What the server makes different of an ending, if it does."""
    for found in DIFFERENCES:
        if found.server == server and any(fnmatch(ending, pattern) for pattern in found.endings):
            return found
    return None


def is_expected(server: str, ending: str, outcome: Outcome) -> bool:
    """Whether it is what is expected, or what happens sometimes, to some of several handlers perhaps."""
    wanted, found = expected(server, ending), difference(server, ending)
    if found is None or found.sometimes is None:
        return outcome == wanted
    return outcome.client == wanted.client and all(
        handler == wanted.handler or handler.startswith(found.sometimes)
        for handler in outcome.handler.split(" or ")
    )


def expected(server: str, ending: str) -> Outcome:
    same = STOPS[ending].same if ending in STOPS else ENDINGS[ending].same
    found = difference(server, ending)
    return same if found is None else found.of(same)

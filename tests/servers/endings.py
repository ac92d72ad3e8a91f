"""Everything that can end a conversation, and what client and handler then see, on every server.

`ENDINGS` has one entry for each, with the result that is the same everywhere. `SERVERS` has the results that
a server makes different, each with the reason.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from .client import BINARY, CLOSE, Client, close_frame, described, frame
from .running import MOST, Server

SECRET = b"xyzzy-what-no-peer-may-see"
CHUNK = frame(b"x" * 65536, BINARY)
FLOOD = 512  # of them are sent to a handler that does not read
STALL = 1.0  # seconds without progress after which a client counts as held back
PATIENCE = 3.0  # seconds after which a connection by hand counts as left open

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
        try:
            while (found := client.frame()) is not None and found.opcode != CLOSE:
                pass
        except TimeoutError:
            return "no answer"
        return described(found.payload) if found is not None else "no close frame"

    return act


def resets(server: Server, client: Client, number: str) -> str:
    client.send(frame(b"before"))
    client.reset()
    return NOTHING


def sends_too_much(server: Server, client: Client, number: str) -> str:
    client.send(frame(bytes(MOST + 1), BINARY) + close_frame(1000))
    return client.end()


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
    return client.end()


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
    server.notes.say(number, "nothing lost" if told["data"] == frames else f"{told['data']} of {frames} received")
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


# What the handler sees


def ended(server: Server, number: str) -> str:
    """How the handler was left, and what the WebSocket tells of the end."""
    note = server.notes.wait_for(number, "ended")
    told = " ".join(str(part) for part in (note["by"], note["code"], note["reason"]) if part not in (None, ""))
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
    """The handler, as the app's path has it after `block` or `hand`."""
    act: Act
    same: Outcome
    """What client and handler see, with a block, unless the server makes it impossible."""
    by_hand: bool = False
    """Whether the same is looked at without a block, too."""

    def run(self, server: Server, way: str = "block") -> Seen:
        number = server.number()
        with server.connect(f"{way}/{self.path}", number) as client:
            if way == "hand":
                client.patience = PATIENCE
            status, _ = client.response()
            assert status == 101
            server.notes.wait_for(number, "open")
            seen = self.act(server, client, number)
            handler = ended(server, number)
            return Seen(Outcome(seen, handler), bytes(client.received), client.figures)


def _leaving() -> Iterator[Ending]:
    """A client that leaves, from every kind of handler."""
    ways: list[tuple[str, str, Act, str, str]] = [
        ("closes-4001", "The client closes with 4001 and a reason", closes(4001, "été"), "close 4001 été", "client 4001 été"),
        ("closes-1000", "The client closes with 1000", closes(1000), "close 1000", "client 1000"),
        ("closes", "The client closes without a code", closes(), "close without a code", "client 1005"),
        ("resets", "The client resets the connection", resets, NOTHING, "network 1006"),
        ("vanishes", "The client vanishes: TCP ends, no close frame", vanishes, "no close frame", "network 1006"),
    ]
    for name, title, act, client, handler in ways:
        for path, does, received in (
            ("reads", "and the handler receives", "; got ['before']"),
            ("feeds", "and the handler only sends", ""),
            ("waits", "and the handler waits for the end", ""),
            ("sleeps", "and the handler is cancelled by it", ""),
        ):
            yield Ending(
                f"{name}-{path}",
                f"{title}, {does}",
                path,
                act,
                Outcome(client, f"quietly; {handler}{received}"),
                by_hand=path in ("reads", "feeds"),
            )


ENDINGS = {
    ending.name: ending
    for ending in (
        Ending("returns", "The handler returns", "returns", go, Outcome("close 1000", "quietly; server 1000"), True),
        Ending("raises", "The handler raises", "raises", go, Outcome("close 1011", "ValueError; server 1011"), True),
        Ending("raises-in-group", "A task of the handler raises", "raises-in-group", go, Outcome("close 1011", "ValueError; server 1011"), True),
        Ending("cancelled", "The handler is cancelled", "cancelled", released, Outcome("close 1012", "CancelledError; server 1012"), True),
        Ending("app-closes", "The handler closes with 4000 and a reason", "closes", go, Outcome("close 4000 été", "quietly; server 4000 été"), True),
        *_leaving(),
        Ending("bad-utf8", "The client sends text that is not UTF-8", "reads", sends(frame(b"\xff\xfe")), Outcome("close 1007", "quietly; client 1007; got []"), True),
        Ending("over-server", "A message above the server's limit", "reads", sends_too_much, Outcome("close 1009", "quietly; client 1009; got []"), True),
        Ending("too-big", "A message above `max_message_size`", "too-big", sends(frame(b"before"), frame(b"x" * 1001)), Outcome("close 1009 message too big", "quietly; server 1009 message too big; got ['before']")),
        Ending("too-many", "More than `max_messages_per_second`", "too-many", sends(*(frame(b"x") for _ in range(11))), Outcome("close 1008 too many messages", f"quietly; server 1008 too many messages; got {['x'] * 10}")),
        Ending("idle", "Nothing for `idle_timeout`", "idle", nothing, Outcome("close 1001 idle", "quietly; server 1001 idle; got []")),
        Ending("heartbeat", "No answer to a heartbeat", "heartbeat", nothing, Outcome("close 1011 no answer", "quietly; server 1011 no answer; got []")),
        Ending("floods", "The client floods, and the handler does not receive", "holds", floods, Outcome("held back", "quietly; client 1000; nothing lost"), True),
        Ending("pours", "The handler floods, and the client does not read", "pours", stays_away, Outcome("no close frame", "quietly; server 1000; blocked"), True),
        Ending("echoes", "Messages of every form", "echoes", echoed, Outcome("'été', 0x00ff, 'in parts', '', 0x", "quietly; client 1000"), True),
    )
}

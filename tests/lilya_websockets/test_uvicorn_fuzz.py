"""`lilya.websockets.uvicorn:WebSocketProtocol` under octets that nobody meant to send.

Whatever comes: nothing is logged as a warning or worse, nothing hangs, every app gets its disconnect, and
descriptors and memory go back to where they were. The seeds are fixed, so that a failure can be seen again.
With `CONFORMANCE=exhaustive`, which `nox -s conformance` sets, there are ten times as many.
"""

from __future__ import annotations

import asyncio
import gc
import json
import linecache
import logging
import os
import random
import subprocess
import sys
import time
import tracemalloc
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from uvicorn.importer import import_from_string
from uvicorn.server import ServerState

from lilya.websockets.uvicorn._handshake import negotiated

from . import frames as wire
from .frames import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    TEXT,
    Client,
    Deflater,
    Frame,
    close,
    closing,
    fragments,
    frame,
    request,
)
from .serving import EXHAUSTIVE, PROTOCOL, TIMES, Event, Serving, loops

DEFLATE: dict[str, str | None] = {"Sec-WebSocket-Extensions": "permessage-deflate; client_max_window_bits"}


@pytest.fixture(scope="module", params=loops(["asyncio", "uvloop"]) if EXHAUSTIVE else ["asyncio"])
def server(request: pytest.FixtureRequest) -> Iterator[Serving]:
    """A server with a small limit, so that announced lengths of every kind are met."""
    with Serving(loop=request.param, ws_max_size=1 << 16) as serving:
        yield serving


# ---------------------------------------------------------------------------------------------- what is sent


def key(dice: random.Random) -> bytes:
    return dice.randbytes(4)


def payload(dice: random.Random) -> bytes:
    size = dice.choice((0, 1, 2, 7, 20, 125, 126, 127, 300, 3000))
    return dice.choice((bytes(size), dice.randbytes(size), ("é" * (size // 2)).encode(), b"a" * size))


def stream(
    dice: random.Random, deflater: Deflater | None = None
) -> tuple[list[bytes], list[Event], list[bytes]]:
    """Frames without a fault; the messages that the app must see, and the payloads of the pongs."""
    sent: list[bytes] = []
    messages: list[Event] = []
    pings: list[bytes] = []

    def control() -> None:
        while dice.random() < 0.3:
            data = dice.randbytes(dice.choice((0, 4, 125)))
            opcode = dice.choice((PING, PONG))
            sent.append(frame(opcode, data, key=key(dice)))
            if opcode == PING:
                pings.append(data)

    for _ in range(dice.randrange(8)):
        control()
        opcode = dice.choice((TEXT, BINARY))
        data = payload(dice)
        if opcode == TEXT:
            data = data.decode("utf-8", "replace").encode()
        messages.append(("text", data.decode()) if opcode == TEXT else ("bytes", data))
        rsv = 0
        if deflater is not None and dice.random() < 0.7:
            data, rsv = deflater.compress(data), 4
        pieces = fragments(opcode, data, dice.choice((1, 5, 100, 5000)) if len(data) < 400 else 5000, rsv=rsv)
        for at, piece in enumerate(pieces):
            if at:
                control()
            sent.append(piece)
    control()
    return sent, messages, pings


def mutated(dice: random.Random, octets: bytes) -> bytes:
    """With one to three faults: a bit, an octet, a piece that is gone, comes twice or is something else."""
    data = bytearray(octets)
    for _ in range(dice.randrange(1, 4)):
        at = dice.randrange(len(data) + 1)
        length = dice.choice((1, 1, 2, 4, 50))
        match dice.randrange(6):
            case 0 if data:
                data[at % len(data)] ^= 1 << dice.randrange(8)
            case 1 if data:
                data[at % len(data)] = dice.randrange(256)
            case 2:
                del data[at : at + length]
            case 3:
                data[at:at] = data[at : at + length]
            case 4:
                data[at:at] = dice.randbytes(length)
            case _:
                data[at : at + length] = dice.randbytes(length)
    return bytes(data)


def split(dice: random.Random, octets: bytes) -> list[bytes]:
    """In up to eight pieces, at any places."""
    cuts = sorted(dice.randrange(len(octets) + 1) for _ in range(dice.randrange(8)))
    bounds = [0, *cuts, len(octets)]
    return [octets[start:end] for start, end in pairwise(bounds) if start != end]


def leave(dice: random.Random, client: Client) -> None:
    """End the connection from the client's side, in one of the ways of which the server must take notice."""
    way = dice.randrange(4)
    if way == 0:
        client.leave(reset=True)
    elif way == 1:
        client.leave()
    else:
        if way == 2:
            client.send(close(1000))
        try:
            client.socket.shutdown(1)
        except OSError:
            pass  # the server was faster
        client.drain()


def ended_well(events: list[Event]) -> str:
    """What is wrong with the end that the app saw, or nothing."""
    if [event[0] for event in events].count("disconnect") != 1 or events[-1][0] != "disconnect":
        return f"the app saw {events[-3:]}"
    code = events[-1][1]
    if not (1000 <= code <= 1003 or 1005 <= code <= 1014 or 3000 <= code <= 4999):
        return f"the code is {code}"
    return ""


# ----------------------------------------------------------------------------------------- over real sockets


def attack(server: Serving, seed: int) -> None:
    """One connection with a random stream, that is right or not."""
    dice = random.Random(seed)
    deflated = dice.random() < 0.5
    client, seen = server.connect(dice.choice(("/echo", "/sink")), DEFLATE if deflated else None)
    with client:
        kind = dice.randrange(3)
        if kind == 0:
            octets = dice.randbytes(dice.choice((1, 2, 6, 10, 100, 5000)))
        else:
            octets = b"".join(stream(dice, Deflater(9) if deflated else None)[0])
            if kind == 1:
                octets = mutated(dice, octets)
        client.send(*split(dice, octets))
        leave(dice, client)
    wrong = ended_well(seen.wait())
    assert not wrong, f"seed {seed}: {wrong}"


def test_random_connections(server: Serving) -> None:
    for seed in range(400 * TIMES):
        attack(server, seed)
    server.settled()


def test_right_streams_in_random_pieces(server: Serving) -> None:
    """The app sees every message, and the client every echo and every pong."""
    for seed in range(100 * TIMES):
        dice = random.Random(seed)
        deflated = dice.random() < 0.5
        sent, messages, pings = stream(dice, Deflater(9) if deflated else None)
        client, seen = server.connect("/echo", DEFLATE if deflated else None)
        down = Deflater()
        with client:
            client.send(*split(dice, b"".join(sent)))
            received: list[Frame] = []
            while sum(each.fin for each in received) < len(messages) + len(pings):
                received.append(client.frame())
            client.send(close(3000))
            assert client.rest() == ([Frame(CLOSE, closing(3000))], "eof")
        whole = [
            each._replace(data=down.decompress(each.data)) if each.rsv else each
            for each in wire.merged(received)
        ]
        echoes = [
            ("text", each.data.decode()) if each.opcode == TEXT else ("bytes", each.data)
            for each in whole
            if each.opcode != PONG
        ]
        assert echoes == messages, f"seed {seed}"
        assert [each.data for each in whole if each.opcode == PONG] == pings, f"seed {seed}"
        assert seen.wait() == [*messages, ("disconnect", 3000, "")], f"seed {seed}"
    server.settled()


HTTP_WARNINGS = ("Invalid HTTP request received.", "Unsupported upgrade request.")


def test_random_handshakes(server: Serving) -> None:
    """A request with faults is answered, or its connection is ended; what is left of it is nothing."""
    for seed in range(150 * TIMES):
        dice = random.Random(seed)
        path, seen = server.place("/sink")
        octets = mutated(dice, request(path, DEFLATE if dice.random() < 0.5 else None))
        with server.client() as client:
            client.send(*split(dice, octets))
            leave(dice, client)
        if seen.connected:
            assert not ended_well(seen.wait()), f"seed {seed}"
    wire.eventually(lambda: server.idle, "every connection has ended")
    # uvicorn's HTTP side warns of requests that it cannot read. That is no concern of ours; an exception is.
    lines, server.complaints.lines = server.complaints.lines, []
    assert not [line for line in lines if line not in HTTP_WARNINGS]
    server.seen.clear()


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


needs_proc = pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="the system has no /proc")


@needs_proc
def test_descriptors_go_back(server: Serving) -> None:
    attack(server, 0)
    server.settled()
    before = descriptors()
    clients = [server.connect("/sink")[0] for _ in range(50)]
    # Both ends are in this process.
    assert descriptors() >= before + 2 * len(clients)
    dice = random.Random(1)
    for client in clients:
        client.send(mutated(dice, b"".join(stream(dice)[0])))
        leave(dice, client)
        client.socket.close()
    for seed in range(50):
        attack(server, seed)
    server.settled()
    wire.eventually(lambda: descriptors() <= before, "the descriptors are closed")


# The client's side is in this process, too: one context of its zlib has 140 KB, and stays as long as some
# traceback does. What is allocated by the tests' own lines, or to print tracebacks, is left out.
NOT_THE_SERVERS = [
    tracemalloc.Filter(False, pattern)
    for pattern in (str(Path(__file__).parent / "*"), tracemalloc.__file__, linecache.__file__)
]


def held() -> Counter[str]:
    """The bytes that the server's side holds, by the file that has allocated them."""
    # What it remembers of offers of extensions has its own bound, which each new offer comes closer to.
    negotiated.cache_clear()
    gc.collect()
    traces = tracemalloc.take_snapshot().filter_traces(NOT_THE_SERVERS)
    return Counter({trace.traceback[0].filename: trace.size for trace in traces.statistics("filename")})


def grown(server: Serving, rounds: int, *, limit: float = wire.LIMIT) -> str:
    """Who holds how much more after so many connections, once as many have warmed the server up."""

    def run() -> None:
        for seed in range(rounds):
            attack(server, seed)
        server.settled()

    # pytest keeps what is logged until a test is over, and some test may have turned the access log on.
    logging.disable(logging.INFO)
    tracemalloc.start()
    try:
        run()
        before = held()
        run()
        # What the server's thread still has in hand goes back in a moment; what is kept never does.
        end = time.monotonic() + limit
        while sum((after := held()).values()) - sum(before.values()) >= SLACK:
            if time.monotonic() >= end:
                return ", ".join(f"{size} of {file}" for file, size in (after - before).most_common(5))
            time.sleep(0.05)
    finally:
        tracemalloc.stop()
        logging.disable(logging.NOTSET)
    return ""


# Far less than 100 connections would keep, whose smallest part, the object itself, has half a kilobyte.
SLACK = 30_000


def test_memory_goes_back(server: Serving) -> None:
    assert grown(server, 300 if EXHAUSTIVE else 100) == ""


def test_memory_that_does_not_go_back_is_seen() -> None:
    kept: list[Any] = []

    class Keeps(import_from_string(PROTOCOL)):  # type: ignore[misc]
        def connection_lost(self, exc: Exception | None) -> None:
            kept.append(self)
            super().connection_lost(exc)

    with Serving(Keeps, ws_max_size=1 << 16) as serving:
        assert grown(serving, 100, limit=1)
    assert len(kept) == 200


def test_memory_of_the_client_is_not_taken_for_the_servers() -> None:
    tracemalloc.start()
    try:
        before = held()
        deflater = Deflater(9)
        assert tracemalloc.get_traced_memory()[0] > 100_000
        assert sum(held().values()) - sum(before.values()) < SLACK
        del deflater
    finally:
        tracemalloc.stop()


def test_an_app_that_is_never_told_is_seen(server: Serving) -> None:
    assert ended_well([("text", "a")])
    assert ended_well([("disconnect", 1000, ""), ("disconnect", 1000, "")])
    assert ended_well([("disconnect", 1000, ""), ("text", "a")])
    assert ended_well([("disconnect", 0, "")])
    assert not ended_well([("text", "a"), ("disconnect", 1006, "")])


# --------------------------------------------------------------------------- without sockets, octet by octet


class Wire(asyncio.Transport):
    """A transport that keeps what is written, and obeys the protocol in what it reads."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.paused = self.closing = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 2)}.get(name, default)

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        self.written += data

    def get_protocol(self) -> asyncio.BaseProtocol:
        return asyncio.Protocol()  # an HTTP protocol of nobody

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        pass

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.closing = True

    abort = close

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        pass

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def is_reading(self) -> bool:
        return not self.paused


async def driven(pieces: list[bytes], headers: dict[str, str | None] | None) -> tuple[list[Event], bytes]:
    """What the app sees and the client is sent, when these pieces are read one by one, and then the end."""
    events: list[Event] = []

    async def app(scope: Any, receive: Callable[[], Any], send: Callable[[Any], Any]) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        while True:
            message = await receive()
            if message["type"] == "websocket.disconnect":
                events.append(("disconnect", message["code"]))
                return
            text = message.get("text")
            events.append(("bytes", message["bytes"]) if text is None else ("text", text))

    config = uvicorn.Config(
        app, ws=PROTOCOL, lifespan="off", log_config=None, ws_max_size=1 << 16, ws_ping_interval=None
    )
    config.load()
    state = ServerState()
    made: Any = config.ws_protocol_class
    protocol = made(config=config, server_state=state, app_state={})
    transport = Wire()
    protocol.connection_made(transport)
    protocol.data_received(request("/", headers))
    (task,) = state.tasks
    while not transport.written:  # noqa: ASYNC110 - the app takes a few turns of the loop
        await asyncio.sleep(0)
    head, _, rest = transport.written.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 ")
    transport.written = rest
    for piece in pieces:
        while transport.paused and not transport.closing:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0)
        if transport.closing:
            break
        protocol.data_received(piece)
    for _ in range(20):
        await asyncio.sleep(0)
    protocol.connection_lost(None)
    await asyncio.wait_for(task, wire.LIMIT)
    assert not state.connections
    return events, transport.written


def test_pieces_make_no_difference() -> None:
    """A stream, right or with faults, at once, in octets, and in random pieces: the same on both sides."""

    async def compare() -> None:
        for seed in range(150 * TIMES):
            dice = random.Random(seed)
            deflated = dice.random() < 0.5
            headers = DEFLATE if deflated else None
            octets = b"".join(stream(dice, Deflater(9) if deflated else None)[0])
            if dice.random() < 0.7:
                octets = mutated(dice, octets)
            octets = octets[:4000] + dice.choice((b"", close(1000)))
            at_once = await driven([octets], headers)
            assert not ended_well([(*event, "") for event in at_once[0]]), f"seed {seed}"
            for pieces in ([octets[at : at + 1] for at in range(len(octets))], split(dice, octets)):
                assert await driven(pieces, headers) == at_once, f"seed {seed}"

    asyncio.run(compare())


# ------------------------------------------------------------------------------------------ the inflate bomb

BOMB = """
import json, sys, tracemalloc
from tests.lilya_websockets import frames as wire
from tests.lilya_websockets.serving import Serving

def peak():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))

path, protocol, pieces = sys.argv[1:]
octets = open(path, "rb").read()
bomb = wire.fragments(wire.BINARY, octets, -(-len(octets) // int(pieces)), rsv=4)
offer = {"Sec-WebSocket-Extensions": "permessage-deflate; client_max_window_bits"}

def attack(frames):
    client, seen = serving.connect("/sink", offer)
    with client:
        client.send(*frames)
        try:
            received = client.rest()[0]
        except wire.BadFrame as bad:
            received = []
    return received[-1].data[:2].hex() if received else "", seen.wait()[-1][1]

with Serving(protocol) as serving:
    attack([wire.text("warm"), wire.close()])
    attack([wire.text(wire.Deflater().compress(b"warm"), rsv=4), wire.close()])
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    with open("/proc/self/clear_refs", "w") as refs:
        refs.write("5")  # the peak begins anew
    resident = peak()
    code, told = attack(bomb)
    python, system = tracemalloc.get_traced_memory()[1] - before, peak() - resident
print(json.dumps({"code": code, "told": told, "python": python, "system": system}))
"""


def bomb(path: Path) -> bytes:
    """64 MB of zeros, in the fewest octets that zlib makes of them."""
    squeeze = zlib.compressobj(9, zlib.DEFLATED, -12)
    out = b"".join(squeeze.compress(bytes(1 << 20)) for _ in range(64)) + squeeze.flush(zlib.Z_SYNC_FLUSH)
    path.write_bytes(out[:-4])
    return out


def exploded(path: Path, protocol: str, pieces: int) -> dict[str, Any]:
    """What the bomb costs a server in a process of its own."""
    root = Path(__file__).parents[2]
    run = subprocess.run(
        [sys.executable, "-c", BOMB, str(path), protocol, str(pieces)],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    result: dict[str, Any] = json.loads(run.stdout)
    return result


@needs_proc
@pytest.mark.parametrize("pieces", [1, 2])
def test_an_inflate_bomb_costs_less_than_4_mb(pieces: int, tmp_path: Path) -> None:
    """A frame of 65 KB inflates to 64 MB, or a fragment of half of it to 32, where 16 MiB are allowed."""
    assert len(bomb(tmp_path / "bomb")) < 66_500
    cost = exploded(tmp_path / "bomb", PROTOCOL, pieces)
    assert cost["code"] == "03f1"  # 1009
    assert cost["told"] == 1009
    assert cost["python"] < 4_000_000
    assert cost["system"] < 4_000_000


@needs_proc
def test_an_inflate_bomb_that_costs_more_is_seen(tmp_path: Path) -> None:
    """wsproto inflates before it looks at the limit."""
    bomb(tmp_path / "bomb")
    cost = exploded(tmp_path / "bomb", "uvicorn.protocols.websockets.wsproto_impl:WSProtocol", 1)
    assert cost["python"] > 4_000_000
    assert cost["system"] > 4_000_000

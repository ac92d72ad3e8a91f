"""The benchmark of floods: what is sent, what is measured, and that there was a flood."""

from __future__ import annotations

import os
import select
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Frame
from websockets.protocol import Protocol, Side

if sys.platform != "linux":
    pytest.skip("the benchmarks read /proc and use epoll", allow_module_level=True)

from benchmarks import _report, fairness
from benchmarks._client import reply
from benchmarks._peers import DEFAULT, OURS, Peer, Server, running, uvicorn
from benchmarks.fairness import FLOODS, FRAME, IDLE, KINDS, PEERS, Fairness, Flood, Flooder, Run, longest_wait

CORES = (min(os.sched_getaffinity(0)), max(os.sched_getaffinity(0)))
LIMIT = 20.0
ACCEPTED = b"HTTP/1.1 101 Switching Protocols\r\n\r\n"
UVICORN = f"{DEFAULT}, uvloop"


@pytest.mark.parametrize("kind", FLOODS)
def test_a_flood_is_well_formed_and_brings_no_message(kind: str) -> None:
    flood = FLOODS[kind]
    assert len(flood.rest) == FRAME
    protocol = Protocol(Side.SERVER)
    if flood.deflate:
        protocol.extensions = [PerMessageDeflate(False, False, 15, 15)]
    protocol.receive_data(flood.first + flood.rest * 100)
    assert protocol.parser_exc is None
    frames = [event for event in protocol.events_received() if isinstance(event, Frame)]
    assert len(frames) == 100 + bool(flood.first)
    assert not any(frame.data for frame in frames)
    messages = {frame.opcode.name for frame in frames if frame.fin}
    assert messages == ({kind.removesuffix("s").upper()} if kind in ("pings", "pongs") else set())


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    failed: dict[str, str] = {}
    with running([PEERS[UVICORN]], CORES[1], failed) as servers:
        assert failed == {}
        yield servers[UVICORN]


@pytest.mark.parametrize("kind", KINDS)
def test_a_run(kind: str, server: Server) -> None:
    run = longest_wait(server, kind, 0.2)
    assert run.wait > 0
    assert (run.frames > 0, run.opened > 0) == (kind != IDLE, kind != IDLE)


@pytest.fixture
def answering() -> Iterator[list[bytes]]:
    """A server of one connection at a time, in a thread: what it sends after the first frame of each.

    The first entry is its port, put there by the fixture.
    """
    script: list[bytes] = []
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(LIMIT)
    over = threading.Event()

    def serve() -> None:
        while not over.is_set():
            connection = listener.accept()[0]
            with connection:
                connection.settimeout(LIMIT)
                if not connection.recv(65536):
                    continue
                connection.sendall(ACCEPTED)
                try:
                    if connection.recv(65536):
                        connection.sendall(script[0])
                        while connection.recv(1 << 20):
                            pass
                except OSError:
                    pass  # the client has reset it

    thread = threading.Thread(target=serve)
    thread.start()
    script.append(b"")
    address: tuple[str, int] = listener.getsockname()
    script.append(str(address[1]).encode())
    yield script
    over.set()
    socket.create_connection(address).close()
    thread.join(LIMIT)
    assert not thread.is_alive()
    listener.close()


def test_a_client_that_floods_comes_back_when_the_server_ends_its_connection(answering: list[bytes]) -> None:
    answering[0] = b"\x88\x02\x03\xf0"
    flooder = Flooder(int(answering[1]), FLOODS["fragments"])
    deadline = time.monotonic() + LIMIT
    flooder.run(lambda: flooder.opened == 3 or time.monotonic() > deadline)
    assert flooder.opened == 3


def test_a_client_that_floods_stays_while_pongs_come(answering: list[bytes]) -> None:
    answering[0] = b"\x8a\x00" * 1000
    flooder = Flooder(int(answering[1]), FLOODS["pings"])
    deadline = time.monotonic() + LIMIT
    flooder.run(lambda: flooder.sent > 1 << 22 or time.monotonic() > deadline)
    assert flooder.opened == 1


def test_a_frame_that_was_sent_in_part_is_continued() -> None:
    flooder = object.__new__(Flooder)
    taken = bytearray()

    class Narrow:
        def send(self, data: memoryview) -> int:
            taken.extend(data[:1000])
            return min(1000, len(data))

    class Always:
        def poll(self, timeout: int) -> list[tuple[int, int]]:
            return [(0, select.POLLOUT)]

    flood = Flood(b"", bytes(range(FRAME)))
    flooder._piece, flooder._at, flooder.sent = memoryview(flood.rest * 500), 0, 0
    flooder._connection, flooder._poll = Narrow(), Always()  # type: ignore[assignment]
    for _ in range(10):
        assert flooder._step()
    assert flooder.sent == 10_000 == len(taken)
    assert bytes(taken) == (flood.rest * 2000)[:10_000]


def test_a_wait_is_seen() -> None:
    """Planted: a server that answers the second message after a third of a second."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with listener:
            connection = listener.accept()[0]
        with connection:
            connection.settimeout(LIMIT)
            connection.recv(65536)
            connection.sendall(ACCEPTED)
            number = 0
            try:
                while connection.recv(65536):
                    number += 1
                    if number == 3:
                        time.sleep(0.34)
                    connection.sendall(reply(fairness.SMALL))
            except OSError:
                pass

    thread = threading.Thread(target=serve)
    thread.start()
    server = object.__new__(Server)
    server.port, server.pid, server.core = listener.getsockname()[1], os.getpid(), CORES[1]
    assert longest_wait(server, IDLE, 0.5).wait >= 340
    thread.join(LIMIT)
    assert not thread.is_alive()


def test_a_flood_that_cannot_begin_is_no_figure() -> None:
    peer = uvicorn("plain", "websockets-sansio")
    plain = peer._replace(command=(*peer.command[:-1], "--ws-per-message-deflate", "false", "--port"))
    failed: dict[str, str] = {}
    with running([plain], CORES[1], failed) as servers:
        assert failed == {}
        with pytest.raises(RuntimeError, match=r"(?s)there was no flood: .*permessage-deflate was offered"):
            longest_wait(servers["plain"], "compressed fragments", 0.1)


def of(*waits: float) -> list[Run]:
    return [Run(wait, 4000, 1, False) for wait in waits]


def found(**waits: list[Run]) -> Fairness:
    """Figures of our protocol on uvloop, by kind."""
    whole = Fairness(tuple(waits), {f"{OURS}, uvloop": 5, UVICORN: 5}, 4.0, CORES)
    whole.missing.clear()
    for kind, runs in waits.items():
        whole.found[kind][f"{OURS}, uvloop"] = runs
        whole.found[kind][UVICORN] = of(900.0)
    return whole


def test_the_median_of_the_longest_waits_counts() -> None:
    whole = found(idle=of(1.0), pings=of(60.0, 50.0, 10.0, 20.0, 55.0))
    row = whole.results()["cases"]["pings"]["rows"][f"{OURS}, uvloop"]
    assert row == {"value": 50.0, "least": 10.0, "most": 60.0, "frames": 1000, "opened": 1}
    assert whole.goals() == [
        f"pings: {OURS}, uvloop: 50.0 ms at 1,000 frames a second, at most 50 ms: reached"
    ]
    assert found(pings=of(60.0, 50.1, 10.0)).goals()[0].endswith("NOT reached")


def test_the_table() -> None:
    whole = found(idle=of(1.0), pings=of(60.0, 50.0, 10.0))
    whole.missing[UVICORN] = "failed: it left"
    assert _report.fairness(whole.results()).splitlines() == [
        "| | idle | pings |",
        "| --- | ---: | ---: |",
        f"| **`{OURS}`**, uvloop | 1 (1 to 1) | 50.0 (10.0 to 60.0) |",
        f"| uvicorn, uvloop | {_report.NOTHING} | {_report.NOTHING} |",
    ]


def test_a_whole(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("the server and its clients need a core each")
    broken = Peer(f"{OURS}, broken", (sys.executable, "-c", "raise SystemExit('out of order')"), ())
    monkeypatch.setattr(fairness, "PEERS", {UVICORN: PEERS[UVICORN], broken.name: broken})
    file = tmp_path / "figures.json"
    arguments = ["idle", "pongs", "--runs", "2", "--others", "1", "--seconds", "0.1", "--json", str(file)]
    monkeypatch.setattr(sys, "argv", ["fairness", *arguments])
    fairness.main()
    said = capsys.readouterr()
    assert said.out.splitlines()[0] == "| | idle | pongs |"
    assert "run 1, uvicorn, uvloop: pongs" in said.err
    assert '"missing": "failed: idle: it did not start out of order' in file.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nothing"], "no such kind: nothing"),
        (["--runs", "0"], "--runs must be at least 1, got 0"),
        (["--seconds", "0"], "--seconds must be more than 0, got 0"),
        (["--write", "pings"], "--write takes the whole"),
        (["--write", "--others", "0"], "--write takes the whole"),
    ],
)
def test_wrong_arguments(
    arguments: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["fairness", *arguments])
    with pytest.raises(SystemExit) as caught:
        fairness.main()
    assert caught.value.code == 2
    assert said in capsys.readouterr().err

"""The benchmark of channels at scale: small runs of each case, and that it finds what it is there for."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from importlib.util import find_spec
from typing import Any

import pytest

if sys.platform != "linux":
    pytest.skip("the benchmarks read /proc", allow_module_level=True)

from benchmarks import _channels_report, scale
from tests.lilya_websockets.redis_server import LIMIT, NO_SERVER, redis_binary

with_redis = pytest.mark.skipif(redis_binary() is None, reason=NO_SERVER)


# Small runs


@with_redis
@pytest.mark.parametrize("kind", scale.LISTENING)
def test_many_channels(kind: str) -> None:
    found = scale.measure_many(kind, 300, 0.3)
    assert found["missing"] == 0
    assert found["joined"] > 0
    assert found["one more"] > 0
    assert found["p99"] >= found["p50"] > 0


@with_redis
def test_one_busy_channel() -> None:
    found = scale.measure_busy(64, 1)
    assert list(found) == ["16 publishes at a time", "one at a time"]
    for kinds in found.values():
        assert kinds["pushed"]["value"] > 0
        assert kinds["XREAD BLOCK"]["value"] > 0


@with_redis
@pytest.mark.parametrize("sockets", [0, 5])
def test_a_storm(sockets: int) -> None:
    found = scale.measure_storm(sockets, 30, 100, 0.3)
    assert (found["received"], found["errors"], found["clients failed"]) == (sockets * 30, 0, 0)
    assert found["p99"] >= found["p50"] > 0


@with_redis
@pytest.mark.parametrize("what", scale.SLOW)
def test_a_slow_link(what: str) -> None:
    found = scale.measure_slow(what, 10e6, 5, 20_000)
    assert (found["received"], found["expected"], found["outages"]) == (5, 5, 0)
    assert not found.get("error")
    assert found["carried"] >= 1
    assert found["needed"] == 0.01


@with_redis
@pytest.mark.parametrize("kind", scale.PEERS)
def test_an_outage(kind: str) -> None:
    if kind == "broadcaster":
        pytest.skip("with redis-py 8 it hears nothing: it stops listening before it has subscribed")
    for name in scale.PEERS[kind]:
        if find_spec(name) is None:
            pytest.skip(f"{name} is not installed")
    found = scale.measure_outage(kind, 0.3, 0.2, 2.0)
    assert found["acknowledged"] > 0
    assert found["lost"] < found["acknowledged"]  # it was connected before the outage
    if kind == "ours":
        assert (found["lost"], found["doubled"], found["out of order"], found["gaps"]) == (0, 0, 0, 0)
        assert not found["raised"]


@with_redis
def test_a_run_ends_with_tables(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(scale, "MANY", (2,))
    monkeypatch.setattr(scale, "BUSY", (64, 1))
    faults = scale.faults  # 64 messages say nothing about what one costs
    monkeypatch.setattr(scale, "faults", lambda found: faults({**found, "busy": {"loads": {}}}))
    monkeypatch.setattr(scale, "STORM", (2, 5, 100, 0.1))
    monkeypatch.setattr(scale, "LARGE", (2, 20_000))
    monkeypatch.setattr(scale, "AROUND", 0.3)
    monkeypatch.setattr(scale, "OUTAGE", 0.2)
    monkeypatch.setattr(scale, "PEERS", {"ours": (), "socketio": ("nothing_of_this_name",)})
    monkeypatch.setattr(sys, "argv", ["scale", "--rounds", "1", "--seconds", "0.2"])
    scale.main()
    said = capsys.readouterr().out
    assert "\n| 2 | **channels** | " in said
    assert "\n| 2 | redis-py, plain pub/sub | " in said
    assert "Clients were sent 10 of 10 events." in said
    assert "| published now: 2 of 20 kB | 4 | 2 | " in said
    assert "| published before: 2 of 20 kB | 10.0 | 2 | " in said
    assert "\n| **channels** | " in said
    assert (
        "Not measured: python-socketio, `AsyncRedisManager`: nothing_of_this_name is not installed." in said
    )


# The link


@pytest.fixture
def echo() -> Iterator[int]:
    """The port of a server that sends back what it gets."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                threading.Thread(target=answer, args=(connection,), daemon=True).start()

        def answer(connection: socket.socket) -> None:
            with connection:
                try:
                    while data := connection.recv(65_536):
                        connection.sendall(data)
                except OSError:
                    pass

        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)


def connected(link: scale.Link) -> socket.socket:
    port = int(link.url.rpartition(":")[2])
    return socket.create_connection(("127.0.0.1", port), timeout=LIMIT)


def is_there(connection: socket.socket) -> bool:
    try:
        connection.sendall(b"x")
        return connection.recv(1) == b"x"
    except ConnectionError:
        return False


def test_a_link_is_cut_and_comes_back(echo: int) -> None:
    with scale.Link(echo) as link, connected(link) as before:
        assert is_there(before)
        cutting = threading.Thread(target=link.cut, args=(0.3,))
        cutting.start()
        try:
            assert before.recv(1) == b""
        except ConnectionError:
            pass
        with connected(link) as meanwhile:
            assert not is_there(meanwhile)
        cutting.join(LIMIT)
        with connected(link) as after:
            assert is_there(after)


def test_a_link_has_a_rate(echo: int) -> None:
    with scale.Link(echo, 1e6) as link, connected(link) as connection:
        began = time.monotonic()
        connection.sendall(b"x" * 100_000)
        left = 100_000
        while left:
            left -= len(connection.recv(65_536))
        assert time.monotonic() - began >= 0.1 - scale.CATCH_UP  # never faster
        assert link.carried == 100_000


# Planted faults


@pytest.mark.parametrize(
    ("came", "fault", "count"),
    [
        ([1, 2, 3, 4], None, 0),
        ([1, 2, 4], "lost", 1),
        ([1, 2, 2, 3, 4, 4], "doubled", 2),
        ([2, 1, 3, 4], "out of order", 1),
    ],
)
def test_planted_order(came: list[int], fault: str | None, count: int) -> None:
    clean = {"acknowledged": 4, "lost": 0, "doubled": 0, "out of order": 0}
    assert scale.judged(came, [1, 2, 3, 4]) == {**clean, **({fault: count} if fault else {})}


def test_what_was_not_acknowledged_is_not_lost() -> None:
    assert scale.judged([1, 2, 3], [1, 3])["lost"] == 0


def test_planted_peer_that_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is started again, and what it had is not forgotten."""
    said: list[Any] = []
    connections = 0
    enough = asyncio.Event()

    @asynccontextmanager
    async def peer(kind: str, url: str) -> AsyncIterator[Any]:
        nonlocal connections
        connections += 1

        async def received() -> AsyncIterator[str]:
            yield f"{connections} {time.time()} ."
            if connections == 1:
                raise ConnectionError
            yield "gap"
            enough.set()
            await asyncio.Event().wait()

        yield None, received

    async def told() -> str:
        await asyncio.wait_for(enough.wait(), LIMIT)
        return "end"

    monkeypatch.setattr(scale, "connect", peer)
    monkeypatch.setattr(scale, "told", told)
    monkeypatch.setattr(scale, "say", said.append)
    asyncio.run(scale.receive_as("ours", "", 0.01))
    (found,) = said
    assert [number for number, _ in found["came"]] == [1, 2]
    assert (found["gaps"], found["raised"]) == (1, True)


def test_planted_peer_that_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every second publish fails, and is not taken for acknowledged."""
    said: list[Any] = []
    count = 0

    async def publish(text: str) -> None:
        nonlocal count
        count += 1
        if count % 2 == 0:
            raise ConnectionError

    @asynccontextmanager
    async def peer(kind: str, url: str) -> AsyncIterator[Any]:
        yield publish, None

    async def told() -> str:
        return "go"

    monkeypatch.setattr(scale, "connect", peer)
    monkeypatch.setattr(scale, "told", told)
    monkeypatch.setattr(scale, "say", said.append)
    asyncio.run(scale.publish_as("ours", "", 0.2))
    ready, found = said
    assert ready == "ready"
    assert found["failed"] == count // 2
    assert found["acknowledged"] == list(range(1, count + 1, 2))


@with_redis
def test_planted_peer_that_does_not_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that takes too long is killed, and the rest of the benchmark goes on."""
    monkeypatch.setattr(scale, "LIMIT", 1.0)
    monkeypatch.setitem(scale.PEERS, "nobody", ())
    assert scale.peer_in_outage("nobody", 0.1, 0.1, 0.1) == {"missing": "a worker has ended: see above"}


ROW = {"value": 1.0, "least": 1.0, "most": 1.0}
NOTHING = {"value": 0.0, "least": 0.0, "most": 0.0}
CLEAN: dict[str, Any] = {
    "many": {
        kind: {
            "10": {
                "processor": ROW,
                "broker": ROW,
                "p50": ROW,
                "p99": ROW,
                "one more": ROW,
                "joined": ROW,
                "missing": NOTHING,
            }
        }
        for kind in scale.LISTENING
    },
    "busy": {
        "loads": {"one at a time": {"pushed": {**ROW, "value": 1.1}, "XREAD BLOCK": ROW}},
        "disturbed": False,
    },
    "storm": {
        "sockets": 1,
        "missed": 1,
        "runs": {
            run: {
                "p50": ROW,
                "p99": ROW,
                "errors": NOTHING,
                "memory": ROW,
                "received": ROW,
                "caught up": ROW,
            }
            for run in ("without", "with")
        },
    },
    "slow": {
        "history": {
            "rate": 1e6,
            "size": 1000,
            "expected": 3,
            "received": 3,
            "seconds": 2.0,
            "needed": 1.0,
            "carried": 1.0,
            "outages": 0,
            "error": "",
            "gaps": 0,
        }
    },
    "outage": {
        "peers": {
            kind: {
                "acknowledged": 3,
                "failed": 0,
                "lost": 0,
                "doubled": 0,
                "out of order": 0,
                "gaps": 0,
                "raised": False,
                "p50": 1.0,
                "p99": 1.0,
                "broker": 1.0,
            }
            for kind in scale.PEERS
        }
    },
}


def planted(path: tuple[str, ...], value: object) -> dict[str, Any]:
    """The figures with another value at a place."""
    faulty: dict[str, Any] = json.loads(json.dumps(CLEAN))  # in which no two places share a row
    place = faulty
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return faulty


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("many", "ours", "10", "missing", "most"), 1, "many: messages never came"),
        (("busy", "loads", "one at a time", "pushed", "value"), 1.12, "busy, one at a time: to push costs"),
        (("storm", "runs", "with", "errors", "most"), 1, "storm: publishes to another channel failed"),
        (("storm", "runs", "without", "errors", "most"), 1, "storm: publishes to another channel failed"),
        (("storm", "runs", "with", "received", "least"), 0, "storm: not every client was sent all"),
        (("slow", "history", "received"), 2, "slow, history: not every event came"),
        (("slow", "history", "error"), "BrokerError", "slow, history: not every event came"),
        (("slow", "history", "gaps"), 1, "slow, history: not every event came"),
        *(
            (("outage", "peers", "ours", figure), 1, "outage: channels lost, doubled or reordered")
            for figure in ("lost", "doubled", "out of order", "gaps")
        ),
    ],
)
def test_planted_fault_in_the_figures(path: tuple[str, ...], value: object, said: str) -> None:
    assert scale.faults(CLEAN) == []
    faulty = planted(path, value)
    (complaint,) = scale.faults(faulty)
    assert complaint.startswith(said)


def test_what_others_lose_is_no_fault() -> None:
    assert scale.faults(planted(("outage", "peers", "plain", "lost"), 3)) == []
    assert scale.faults(planted(("many", "plain", "10", "missing", "most"), 3)) == []


# The report

ABOUT = {
    "machine": "a machine",
    "python": "a Python",
    "versions": {},
    "server": "a server",
    "rounds": 1,
    "minutes": 1.0,
    "disturbed": False,
}


def test_nothing_was_measured() -> None:
    blocks = _channels_report.blocks_of_scale({})
    assert blocks.pop("scale-run") == (
        "Not measured yet: `python3 noxfile.py -s bench -- scale --write` does it."
    )
    assert set(blocks.values()) == {"Not measured yet."}


def test_one_case_was_measured() -> None:
    blocks = _channels_report.blocks_of_scale({**ABOUT, "many": CLEAN["many"]})
    assert "a machine; a Python; a server, 1 round" in blocks["scale-run"]
    assert "\n| 10 | **channels** | 1 (1 to 1) | " in blocks["many"]
    assert blocks["storm"] == "Not measured yet."


@pytest.mark.parametrize(
    "path",
    [
        ("many", "ours", "10", "p99", "value"),
        ("many", "ours", "10", "missing", "value"),
        ("many", "plain", "10", "p50", "value"),
        ("busy", "loads", "one at a time", "pushed", "value"),
        ("busy", "loads", "one at a time", "XREAD BLOCK", "most"),
        ("busy", "disturbed"),
        ("storm", "runs", "with", "errors", "most"),
        ("storm", "runs", "with", "received", "least"),
        ("slow", "history", "received"),
        ("slow", "history", "carried"),
        ("outage", "peers", "socketio", "lost"),
        ("outage", "peers", "ours", "raised"),
        ("outage", "peers", "plain", "broker"),
    ],
)
def test_planted_figure_changes_its_table(path: tuple[str, ...]) -> None:
    faulty = planted(path, 54321)
    clean, changed = (_channels_report.blocks_of_scale({**ABOUT, **found}) for found in (CLEAN, faulty))
    assert [name for name in clean if clean[name] != changed[name]] == [path[0]]


def test_every_peer_has_a_name() -> None:
    assert list(_channels_report.PEERS) == list(scale.PEERS)

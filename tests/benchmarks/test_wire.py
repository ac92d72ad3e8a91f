"""The benchmarks over loopback: the client and its frames, the servers, and a small run against uvicorn."""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Frame, Opcode
from websockets.protocol import Protocol, Side

if sys.platform != "linux":
    pytest.skip("the benchmarks read /proc and use epoll", allow_module_level=True)

from benchmarks import _report, wire
from benchmarks._client import BINARY, TEXT, Crowd, deflated, frame, handshakes, reply
from benchmarks._peers import DEFAULT, HTTP, OURS, PEERS, Peer, Server, running, uvicorn
from benchmarks._system import Sample, processes
from benchmarks.typed import MESSAGE

ROOT = Path(__file__).parents[2]
SERVERS = ROOT / "benchmarks" / "servers"
CORES = (min(os.sched_getaffinity(0)), max(os.sched_getaffinity(0)))
LIMIT = 20.0
SIZES = (0, 1, 125, 126, 65535, 65536)


def parsed(data: bytes, side: Side, *, deflate: bool = False) -> list[Frame]:
    """The frames, as the `websockets` library reads them."""
    protocol = Protocol(side, max_size=None)
    if deflate:
        protocol.extensions = [PerMessageDeflate(False, False, 15, 15)]
    protocol.receive_data(data)
    assert protocol.parser_exc is None
    return [event for event in protocol.events_received() if isinstance(event, Frame)]


# Frames


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_frames_of_a_client(size: int, opcode: int) -> None:
    payload = bytes(range(97, 123)) * (size // 26 + 1)
    (read,) = parsed(frame(payload[:size], opcode), Side.SERVER)
    assert (read.opcode, bytes(read.data), read.fin) == (Opcode(opcode), payload[:size], True)


@pytest.mark.parametrize("size", SIZES)
def test_frames_of_a_server(size: int) -> None:
    (read,) = parsed(reply(b"x" * size), Side.CLIENT)
    assert (read.opcode, bytes(read.data)) == (Opcode.TEXT, b"x" * size)


def test_no_window_holds_a_document_until_it_comes_again() -> None:
    def recurs(count: int, connections: int) -> int:
        """How many bytes of other documents a connection gets before one comes again."""
        turns = range(0, connections * count, connections)  # they are sent in turn, over all connections
        return len({turn % count for turn in turns}) * min(map(len, wire.DOCUMENTS))

    assert recurs(len(wire.DOCUMENTS), 32) > 32768
    assert recurs(16, 32) == 1024  # planted: each connection would get one document, over and over


def test_compressed_frames_may_come_in_any_order_and_again() -> None:
    documents = [wire.DOCUMENTS[number] for number in (3, 0, 3, 3, 15)]
    assert {len(document) for document in documents} == {1024}
    data = b"".join(frame(deflated(document), compressed=True) for document in documents)
    assert [bytes(read.data) for read in parsed(data, Side.SERVER, deflate=True)] == documents


# The client, against servers that do what a test tells them to


@pytest.fixture
def fake() -> Iterator[Callable[..., int]]:
    """Starts a server of one connection that answers each part it receives with the next of its answers."""
    threads: list[threading.Thread] = []

    def start(*answers: bytes) -> int:
        listener = socket.create_server(("127.0.0.1", 0))

        def serve() -> None:
            with listener:
                listener.settimeout(LIMIT)
                connection = listener.accept()[0]
            with connection:
                connection.settimeout(LIMIT)
                for answer in answers:
                    if not connection.recv(65536):
                        return
                    connection.sendall(answer)

        threads.append(threading.Thread(target=serve))
        threads[-1].start()
        return int(listener.getsockname()[1])

    yield start
    for thread in threads:
        thread.join(LIMIT)
        assert not thread.is_alive()


ACCEPTED = b"HTTP/1.1 101 Switching Protocols\r\n\r\n"


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"HTTP/1.1 403 Forbidden\r\n\r\n", "refused"),
        (b"", "not answered"),
        (b"HTTP/1.1 101 Switching", "not answered"),
        (ACCEPTED[:-2] + b"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n", "not offered"),
    ],
)
def test_a_handshake_that_fails(fake: Callable[..., int], answer: bytes, said: str) -> None:
    with pytest.raises(ConnectionError, match=said):
        Crowd(fake(answer))


def test_compression_that_is_not_taken(fake: Callable[..., int]) -> None:
    with pytest.raises(ConnectionError, match="permessage-deflate was offered"):
        Crowd(fake(ACCEPTED), deflate=True)


@pytest.mark.parametrize("answer", [reply(b"other"), reply(b"hello", BINARY), reply(b"hello!")])
def test_an_echo_that_is_none(fake: Callable[..., int], answer: bytes) -> None:
    with Crowd(fake(ACCEPTED, answer)) as crowd, pytest.raises(ConnectionError, match="an echo of b'hello'"):
        crowd.check(b"hello")


def test_an_echo_that_is_not_compressed(fake: Callable[..., int]) -> None:
    port = fake(ACCEPTED[:-2] + b"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n", reply(b"hello"))
    with Crowd(port, deflate=True) as crowd, pytest.raises(ConnectionError, match="a compressed echo was"):
        crowd.check(b"hello")


def test_a_server_that_leaves(fake: Callable[..., int]) -> None:
    with Crowd(fake(ACCEPTED, b"")) as crowd, pytest.raises(ConnectionError, match="left"):
        crowd.check(b"hello")
    with Crowd(fake(ACCEPTED, b"")) as crowd, pytest.raises(ConnectionError, match="left"):
        crowd.echo([frame(b"hello")], 7, LIMIT)


@pytest.mark.parametrize("size", [7, 0])
def test_more_than_a_reply(fake: Callable[..., int], size: int) -> None:
    port = fake(ACCEPTED, reply(b"hello") + b"!!")
    with Crowd(port) as crowd, pytest.raises(ConnectionError, match="2 bytes came more"):
        crowd.echo([frame(b"hello")], size, LIMIT)


@pytest.mark.parametrize("size", [204, 0])
def test_replies_that_come_in_parts(size: int) -> None:
    whole = reply(b"x" * 200)
    assert len(whole) == 204
    # The parts are sent without being asked for, apart from each other, while the client already waits.
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with listener:
            connection = listener.accept()[0]
        with connection:
            connection.settimeout(LIMIT)
            connection.recv(65536)
            connection.sendall(ACCEPTED)
            for _ in range(3):
                connection.recv(65536)
                for part in (whole[:1], whole[1:3], whole[3:100], whole[100:]):
                    connection.sendall(part)
                    time.sleep(0.002)  # apart on the wire; if they are not, the test is only less sharp

    thread = threading.Thread(target=serve)
    thread.start()
    with Crowd(listener.getsockname()[1]) as crowd:
        assert [crowd.echo([frame(b"x" * 200)], size, 0.0) for _ in range(3)] == [1, 1, 1]
    thread.join(LIMIT)
    assert not thread.is_alive()


# Peers


def test_every_server_has_its_peer() -> None:
    started = " ".join(" ".join(peer.command) for peer in PEERS.values())
    for path in SERVERS.iterdir():
        if path.suffix in (".py", ".js") and path.name != "__init__.py":
            assert f"benchmarks.servers.{path.stem}" in started or f"servers/{path.name}" in started, (
                path.name
            )


def test_every_peer_can_be_chosen() -> None:
    assert not [name for name in PEERS if "," in name]  # by which `--peers` separates them


def test_every_row_has_its_peer_and_every_goal_its_row() -> None:
    for case in wire.CASES.values():
        assert {peer for peer, _ in case.rows.values()} <= PEERS.keys()
    for name, label, other, limit in (*wire.GOALS, *wire.WANTED):
        assert {label, other} <= wire.CASES[name].rows.keys()
        assert 0 < limit <= 1.2


def test_a_peer_that_is_not_installed() -> None:
    assert Peer("nobody", (sys.executable, "-c", "pass"), ("os", "no_such_module")).missing() == (
        "no_such_module is not installed"
    )
    assert Peer("nobody", (sys.executable, "-c", "pass"), ("no_such.module",)).missing()
    assert Peer("nobody", ("no-such-program",), ()).missing() == "no-such-program is not installed"
    assert PEERS[DEFAULT].missing() == ""


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_server_is_on_its_core_and_leaves_nothing_behind() -> None:
    program = (
        "import signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit())\n"  # and forgets its child
        "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "time.sleep(60)\n"
    )
    before = os.sched_getaffinity(0)
    server = Server(Peer("parent", (sys.executable, "-c", program), ()), CORES[1])
    try:
        wait_for(lambda: len(processes(server.pid)) == 2)
        family = processes(server.pid)
        assert [os.sched_getaffinity(pid) for pid in family] == [{CORES[1]}] * 2
        assert os.sched_getaffinity(0) == before
    finally:
        server.stop()
    wait_for(lambda: not any(Path(f"/proc/{pid}/exe").exists() for pid in family))


def test_a_server_that_does_not_start() -> None:
    failed: dict[str, str] = {}
    peer = Peer("broken", (sys.executable, "-c", "raise SystemExit('out of order')"), ())
    with running([peer], CORES[1], failed) as servers:
        assert servers == {}
    assert failed == {"broken": "it did not start out of order"}


# A run


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything as it is, only less of it."""
    monkeypatch.setattr(wire, "SECONDS", 0.05)
    monkeypatch.setattr(wire, "MEMBERS", 20)
    monkeypatch.setattr(wire, "WARM", 100)
    monkeypatch.setattr(wire, "IDLE", 400)  # more than the memory that is there from before


@pytest.mark.usefixtures("small")
def test_a_run_with_typed_messages() -> None:
    case = wire.CASES["typed"]
    run = wire.Run({"typed": case._replace(turns=1)}, 1, CORES, tries=1)
    run()
    rows = run.results()["cases"]["typed"]["rows"]
    # Chanx is in the environment of the benchmarks only.
    assert set(run.missing["typed"]) <= {"Chanx"}
    for label in case.rows.keys() - run.missing["typed"].keys():
        assert rows[label]["value"] > 0, label
    assert rows["FastAPI by hand"]["ratio"] == 1


@pytest.mark.parametrize(
    "answer",
    [reply(b'{"type":"say"}'), reply(b"{}", BINARY), reply(b"{}") + b"!", b""],
    ids=["another message", "binary", "more than one", "nothing"],
)
def test_a_typed_echo_that_is_none(fake: Callable[..., int], answer: bytes) -> None:
    server = object.__new__(Server)
    server.port = fake(ACCEPTED, answer)
    with pytest.raises(ConnectionError, match=r"expected|instead of an answer|answers came"):
        one_client(wire.typed_echo, server)


def one_client(run: Callable[[Server], Sample], server: Server) -> Sample:
    """Run a workload with one connection: a server that is told what to say has one."""
    crowd = Crowd
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wire, "Crowd", lambda port, count: crowd(port, count=1))
        return run(server)


def test_the_envelope_holds_the_same_message() -> None:
    message = json.loads(wire.enveloped(MESSAGE))
    assert {"type": message["action"], **message["payload"]} == json.loads(MESSAGE)


@pytest.mark.usefixtures("small")
def test_a_run_against_uvicorn(capsys: pytest.CaptureFixture[str]) -> None:
    cases = {
        name: case._replace(rows={DEFAULT: case.rows[DEFAULT]}, turns=min(case.turns, 2))
        for name, case in wire.CASES.items()
        if DEFAULT in case.rows and name not in ("growth-1000", "growth-10000")  # as growth-100, and long
    }
    run = wire.Run(cases, 2, CORES, tries=1)
    run()
    results = run.results()
    assert run.missing == {name: {} for name in cases}
    for name, case in results["cases"].items():
        row = case["rows"][DEFAULT]
        assert row["samples"] == 2 * cases[name].turns, name
        assert (row["apart"] is None) == (case["unit"] == "MiB"), name
        assert row["ratio"] in (1.0, None), name
        assert case["unit"] in ("µs", "KiB", "MiB")
        if case["unit"] == "µs":
            assert row["value"] > 0, name
            assert 0 <= row["server"] <= 1.1, name
            assert 0 <= row["client"] <= 1.1, name
    assert results["cases"]["echo"]["rows"][DEFAULT]["server"] > 0
    assert results["cases"]["echo"]["rows"][DEFAULT]["client"] > 0
    # A connection costs memory, and one that compresses costs more, in uvicorn's default.
    idle, deflate, used = (
        results["cases"][name]["rows"][DEFAULT]["value"] for name in ("idle", "idle-deflate", "used-deflate")
    )
    assert 1 < idle < min(deflate, used) < 1000
    # A larger message costs more than a small one.
    assert (
        results["cases"]["echo-64k"]["rows"][DEFAULT]["value"]
        > results["cases"]["echo"]["rows"][DEFAULT]["value"]
    )
    (whole,) = results["runs"]
    assert whole["samples"] == sum(2 * case.turns for case in cases.values())
    assert whole["cases"] == list(cases)
    assert whole["python"].endswith(".".join(map(str, sys.version_info[:3])))
    assert "uvicorn" in whole["versions"]
    said = capsys.readouterr().err
    assert "round 2 of 2, warming up: uvicorn" in said
    assert "round 2 of 2, echo, turn 2: uvicorn" in said


@pytest.mark.usefixtures("small")
def test_a_peer_that_fails_is_said_and_others_go_on() -> None:
    def fail(server: Server) -> Sample:
        raise ConnectionError("the server left")

    broken = Peer("broken", (sys.executable, "-c", "raise SystemExit('out of order')"), ())
    absent = Peer("absent", (sys.executable, "-c", "pass"), ("no_such_module",))
    rows: dict[str, tuple[str, wire.Workload]] = {
        DEFAULT: (DEFAULT, wire.handshake),
        "failing": (DEFAULT, fail),
        "broken": ("broken", wire.handshake),
        "absent": ("absent", wire.handshake),
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PEERS, "broken", broken)
        patch.setitem(PEERS, "absent", absent)
        for fresh in (False, True):
            run = wire.Run({"case": wire.Case("A case", "µs", rows, fresh, turns=2)}, 2, CORES, tries=1)
            run()
            found = run.results()["cases"]["case"]["rows"]
            assert found[DEFAULT]["samples"] == 4
            assert found["failing"] == {"missing": "failed: the server left"}
            assert found["broken"] == {"missing": "failed: it did not start out of order"}
            assert found["absent"] == {"missing": "no_such_module is not installed"}


QUIET, LOUD, LOUDER = Sample(1.0), Sample(2.0, waited=0.2), Sample(3.0, waited=0.1, others=0.9)


@pytest.mark.parametrize(
    ("samples", "chosen", "taken"),
    [
        ([QUIET], QUIET, 1),
        ([LOUD, QUIET], QUIET, 2),
        ([LOUD, LOUDER, QUIET], QUIET, 3),
        ([LOUDER, LOUD, LOUDER, QUIET], LOUD, 3),
    ],
)
def test_a_disturbed_turn_is_repeated(samples: list[Sample], chosen: Sample, taken: int) -> None:
    calls: list[Server] = []

    def workload(server: Server) -> Sample:
        calls.append(server)
        return samples[len(calls) - 1]

    run = wire.Run({}, 1, CORES, tries=3)
    server = object.__new__(Server)
    assert run.sample(workload, server) == chosen
    assert len(calls) == taken


def test_turns_alternate() -> None:
    taken: list[str] = []

    def row(label: str) -> wire.Workload:
        def workload(server: Server) -> Sample:
            taken.append(label)
            return Sample(1.0)

        return workload

    rows = {label: (DEFAULT, row(label)) for label in "abc"}
    run = wire.Run({"case": wire.Case("A case", "µs", rows, turns=3)}, 2, CORES)
    server = object.__new__(Server)
    for number in range(2):
        run.case(number, "case", lambda peer: server, {})
    assert "".join(taken) == "abc" + "cba" + "abc" + "bca" + "acb" + "bca"
    assert [len(turns) for turns in run.samples["case"]["b"]] == [3, 3]


def run_of(**samples: list[list[float]]) -> wire.Run:
    """A run that has these figures, of the turns of each round, in rows of the case `echo`."""
    run = wire.Run({"echo": wire.CASES["echo"]}, 2, CORES)
    run.samples["echo"] = {
        label.replace("_", "."): [[Sample(value) for value in turns] for turns in rounds]
        for label, rounds in samples.items()
    }
    return run


def test_ratios_are_formed_within_a_turn() -> None:
    # The machine was half as fast from the middle of the second round on, for both of them.
    run = run_of(
        uvicorn=[[10.0, 10.0, 10.0], [10.0, 20.0, 20.0], [20.0, 20.0, 20.0]],
        lilya_websockets_uvicorn=[[5.0, 5.0, 9.0], [5.0, 10.0, 10.0], [10.0, 10.0, 10.0]],
    )
    found = run.results()["cases"]["echo"]["rows"]
    assert found[DEFAULT]["ratio"] == 1
    assert found[OURS]["ratio"] == 0.5
    assert found[OURS]["value"] == 10
    assert found[OURS]["apart"] == 0  # in spite of the machine: its ratio was the same in every round
    assert found[DEFAULT]["apart"] == 0.5  # whose times were not
    assert found["aiohttp"] == {"missing": "not measured"}


@pytest.mark.parametrize(
    ("noisy", "apart", "marked"),
    [([5.0, 5.0, 5.2], 0.0, ""), ([5.0, 5.2, 5.2], 0.04, ""), ([5.0, 5.3, 5.3], 0.06, "!")],
    ids=["in one turn", "by 4 %", "by 6 %"],
)
def test_a_row_whose_rounds_are_apart_is_marked(noisy: list[float], apart: float, marked: str) -> None:
    quiet = [5.0, 5.0, 5.0]
    results = run_of(uvicorn=[[10.0] * 3] * 3, lilya_websockets_uvicorn=[quiet, noisy, quiet]).results()
    row = results["cases"]["echo"]["rows"][OURS]
    assert row["apart"] == apart
    assert _report.marks(row) == marked
    (line,) = (line for line in _report.as_text(results).splitlines() if line.startswith(f"  {OURS} "))
    assert line.split()[1:] == ["5", "0.50", f"{apart:.1%}", *marked]


def test_one_round_says_nothing_of_how_far_rounds_are_apart() -> None:
    row = run_of(uvicorn=[[10.0, 20.0]]).results()["cases"]["echo"]["rows"][DEFAULT]
    assert row["apart"] is None
    assert _report.marks(row) == ""


def test_disturbed_runs_are_marked() -> None:
    run = run_of(uvicorn=[[1.0, 1.0]] * 10)
    (quiet,) = run.results()["runs"]
    assert (quiet["disturbed"], quiet["disturbed_samples"]) == (False, 0)
    run.samples["echo"][DEFAULT][3] = [LOUD, LOUD]
    results = run.results()
    (loud,) = results["runs"]
    assert (loud["disturbed"], loud["disturbed_samples"]) == (True, 2)
    assert results["cases"]["echo"]["rows"][DEFAULT]["disturbed"] == 2


def test_some_cases_take_the_place_of_those_of_a_run_before() -> None:
    old = {
        "runs": [{"rounds": 5, "cases": ["echo", "idle"]}, {"rounds": 4, "cases": ["stalled"]}],
        "cases": {"echo": 1, "idle": 2, "stalled": 3},
    }
    new = {"runs": [{"rounds": 2, "cases": ["stalled", "echo"]}], "cases": {"stalled": 4, "echo": 5}}
    assert _report.merged(old, new) == {
        "runs": [{"rounds": 5, "cases": ["idle"]}, {"rounds": 2, "cases": ["stalled", "echo"]}],
        "cases": {"echo": 5, "idle": 2, "stalled": 4},
    }


@pytest.mark.parametrize(("value", "verdict"), [(5.2, "reached"), (5.3, "NOT reached")])
def test_goals(value: float, verdict: str) -> None:
    (goal,) = run_of(uvicorn=[[10.0]], lilya_websockets_uvicorn=[[value]]).goals()
    assert goal == f"echo: {OURS} / {DEFAULT} = {value / 10:.2f}, at most 0.52: {verdict}"


def test_the_goal_of_the_wrapper_is_a_difference() -> None:
    run = wire.Run({"frameworks": wire.CASES["frameworks"]}, 2, CORES)
    run.samples["frameworks"] = {
        DEFAULT: [[Sample(10.0)], [Sample(16.8)]],
        f"lilya.websockets on {DEFAULT}": [[Sample(10.25)], [Sample(17.3)]],
    }
    # The limit is one of a machine where uvicorn's default takes 13.4 µs, as here.
    assert run.goals() == [f"frameworks: lilya.websockets on {DEFAULT} adds 0.38 µs, at most 0.50: reached"]
    run.samples["frameworks"][DEFAULT] = [[Sample(9.75)], [Sample(16.8)]]
    assert run.goals() == [
        f"frameworks: lilya.websockets on {DEFAULT} adds 0.50 µs, at most 0.50: NOT reached"
    ]


# The command


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nothing"], "no such case: nothing"),
        (["--peers", "nobody"], "no such peer: nobody"),
        (["--rounds", "0"], "--rounds must be at least 1, got 0"),
        (["--tries", "0"], "--tries must be at least 1, got 0"),
        (["--write", "--peers", DEFAULT], "--write takes whole cases"),
    ],
)
def test_wrong_arguments(
    arguments: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["wire", *arguments])
    with pytest.raises(SystemExit) as caught:
        wire.main()
    assert caught.value.code == 2
    assert said in capsys.readouterr().err


def test_one_core_is_not_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["wire"])
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0})
    with pytest.raises(SystemExit, match="a core each, and this process may use 1"):
        wire.main()


@pytest.mark.usefixtures("small")
@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="server and client need a core each")
def test_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "figures.json"
    monkeypatch.setattr(
        sys,
        "argv",
        ["wire", "handshake", "--rounds", "1", "--tries", "1", "--peers", DEFAULT, "--json", str(file)],
    )
    monkeypatch.setattr("resource.setrlimit", lambda *arguments: None)  # is for this whole process
    wire.main()
    said = capsys.readouterr().out
    assert "handshake: A connection, opened and closed" in said
    assert "1 round in " in said
    assert f"handshake: {OURS}" not in said  # no goal of a row that was left out
    assert '"value"' in file.read_text(encoding="utf-8")


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("protocol", "least", "most"),
    [(f"{OURS}:WebSocketProtocol", 0.0, 4.0), ("tests.benchmarks.deaf:Protocol", 20.0, 40.0)],
)
def test_what_is_kept_for_a_reader_who_has_stopped_is_seen(protocol: str, least: float, most: float) -> None:
    failed: dict[str, str] = {}
    with running([uvicorn("stalled", protocol)], CORES[1], failed) as servers:
        assert failed == {}
        assert least <= wire.stalled(servers["stalled"]).value < most


def is_socket(fd: Path) -> bool:
    try:
        return "socket" in os.readlink(fd)
    except FileNotFoundError:  # it was closed meanwhile
        return False


def test_a_close_that_is_not_answered(fake: Callable[..., int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks._client.WINDOW", 1)
    with pytest.raises(ConnectionError, match="the close was answered with b'nothing'"):
        handshakes(fake(ACCEPTED, b"nothing"), LIMIT)


@pytest.mark.parametrize("peer", [DEFAULT, OURS, HTTP])
def test_handshakes_are_counted_and_closed(peer: str) -> None:
    failed: dict[str, str] = {}
    with running([PEERS[peer]], CORES[1], failed) as servers:
        assert failed == {}
        server = servers[peer]
        assert handshakes(server.port, 0.05) > 0
        assert handshakes(server.port, 0.05, deflate=True) > 0
        with Crowd(server.port, count=3) as crowd:
            crowd.check(b"hello")
            assert crowd.echo([frame(b"hello")], 7, 0.0) == 3
            assert crowd.waiting() == 0
        open_files = Path(f"/proc/{server.pid}/fd")
        wait_for(lambda: sum(1 for fd in list(open_files.iterdir()) if is_socket(fd)) < 10)

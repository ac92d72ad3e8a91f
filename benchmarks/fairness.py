"""How long one client can make another wait: the longest wait for an echo while somebody floods the server.

    python3 noxfile.py -s bench -- fairness                     everything, about 14 minutes
    python3 noxfile.py -s bench -- fairness --others 1          uvicorn's own protocol once: about 6 minutes
    python3 noxfile.py -s bench -- fairness pings --runs 1      a quick look at one kind
    python3 noxfile.py -s bench -- fairness --write             what the page *Performance* shows

The frames of a flood are empty and never reach the app: pings, pongs, the fragments of a message that never
ends, and the same of a compressed message. One client sends them for four seconds, as fast as the server
takes them, and reads what comes back. If the server ends the connection, the client opens the next one.
Another client sends a message of 32 bytes, waits for its echo, pauses for a millisecond, and begins again.
Of each run the longest wait counts. Shown is the median of these over the runs, with the least and the most;
beside it a run without a flood (`idle`), and uvicorn's default protocol.

Server, flooding client and measuring client are processes of their own, and every run has a fresh server. The
server has a core, the clients share another one, on which the flooding client yields to the measuring one.
A wait is given up after 20 seconds, and counts as that.
"""

from __future__ import annotations

import argparse
import gc
import os
import select
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from . import _report
from ._client import LIMIT, TEXT, Crowd, answered, connected, frame, reply, request, reset
from ._peers import DEFAULT, OURS, Peer, Server, running, uvicorn
from ._report import ROOT
from ._system import Meter

SECONDS = 4.0
RUNS = 5
GOAL = 50.0  # milliseconds, of our protocol, for each kind of flood
SMALL = b"x" * 32
PAUSE = 0.001

_MASK = b"\x37\xfa\x21\x3d"
FRAME = 6  # bytes of each: an empty frame of a client
MANY = 16384  # of them are sent at once


class Flood(NamedTuple):
    """The frames of a flood."""

    first: bytes
    """What opens a message, if it is one."""
    rest: bytes
    """What is repeated."""
    deflate: bool = False
    """Whether compression must be negotiated before."""


def _empty(first: int) -> bytes:
    return bytes((first, 0x80)) + _MASK


IDLE = "idle"
FLOODS = {
    "pings": Flood(b"", _empty(0x89)),
    "pongs": Flood(b"", _empty(0x8A)),
    "fragments": Flood(_empty(0x01), _empty(0x00)),
    "compressed fragments": Flood(_empty(0x41), _empty(0x00), deflate=True),
}
KINDS = (IDLE, *FLOODS)

PEERS = {
    peer.name: peer
    for loop in ("uvloop", "asyncio")
    for peer in (
        uvicorn(f"{DEFAULT}, {loop}", "websockets-sansio", loop=loop),
        uvicorn(f"{OURS}, {loop}", f"{OURS}:WebSocketProtocol", "raw", OURS, ours=True, loop=loop),
    )
}
VERSIONS = ("uvicorn", "uvloop", "httptools", "websockets")


# The client that floods


class Flooder:
    """Floods a server for a time.

    Args:
        port: Of the server, on 127.0.0.1.
        flood: With what.
    """

    def __init__(self, port: int, flood: Flood) -> None:
        self.sent = 0
        """Bytes of frames that the system has taken."""
        self.opened = 0
        """Connections: more than one if the server has ended one."""
        self._port = port
        self._flood = flood
        self._piece = memoryview(flood.rest * MANY)
        self._open()

    def _open(self) -> None:
        self._connection = connected(self._port)
        self._connection.sendall(request(self._port, "/echo", deflate=self._flood.deflate))
        answered(self._connection, deflate=self._flood.deflate)
        self._connection.sendall(self._flood.first)
        self._connection.setblocking(False)
        self._poll = select.poll()
        self._poll.register(self._connection, select.POLLIN | select.POLLOUT)
        self._at = 0  # in the piece
        self.opened += 1

    def run(self, over: Callable[[], bool]) -> None:
        """Send as fast as it is taken, until it is over."""
        while not over():
            try:
                alive = self._step()
            except (ConnectionResetError, BrokenPipeError):
                alive = False
            if not alive:
                self._connection.close()
                self._open()
        reset(self._connection)

    def _step(self) -> bool:
        """Send and read once; whether the connection is still open."""
        for _, event in self._poll.poll(100):
            if event & ~select.POLLOUT:
                data = self._connection.recv(1 << 18)
                # An empty pong is all that may come, and has no such byte: a close has.
                if not data or b"\x88" in data:
                    return False
            if event & select.POLLOUT:
                sent = self._connection.send(self._piece[self._at :])
                self.sent += sent
                self._at = (self._at + sent) % len(self._piece)
        return True


def flood(kind: str, port: int, seconds: float) -> None:
    """What the process of the flooding client does: it says that it is ready, and waits for a line."""
    os.nice(19)
    flooder = Flooder(port, FLOODS[kind])
    print("ready", flush=True)
    sys.stdin.readline()
    deadline = time.perf_counter() + seconds
    flooder.run(lambda: time.perf_counter() > deadline)
    print(flooder.sent // FRAME, flooder.opened, flush=True)


# The client that measures


class Run(NamedTuple):
    """One run against one server."""

    wait: float
    """The longest, in milliseconds."""
    frames: int
    """What the flood has brought."""
    opened: int
    """The connections of the flood."""
    disturbed: bool
    """Whether other load took part."""


def longest_wait(server: Server, kind: str, seconds: float) -> Run:
    """Measure while a flood runs.

    Raises:
        RuntimeError: There was no flood.
    """
    with Crowd(server.port) as crowd:
        crowd.check(SMALL)
        if kind == IDLE:
            return _measured(server, crowd, seconds)
        flooding = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.fairness", "--flood", kind, str(server.port), str(seconds)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        with flooding:
            try:
                assert flooding.stdin is not None
                assert flooding.stdout is not None
                if flooding.stdout.readline() != "ready\n":
                    raise RuntimeError(f"there was no flood: {flooding.communicate()[1]}")
                flooding.stdin.write("go\n")
                flooding.stdin.flush()
                run = _measured(server, crowd, seconds)
                said, failure = flooding.communicate(timeout=3 * LIMIT)
                if flooding.returncode:
                    raise RuntimeError(f"the flood has failed: {failure}")
            finally:
                flooding.kill()
    frames, opened = map(int, said.split())
    if not frames:
        raise RuntimeError("the server took nothing of the flood")
    return run._replace(frames=frames, opened=opened)


def _measured(server: Server, crowd: Crowd, seconds: float) -> Run:
    with Meter(server.pid, server.core) as meter:
        try:
            wait = max(crowd.round_trips(frame(SMALL), len(reply(SMALL, TEXT)), seconds, PAUSE))
        except TimeoutError:
            wait = LIMIT
    return Run(wait * 1e3, 0, 0, meter.sample(wait).disturbed)


# A whole


class Fairness:
    """Measures, and says what it does.

    Args:
        kinds: Of floods, `idle` among them.
        runs: How often each is measured, by the name of the server.
        seconds: Of a flood.
        cores: Of the clients, and of the server.
    """

    def __init__(
        self, kinds: tuple[str, ...], runs: dict[str, int], seconds: float, cores: tuple[int, int]
    ) -> None:
        self.kinds = kinds
        self.runs = runs
        self.seconds = seconds
        self.client, self.core = cores
        self.found: dict[str, dict[str, list[Run]]] = {kind: {name: [] for name in runs} for kind in kinds}
        self.missing = {name: reason for name in runs if (reason := PEERS[name].missing())}
        self.started = time.monotonic()

    def __call__(self) -> None:
        affinity = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {self.client})
        gc.collect()
        gc.disable()
        try:
            for number in range(max(self.runs.values())):
                for name, runs in self.runs.items():
                    for kind in self.kinds:
                        if number < runs and name not in self.missing:
                            self._say(f"run {number + 1}, {name}: {kind}")
                            self._measure(PEERS[name], kind)
        finally:
            gc.enable()
            os.sched_setaffinity(0, affinity)
            print(file=sys.stderr)

    def _measure(self, peer: Peer, kind: str) -> None:
        failed: dict[str, str] = {}
        try:
            with running([peer], self.core, failed) as servers:
                if peer.name in failed:
                    raise RuntimeError(failed[peer.name])
                self.found[kind][peer.name].append(longest_wait(servers[peer.name], kind, self.seconds))
        except (OSError, RuntimeError) as error:
            self.missing[peer.name] = f"failed: {kind}: {error or type(error).__name__}"

    def _say(self, what: str) -> None:
        minutes, seconds = divmod(int(time.monotonic() - self.started), 60)
        print(f"\r\x1b[K{minutes}:{seconds:02}  {what} …", end="", file=sys.stderr, flush=True)

    def results(self) -> _report.Results:
        """The figures, as the page has them."""
        every = [run for rows in self.found.values() for runs in rows.values() for run in runs]
        disturbed = sum(run.disturbed for run in every)
        return {
            **_report.machine(VERSIONS),
            "seconds": self.seconds,
            "runs_each": self.runs,
            "minutes": round((time.monotonic() - self.started) / 60, 1),
            "samples": len(every),
            "disturbed_samples": disturbed,
            "disturbed": disturbed > 0.05 * len(every),
            "cases": {
                kind: {"title": f"Longest wait for an echo: {kind}", "unit": "ms", "rows": self._rows(kind)}
                for kind in self.kinds
            },
        }

    def _rows(self, kind: str) -> dict[str, _report.Row]:
        rows: dict[str, _report.Row] = {}
        for name, runs in self.found[kind].items():
            if name in self.missing or not runs:
                rows[name] = {"missing": self.missing.get(name, "not measured")}
                continue
            rows[name] = {
                **_report.spread([run.wait for run in runs]),
                "frames": int(statistics.median(run.frames for run in runs) / self.seconds),
                "opened": max(run.opened for run in runs),
            }
        return rows

    def goals(self) -> list[str]:
        """Whether our protocol reaches what was set, for each kind of flood."""
        lines = []
        for kind, rows in self.found.items():
            for name, runs in rows.items():
                if kind != IDLE and runs and name.startswith(OURS):
                    wait = statistics.median(run.wait for run in runs)
                    frames = statistics.median(run.frames for run in runs) / self.seconds
                    verdict = "reached" if wait <= GOAL else "NOT reached"
                    lines.append(
                        f"{kind}: {name}: {wait:.1f} ms at {frames:,.0f} frames a second, "
                        f"at most {GOAL:.0f} ms: {verdict}"
                    )
        return lines


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"any of {', '.join(KINDS)} (default: all)")
    parser.add_argument("--runs", type=int, default=RUNS, help=f"of each (default: {RUNS})")
    parser.add_argument(
        "--others", type=int, help="runs of uvicorn's own protocol, 0 for none (default: as --runs)"
    )
    parser.add_argument("--seconds", type=float, default=SECONDS, help=f"of a flood (default: {SECONDS:g})")
    parser.add_argument("--json", type=Path, help="a file to write the figures to")
    parser.add_argument("--write", action="store_true", help="write the figures into the page Performance")
    # For the process that floods.
    parser.add_argument("--flood", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.flood:
        kind, port, seconds = arguments.flood
        flood(kind, int(port), float(seconds))
        return
    if unknown := set(arguments.kinds) - set(KINDS):
        parser.error(f"no such kind: {', '.join(sorted(unknown))}; there are {', '.join(KINDS)}")
    if arguments.runs < 1:
        parser.error(f"--runs must be at least 1, got {arguments.runs}")
    if arguments.seconds <= 0:
        parser.error(f"--seconds must be more than 0, got {arguments.seconds:g}")
    others = arguments.runs if arguments.others is None else arguments.others
    if arguments.write and (arguments.kinds or not others):
        parser.error("--write takes the whole: leave the kinds out, and --others 0")
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        sys.exit(f"the server and its clients need a core each, and this process may use {len(cores)}")
    runs = {name: arguments.runs if name.startswith(OURS) else others for name in PEERS}
    fairness = Fairness(
        tuple(kind for kind in KINDS if kind in (arguments.kinds or KINDS)),
        {name: count for name, count in runs.items() if count},
        arguments.seconds,
        (cores[0], cores[-1]),
    )
    fairness()
    results = fairness.results()
    print(_report.fairness(results))
    for line in fairness.goals():
        print(line)
    if arguments.json:
        _report.save(results, arguments.json)
    if arguments.write:
        _report.write(fairness=results)


if __name__ == "__main__":
    main()

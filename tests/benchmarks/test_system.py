"""The accounting: whose processor time is counted, and what counts as disturbed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest

if sys.platform != "linux":
    pytest.skip("the benchmarks read /proc", allow_module_level=True)

from benchmarks import _system
from benchmarks._system import Meter, Sample, core_times, cpu_time, memory, processes, waited

CORE = min(os.sched_getaffinity(0))
LIMIT = 20.0
TICKS = (
    0.05  # seconds: the part of the accounting that is kept in ticks, with room for the start of a process
)

# Burns so many seconds of processor time of its own for every line, and says how many they were.
BURN = """
import time

def burn(seconds):
    start = time.process_time()
    while time.process_time() - start < seconds:
        pass
    return time.process_time() - start
"""
BURNING = f"""{BURN}
print("ready", flush=True)
while line := input():
    print(burn(float(line)), flush=True)
"""
# The same in a child, or in threads.
BURNING_CHILD = f"""{BURN}
import os
print("ready", flush=True)
while line := input():
    read, write = os.pipe()
    if child := os.fork():
        os.close(write)
        said = os.read(read, 100)
        os.waitpid(child, 0)
        os.close(read)
        print(said.decode(), flush=True)
    else:
        os.write(write, str(burn(float(line))).encode())
        os._exit(0)
"""
BURNING_THREAD = f"""{BURN}
import threading
print("ready", flush=True)
while line := input():
    start = time.process_time()
    thread = threading.Thread(target=burn, args=(float(line),))
    thread.start()
    thread.join()
    print(time.process_time() - start, flush=True)
"""


class Child:
    """A Python program that is talked to by lines."""

    def __init__(self, program: str, *, core: int | None = None) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.pid = self.process.pid
        if core is not None:
            os.sched_setaffinity(self.pid, {core})
        assert self.answer() == "ready"

    def say(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def answer(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def ask(self, line: str) -> str:
        self.say(line)
        return self.answer()

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


Start = Callable[..., Child]


@pytest.fixture
def start() -> Iterator[Start]:
    children: list[Child] = []

    def run(program: str, *, core: int | None = None) -> Child:
        children.append(Child(program, core=core))
        return children[-1]

    yield run
    for child in children:
        child.end()


@pytest.mark.parametrize(
    "program", [BURNING, BURNING_CHILD, BURNING_THREAD], ids=["itself", "child", "thread"]
)
def test_processor_time_is_what_was_burnt(start: Start, program: str) -> None:
    child = start(program)
    before = cpu_time(child.pid)
    burnt = float(child.ask("0.3"))
    assert burnt >= 0.3
    assert cpu_time(child.pid) - before == pytest.approx(burnt, abs=TICKS)


def test_processor_time_of_others_is_not_counted(start: Start) -> None:
    child, other = start(BURNING), start(BURNING)
    before = cpu_time(child.pid)
    assert float(other.ask("0.3")) >= 0.3
    assert cpu_time(child.pid) - before < TICKS


def test_a_living_child_is_counted(start: Start) -> None:
    spawning = (
        "import subprocess, sys\n"
        "alone = 'import os\\nparent = os.getppid()\\nwhile os.getppid() == parent: pass'\n"
        "child = subprocess.Popen([sys.executable, '-c', alone])\n"
        "print('ready', flush=True)\n"
        "input()\n"
        "child.kill()\n"
        "child.wait()\n"
        "print('over', flush=True)\n"
        "input()\n"
    )
    child = start(spawning)
    deadline = time.monotonic() + LIMIT
    assert len(processes(child.pid)) == 2
    while cpu_time(child.pid) < 0.3:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    before = cpu_time(child.pid)
    assert child.ask("end it") == "over"
    assert processes(child.pid) == [child.pid]
    assert cpu_time(child.pid) >= before - TICKS  # it has ended, and still counts


def test_memory_is_what_is_held(start: Start) -> None:
    child = start(
        "print('ready', flush=True)\nwhile size := int(input()): held = b'x' * size; print(size, flush=True)"
    )
    before = memory(child.pid)
    child.ask(str(32 * 2**20))
    assert memory(child.pid) - before == pytest.approx(32 * 2**20, rel=0.05)


def test_a_core_that_does_not_exist() -> None:
    with pytest.raises(ValueError, match="no core 4096"):
        core_times(4096)


def test_a_core_is_busy_while_something_runs_there(start: Start) -> None:
    child = start(BURNING, core=CORE)
    before = core_times(CORE)[0]
    burnt = float(child.ask("0.3"))
    assert core_times(CORE)[0] - before > burnt - TICKS


# What counts as disturbed


def test_another_process_on_the_core_disturbs(start: Start) -> None:
    server, other = start(BURNING, core=CORE), start(BURNING, core=CORE)
    other.say("30")
    with Meter(server.pid, CORE) as meter:
        server.ask("0.3")
    sample = meter.sample(1.0)
    assert sample.waited > 0.1
    assert sample.disturbed


def test_another_process_disturbs_a_server_that_sleeps(start: Start) -> None:
    server, other = start(BURNING, core=CORE), start(BURNING, core=CORE)
    with Meter(server.pid, CORE) as meter:
        other.ask("0.3")
    sample = meter.sample(1.0)
    assert sample.others > 0.1
    assert sample.disturbed


def test_the_share_of_the_client(start: Start) -> None:
    server = start(BURNING)
    with Meter(server.pid, CORE) as meter:
        deadline = time.perf_counter() + 0.3
        while time.perf_counter() < deadline:
            pass
    sample = meter.sample(7.0)
    assert sample.value == 7.0
    assert sample.server < 0.2
    # Whatever else the machine does: it ran, or it waited for the core.
    assert sample.client + sample.waited + sample.stolen > 0.7


def test_waiting_for_a_core_is_not_running(start: Start) -> None:
    server, other = start(BURNING, core=CORE), start(BURNING, core=CORE)
    before = waited(server.pid)
    other.say("30")
    server.ask("0.3")
    assert waited(server.pid) - before > 0.05


@pytest.mark.parametrize(
    ("sample", "disturbed", "bounded"),
    [
        (Sample(1.0, server=1.0, client=0.5), False, False),
        (Sample(1.0, server=1.0, client=0.5, waited=0.01, others=0.05, stolen=0.01), False, False),
        (Sample(1.0, waited=0.05), True, False),
        (Sample(1.0, others=0.2), True, False),
        (Sample(1.0, stolen=0.05), True, False),
        (Sample(1.0, client=0.95), False, True),
    ],
)
def test_marks(sample: Sample, disturbed: bool, bounded: bool) -> None:
    assert (sample.disturbed, sample.bounded) == (disturbed, bounded)


@pytest.mark.parametrize(
    ("busy", "own", "stolen", "disturbed"),
    [(1.0, 1.0, 0.0, False), (1.0, 0.95, 0.0, False), (1.0, 0.5, 0.0, True), (1.0, 1.0, 0.5, True)],
    ids=["nobody", "next to nobody", "others", "the host"],
)
def test_who_used_the_cores(
    busy: float, own: float, stolen: float, disturbed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    cores = len(os.sched_getaffinity(0))
    clock = iter([0.0, 1.0])
    of_core = iter([(0.0, 0.0)] * cores + [(busy, stolen)] * cores)
    of_own = iter([0.0, own * cores])
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(_system, "core_times", lambda core: next(of_core))
    monkeypatch.setattr(_system, "cpu_time", lambda pid: next(of_own))
    with _system.Others() as others:
        pass
    assert others.share == pytest.approx(busy - own)
    assert others.disturbed == disturbed

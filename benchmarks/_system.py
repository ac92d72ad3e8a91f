"""What the system's accounting says: the processor time and memory of a server, and who disturbed it.

The processor time is that of all threads of all processes of a server, in nanoseconds, from the scheduler's
own clock of each process (`clock_getcpuclockid(3)`), and with it that of children which have ended. On
loopback it holds the server's share of the kernel's work.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import NamedTuple

__all__ = ["Meter", "Others", "Sample", "cpu_time", "memory", "processes"]

PROC = Path("/proc")
TICK = 1 / os.sysconf("SC_CLK_TCK")

# Above these a sample does not count as quiet. Shares of the time that it took.
WAITED = 0.03  # the server, or the client, was ready to run and had no core
OTHERS = 0.10  # others ran on the server's core; this is counted in ticks, therefore coarse
STOLEN = 0.03  # the machine's host ran something else
BUSY_CLIENT = 0.90  # the client itself


def processes(pid: int) -> list[int]:
    """A process and its descendants, those that are alive."""
    found = [pid]
    for parent in found:
        for task in _tasks(parent):
            try:
                found += map(int, (task / "children").read_text().split())
            except OSError:
                pass  # it has ended meanwhile
    return found


def _tasks(pid: int) -> list[Path]:
    try:
        return list((PROC / str(pid) / "task").iterdir())
    except OSError:
        return []


def cpu_time(pid: int) -> float:
    """The processor time of a process and its descendants so far, in seconds."""
    total = 0.0
    for process in processes(pid):
        try:
            # The clock of another process, as clock_getcpuclockid(3) names it.
            total += time.clock_gettime((~process << 3) | 2)
            fields = (PROC / str(process) / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        total += (int(fields[13]) + int(fields[14])) * TICK  # of children that have ended
    return total


def waited(pid: int) -> float:
    """How long the threads of a process and its descendants were ready to run without a core, in seconds."""
    total = 0
    for process in processes(pid):
        for task in _tasks(process):
            try:
                total += int((task / "schedstat").read_text().split()[1])
            except OSError:
                pass
    return total / 1e9


def core_times(core: int) -> tuple[float, float]:
    """How long a core has been running something, and how long the host had taken it away, in seconds."""
    for line in (PROC / "stat").read_text().splitlines():
        name, *values = line.split()
        if name == f"cpu{core}":
            user, nice, system, _, _, irq, softirq, steal = map(int, values[:8])
            return (user + nice + system + irq + softirq) * TICK, steal * TICK
    raise ValueError(f"/proc/stat has no core {core}")


def memory(pid: int) -> int:
    """The memory of a process and its descendants in bytes; what they share with others is divided (PSS)."""
    total = 0
    for process in processes(pid):
        for line in (PROC / str(process) / "smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1]) * 1024
    return total


class Sample(NamedTuple):
    """A figure, and what it is worth."""

    value: float
    """In the unit of its case."""
    server: float = 0.0
    """The share of its core that the server used."""
    client: float = 0.0
    """The same for the client."""
    waited: float = 0.0
    """The share of the time in which the server, or the client, was ready to run and had no core."""
    others: float = 0.0
    """The share of its core that others than the server used."""
    stolen: float = 0.0
    """The share of the server's core that the machine's host took."""

    @property
    def disturbed(self) -> bool:
        """Whether other load took part."""
        return self.waited > WAITED or self.others > OTHERS or self.stolen > STOLEN

    @property
    def bounded(self) -> bool:
        """Whether the client may have been what was measured."""
        return self.client > BUSY_CLIENT


class Meter:
    """Measures a block.

    Args:
        pid: Of the server.
        core: Of the server.
    """

    def __init__(self, pid: int, core: int) -> None:
        self._pid = pid
        self._core = core

    def _read(self) -> tuple[float, ...]:
        return (
            time.perf_counter(),
            cpu_time(self._pid),
            time.process_time(),
            waited(self._pid),
            waited(os.getpid()),
            *core_times(self._core),
        )

    def __enter__(self) -> Meter:
        self._before = self._read()
        return self

    def __exit__(self, *error: object) -> None:
        self.took, self.server, self._client, of_server, of_client, busy, self._stolen = (
            after - before for after, before in zip(self._read(), self._before, strict=True)
        )
        self._waited = max(of_server, of_client)
        self._others = max(0.0, busy - self.server - TICK)  # by which the count may be wrong

    def sample(self, value: float) -> Sample:
        """A figure from the block."""
        took = self.took
        return Sample(
            value,
            self.server / took,
            self._client / took,
            self._waited / took,
            self._others / took,
            self._stolen / took,
        )


class Others:
    """Whether others used the cores of this process while a block ran, over all of them."""

    def _read(self) -> tuple[float, float, float]:
        cores = [core_times(core) for core in os.sched_getaffinity(0)]
        busy, stolen = (sum(times) for times in zip(*cores, strict=True))
        return time.perf_counter(), busy - cpu_time(os.getpid()), stolen

    def __enter__(self) -> Others:
        self._cores = len(os.sched_getaffinity(0))
        self._before = self._read()
        return self

    def __exit__(self, *error: object) -> None:
        took, others, stolen = (
            after - before for after, before in zip(self._read(), self._before, strict=True)
        )
        self.share = max(0.0, others) / took / self._cores
        """Of the cores, that others used."""
        self.disturbed = self.share > OTHERS or stolen / took / self._cores > STOLEN

"""Clocks that are advanced: where an app waits for nothing but time, the time is skipped.

An example that closes after ten seconds of silence is replayed in milliseconds. What is skipped is only what
nobody could notice: as long as a thread works, or a socket may have something to say, the clock runs as it
always does.

In memory the clock of the event loop advances by itself, on asyncio and trio. A server has sockets that may
have something to say at any moment: its clock is advanced by who knows that they have not, the gate.
"""

from __future__ import annotations

import asyncio
import math
import selectors
from typing import TYPE_CHECKING, Any

import anyio.to_thread

if TYPE_CHECKING:
    import trio

# What a loop has open for itself: the pipe that wakes it.
_OWN_SOCKETS = 1


class ManualLoop(asyncio.SelectorEventLoop):
    """An event loop of asyncio with a clock that can be advanced."""

    def __init__(self, selector: selectors.BaseSelector | None = None) -> None:
        self.skipped = 0.0
        self.threads = 0  # that work for the loop
        super().__init__(selector)

    def time(self) -> float:
        """Return the loop's time, with what was skipped."""
        return super().time() + self.skipped

    def next_timer(self) -> float | None:
        """Return the seconds until the next timer that is not cancelled, 0 if it is due; or ``None``."""
        # Timers that are cancelled stay in the heap until they come up.
        times = [handle.when() for handle in self._scheduled if not handle.cancelled()]  # type: ignore[attr-defined]
        return max(min(times) - self.time(), 0.0) if times else None

    def run_in_executor(  # type: ignore[override]  # as wide as the types of arguments allow
        self, executor: Any, func: Any, *args: Any
    ) -> asyncio.Future[Any]:
        """Run a function in a thread, and let the time pass as it does until it has ended."""
        future: asyncio.Future[Any] = super().run_in_executor(executor, func, *args)
        self.threads += 1
        future.add_done_callback(self._thread_ended)
        return future

    def _thread_ended(self, future: asyncio.Future[Any]) -> None:
        self.threads -= 1

    @property
    def has_threads(self) -> bool:
        """Whether a thread works for a task of this loop."""
        return self.threads > 0 or _threads_of_anyio() > 0


class AdvancingLoop(ManualLoop):
    """One whose clock advances by itself, when there is nothing to do but to wait."""

    def __init__(self) -> None:
        super().__init__(_Selector(self))


class _Selector(selectors.DefaultSelector):  # the platform's best
    """Skips the time for which the loop would wait."""

    def __init__(self, loop: AdvancingLoop) -> None:
        super().__init__()
        self.loop = loop

    def select(self, timeout: float | None = None) -> Any:
        """Return what has happened on the sockets."""
        if not timeout or len(self.get_map()) > _OWN_SOCKETS or self.loop.has_threads:
            return super().select(timeout)
        events = super().select(0)
        if not events:
            self.loop.skipped += timeout
        return events


def _threads_of_anyio() -> float:
    """Return how many threads work for tasks, of this loop and whoever has started them."""
    try:
        return anyio.to_thread.current_default_thread_limiter().borrowed_tokens
    except Exception:  # outside of a task, where there is none yet
        return 0


def backend_options(backend: str) -> dict[str, Any]:
    """Return AnyIO's options for an event loop with a clock that advances by itself."""
    if backend == "asyncio":
        return {"loop_factory": AdvancingLoop}
    import trio.testing

    clock = trio.testing.MockClock(rate=1.0, autojump_threshold=0)
    return {"clock": clock, "instruments": [_while_others_work(clock)]}


def _while_others_work(clock: trio.testing.MockClock) -> trio.abc.Instrument:
    """Return what keeps trio's clock from advancing while a thread works or a socket is waited for."""
    import trio

    class Watch(trio.abc.Instrument):
        def after_task_step(self, task: trio.lowlevel.Task) -> None:
            io = trio.lowlevel.current_statistics().io_statistics
            waiting = getattr(io, "tasks_waiting_read", 0) + getattr(io, "tasks_waiting_write", 0)
            alone = waiting <= _OWN_SOCKETS and not _threads_of_trio()
            threshold = 0 if alone else math.inf
            if clock.autojump_threshold != threshold:
                clock.autojump_threshold = threshold

    return Watch()


def _threads_of_trio() -> float:
    import trio

    return trio.to_thread.current_default_thread_limiter().borrowed_tokens

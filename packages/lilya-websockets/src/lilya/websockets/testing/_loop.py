"""An event loop in a thread, which a test can give up on."""

from __future__ import annotations

import asyncio
import sys
import traceback
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future, wait
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from threading import Thread
from types import FrameType
from typing import Any, Final, TypeVar

import anyio

from ._errors import WebSocketTimeout
from ._task import of_the_app
from ._where import describe_frames

__all__ = ["LoopThread"]

T = TypeVar("T")
_Outcome = tuple[Any, BaseException | None]

# Seconds that a call may take beyond its own limit, which strikes first unless the loop is blocked.
MARGIN: Final = 2.0


class LoopThread:
    """An event loop in another thread.

    Not AnyIO's blocking portal: that hands over a call only when the loop takes it, so a loop that an app
    blocks would block the test.

    The thread is a daemon: Python cannot end a thread, but one that is stuck must not keep the process.

    Args:
        backend: `"asyncio"` or `"trio"`.
        options: Options of AnyIO for that loop.
        root: The folder of the app's own code, and
        prefer: the file that counts before all others, to say where the thread is stuck: see
            `describe_frames`.
    """

    def __init__(
        self,
        backend: str = "asyncio",
        options: dict[str, Any] | None = None,
        root: Path | None = None,
        prefer: Path | None = None,
    ) -> None:
        self._backend = backend
        self._options = options
        self._places = (root, prefer)
        self._thread: Thread
        self._post: Callable[[Callable[[], Any]], Any]
        self._wake: anyio.Event
        self._calls: deque[Callable[[], Coroutine[Any, Any, None]]] = deque()
        self._stopped = False
        self._stuck: str | None = None

    def start(self) -> None:
        """Start the thread and its loop."""
        started: Future[None] = Future()

        async def main() -> None:
            self._post = _poster()
            self._wake = anyio.Event()
            async with anyio.create_task_group() as tasks:
                started.set_result(None)
                while not self._stopped:
                    await self._wake.wait()
                    self._wake = anyio.Event()
                    while self._calls:
                        tasks.start_soon(self._calls.popleft())
                tasks.cancel_scope.cancel()

        def target() -> None:
            try:
                anyio.run(main, backend=self._backend, backend_options=self._options)
            except BaseException as error:  # there is no such loop
                started.set_exception(error)

        self._thread = Thread(target=target, name="lilya.websockets.testing", daemon=True)
        self._thread.start()
        started.result()

    def stop(self) -> None:
        """End the loop and the thread; if they are stuck, as soon as they come free, without waiting."""
        self._stopped = True
        self._post(self._woken)
        if self._stuck is None:
            self._thread.join()

    def call(self, function: Callable[..., Awaitable[T]], *arguments: Any, limit: float | None = None) -> T:
        """Run a coroutine function in the loop.

        Args:
            function: The function.
            arguments: Its arguments.
            limit: Seconds after which it should be back.

        Returns:
            What it returns.

        Raises:
            WebSocketTimeout: It is not back: something blocks the loop.
            BaseException: What it raised.
        """
        __tracebackhide__ = True
        value: T = self._result(self._start(function, *arguments), limit)
        return value

    def enter(
        self, manager: AbstractAsyncContextManager[T], limit: float | None
    ) -> tuple[T, Callable[[BaseException | None], None]]:
        """Enter an asynchronous context manager in the loop.

        Args:
            manager: The context manager.
            limit: Seconds that entering it should take, and leaving it.

        Returns:
            What entering gave, and the function that leaves, to be called with the error of the block.
        """
        __tracebackhide__ = True
        entered: Future[_Outcome] = Future()
        failures: list[BaseException | None] = []
        leaving: list[anyio.Event] = []

        async def hold() -> None:
            leaving.append(anyio.Event())
            value, error = await _outcome(manager.__aenter__)
            entered.set_result((value, error))
            if error is not None:
                return
            try:
                await leaving[0].wait()
            except BaseException as interruption:
                failures.append(interruption)
            failure = failures[0]
            await manager.__aexit__(
                type(failure) if failure else None, failure, failure.__traceback__ if failure else None
            )

        holder = self._start(hold)
        value = self._result(entered, limit)

        def left(failure: BaseException | None) -> None:
            __tracebackhide__ = True
            if self._stuck is not None:  # as the test has been told
                return
            failures.append(failure)
            place = failure.__traceback__ if failure else None
            self._post(leaving[0].set)
            try:
                self._result(holder, limit)
            finally:
                if failure is not None:  # whose traceback has grown in the other thread
                    failure.__traceback__ = place

        return value, left

    def _start(self, function: Callable[..., Awaitable[Any]], *arguments: Any) -> Future[_Outcome]:
        future: Future[_Outcome] = Future()

        async def run() -> None:
            future.set_result(await _outcome(function, *arguments))

        self._calls.append(run)
        self._post(self._woken)
        return future

    def _woken(self) -> None:
        self._wake.set()

    def _result(self, future: Future[_Outcome], limit: float | None) -> Any:
        __tracebackhide__ = True
        seconds = None if limit is None else limit + MARGIN
        if self._stuck is None:
            done, _ = wait([future], seconds)
            if not done:
                self._stuck = describe_frames(self._frames(), *self._places)
        if self._stuck is not None:
            raise WebSocketTimeout("the event loop, which the app blocks", seconds or 0, place=self._stuck)
        value, error = future.result()
        if error is not None:
            raise error.with_traceback(of_the_app(error))
        return value

    def _frames(self) -> list[FrameType]:
        frame = sys._current_frames().get(self._thread.ident or 0)
        return [each for each, _ in traceback.walk_stack(frame)][::-1]


def _poster() -> Callable[[Callable[[], Any]], Any]:
    """What hands a function to the running loop from another thread, without waiting for it."""
    try:
        return asyncio.get_running_loop().call_soon_threadsafe
    except RuntimeError:
        import trio

        return trio.lowlevel.current_trio_token().run_sync_soon


async def _outcome(function: Callable[..., Awaitable[T]], *arguments: Any) -> _Outcome:
    # Returned and not raised: an exception such as that of `pytest.fail`, which is not an `Exception`, would
    # end the whole loop.
    try:
        return await function(*arguments), None
    except anyio.get_cancelled_exc_class():
        raise
    except BaseException as error:
        return None, error

"""One call of an app, in a task that has ended when the block is left."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Callable, Coroutine, Generator
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import anyio
from anyio.abc import TaskGroup

from ..types import AnyASGIApp, Receive, Scope, Send
from ._where import describe_frames, frames_of

__all__ = ["AppTask", "of_the_app"]

GRACE: Final = 0.5  # seconds that a cancelled app has for its end
_HERE: Final = Path(__file__).parent


class AppTask:
    """An app that runs in the event loop of the test.

    Args:
        app: The app.
        scope: Its scope.
        receive: Its `receive`.
        send: Its `send`.
        at_end: Called when the app has ended, however that was, with what it raised.
    """

    error: BaseException | None = None
    """What the app raised."""

    stopped_at: str | None = None
    """Where the app was waiting when it had to be cancelled; `None` if it ended by itself."""

    cancelled = False
    """Whether it ended by a cancellation."""

    let_go = False
    """Whether the app swallowed its cancellation, and was left where it was."""

    def __init__(
        self,
        app: AnyASGIApp,
        scope: Scope,
        receive: Receive,
        send: Send,
        at_end: Callable[[BaseException | None], None],
    ) -> None:
        self.ended = anyio.Event()
        self._call = (app, scope, receive, send)
        self._at_end = at_end
        self._coroutine: Coroutine[Any, Any, None]
        self._group: TaskGroup
        self._id = 0
        self._task: asyncio.Task[Any] | None = None
        self._holder: asyncio.Task[None] | None = None  # has the group, on asyncio

    async def start(self) -> None:
        """Start the app; `stop` must follow: in the same task on trio, in any task on asyncio."""
        self._coroutine = _called(*self._call)
        if _asyncio_task() is None:
            self._group = anyio.create_task_group()
            await self._group.__aenter__()
            self._group.start_soon(self._run)
            return
        # A task of its own has the group: fixtures are entered and left in different tasks, and in any order.
        entered = anyio.Event()
        self._holder = asyncio.create_task(self._hold(entered))
        await entered.wait()

    async def _hold(self, entered: anyio.Event) -> None:
        async with anyio.create_task_group() as self._group:
            self._group.start_soon(self._run)
            entered.set()

    async def stop(self, patience: float | None) -> None:
        """Wait for the app's end; cancel it when that takes too long. Cancelled itself, it does so at once.

        Args:
            patience: Seconds to wait; `None` for no limit.
        """
        interruption = None
        try:
            with anyio.move_on_after(patience):
                await self.ended.wait()
        except BaseException as error:
            interruption = error
            raise
        finally:
            if not self.ended.is_set():
                self.stopped_at = self.where()
                self._group.cancel_scope.cancel()
                with anyio.CancelScope(shield=True):
                    with anyio.move_on_after(GRACE):
                        await self.ended.wait()
                    self._give_up()
            if self._holder is not None:
                with anyio.CancelScope(shield=True):
                    await asyncio.wait([self._holder])
            else:
                await self._group.__aexit__(
                    type(interruption) if interruption else None,
                    interruption,
                    interruption.__traceback__ if interruption else None,
                )

    def where(self, root: Path | None = None, prefer: Path | None = None) -> str:
        """Say where the app is waiting, and where the tasks are that it started; see `describe_frames`."""
        frames = [frames_of(self._coroutine), *(frames_of(coroutine) for coroutine in self._children())]
        places = [describe_frames(each, root, prefer) for each in frames if each]
        return "\nand in ".join(dict.fromkeys(places)) or "a place that cannot be seen from outside"

    async def _run(self) -> None:
        self._id = anyio.get_current_task().id
        self._task = _asyncio_task()
        try:
            await self
        except anyio.get_cancelled_exc_class():
            self.cancelled = True
            if anyio.current_effective_deadline() == -math.inf:
                raise
            # Nobody cancelled the app but itself, and with it nobody else is.
        except BaseException as error:  # SystemExit included: it is the test's to see
            error.__traceback__ = of_the_app(error)
            self.error = error
        finally:
            self._at_end(self.error)
            self.ended.set()

    def __await__(self) -> Generator[Any, Any, None]:
        # What `await` does, by hand: a coroutine that swallows its cancellation can be left this way.
        # Nothing else ends such a task, on any event loop.
        resume: Callable[[Any], Any] = self._coroutine.send
        value: Any = None
        while True:
            try:
                wish = resume(value)
            except StopIteration:
                return
            try:
                value = yield wish
                resume = self._coroutine.send
            except BaseException as error:
                resume, value = self._coroutine.throw, error
            if self.let_go:
                self.cancelled = True
                _close(self._coroutine)
                return

    def _give_up(self) -> None:
        # On trio a task cannot be left while tasks run that it started: then there is only waiting.
        if not self.ended.is_set() and (self._task or not self._children()):
            self.let_go = True
            if self._task:
                self._task.cancel()  # reaches into shielded scopes, too

    def _children(self) -> list[Any]:
        """The coroutines of the tasks that the app started, where the event loop knows of whom they are."""
        tasks = anyio.get_running_tasks()
        family = {self._id}
        found: list[Any] = []
        while new := [task for task in tasks if task.parent_id in family and task.id not in family]:
            family.update(task.id for task in new)
            found += [task.coro for task in new]
        return found


async def _called(app: AnyASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    await app(scope, receive, send)


def _asyncio_task() -> asyncio.Task[Any] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:  # another event loop
        return None


_left: Final[list[object]] = []  # what cannot be closed; forgetting it would close it again


def _close(coroutine: Coroutine[Any, Any, None]) -> None:
    chain: list[object] = [coroutine]
    while (awaited := getattr(chain[-1], "cr_await", None)) is not None:
        chain.append(awaited)
    try:
        coroutine.close()
    except BaseException:  # whatever the app does about it, it is over
        _left.extend(chain)
        # Nor may the interpreter forget it at its exit, which such an app can hold up for ever.
        import ctypes

        for each in chain:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(each))


def of_the_app(error: BaseException) -> TracebackType | None:
    """The traceback of an error from the first frame on that is not of this package."""
    traceback = error.__traceback__
    while traceback is not None and _is_ours(traceback.tb_frame.f_code.co_filename):
        traceback = traceback.tb_next
    return traceback


def _is_ours(file: str) -> bool:
    return file == contextlib.__file__ or Path(file).parent == _HERE

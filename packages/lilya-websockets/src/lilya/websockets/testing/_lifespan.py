"""The lifespan of an app, once per client (ASGI spec, "Lifespan")."""

from __future__ import annotations

from typing import Any, Final

import anyio
import anyio.lowlevel

from ..types import AnyASGIApp, Message
from ._errors import ASGIViolation, LifespanError, WebSocketTimeout, add_note, show
from ._task import AppTask

__all__ = ["Lifespan"]


class Lifespan:
    """Startup and shutdown of an app, as uvicorn does it.

    An app that raises, or returns, before it has answered the startup has no lifespan, which is not an error.

    Args:
        app: The app.
        limit: Seconds for its startup, and for its shutdown; `None` for no limit.
    """

    def __init__(self, app: AnyASGIApp, limit: float | None) -> None:
        self.state: dict[str, Any] = {}
        self._limit = limit
        self._answers: list[Message] = []
        self._asked = 0
        self._started = anyio.Event()
        self._leaving = anyio.Event()
        scope = {
            "type": "lifespan",
            "asgi": {"version": "3.0", "spec_version": "2.0"},
            "state": self.state,
        }
        self._task = AppTask(app, scope, self._receive, self._send, lambda _: self._started.set())

    async def start(self) -> bool:
        """Start the app up.

        Returns:
            Whether it has a lifespan. If so, `stop` must follow, on trio in the same task.

        Raises:
            LifespanError: The app said that its startup failed.
            WebSocketTimeout: It did not answer in time.
            BaseException: What it raised, when it said so.
        """
        task = self._task
        await task.start()
        complete = False
        try:
            with anyio.move_on_after(self._limit):
                await self._started.wait()
            complete = self._answered("lifespan.startup.complete")
        finally:
            if not complete:
                failed = self._answered("lifespan.startup.failed")
                await task.stop(self._limit if failed or task.ended.is_set() else 0)
        if not complete and task.stopped_at is not None:
            raise self._late("the app to start up")
        if not complete and failed:
            raise task.error or self._failure("startup")
        return complete

    async def stop(self, failure: BaseException | None) -> None:
        """Shut the app down.

        Args:
            failure: What the test itself raised.

        Raises:
            LifespanError: The app said that its shutdown failed.
            WebSocketTimeout: It did not end in time, and was cancelled.
            BaseException: What the app raised.
        """
        self._leaving.set()
        cancelled = isinstance(failure, anyio.get_cancelled_exc_class())
        await self._task.stop(0 if cancelled else self._limit)
        if self._task.error is not None:
            raise self._task.error
        if self._task.stopped_at is not None and not cancelled:
            late = self._late("the app to shut down")
            if failure is None:
                raise late
            add_note(failure, str(late))
        elif self._answered("lifespan.shutdown.failed"):
            raise self._failure("shutdown")

    def _answered(self, answer: str) -> bool:
        return any(message["type"] == answer for message in self._answers)

    def _failure(self, phase: str) -> LifespanError:
        message = self._answers[-1].get("message")
        return LifespanError(f"the app's {phase} failed" + (f": {message}" if message else ""))

    def _late(self, wanted: str) -> WebSocketTimeout:
        last = self._answers[-1] if self._answers else None
        return WebSocketTimeout(wanted, self._limit or 0, last, self._task.stopped_at, (), "it was cancelled")

    async def _receive(self) -> Message:
        self._asked += 1
        if self._asked == 1:
            await anyio.lowlevel.checkpoint()
            return {"type": "lifespan.startup"}
        if self._asked == 2:
            await self._leaving.wait()
            return {"type": "lifespan.shutdown"}
        while True:
            await anyio.sleep_forever()

    async def _send(self, message: Message) -> None:
        await anyio.lowlevel.checkpoint()
        last = self._answers[-1]["type"] if self._answers else None
        expected = _NEXT.get(last, ())
        kind = message.get("type") if isinstance(message, dict) else None
        if kind not in expected:
            raise ASGIViolation(
                f"illegal message of lifespan: expected {' or '.join(map(repr, expected)) or 'nothing'}; "
                f"the app sent {show(message)}"
            )
        self._answers.append(message)
        self._started.set()


# What an app may answer after its last answer.
_NEXT: Final[dict[object, tuple[str, ...]]] = {
    None: ("lifespan.startup.complete", "lifespan.startup.failed"),
    "lifespan.startup.complete": ("lifespan.shutdown.complete", "lifespan.shutdown.failed"),
}

"""What goes wrong in a test, as types."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from .._messages import loads
from ..datastructures import Header
from ..exceptions import WebSocketDisconnect
from ..types import Message

__all__ = [
    "ASGIViolation",
    "ASGIWarning",
    "ClientDisconnected",
    "LifespanError",
    "UnexpectedMessage",
    "WebSocketDenialResponse",
    "WebSocketTimeout",
    "add_note",
    "show",
]

_SHOWN: Final = 200  # characters of a message in an error


class ASGIViolation(RuntimeError):
    """The app broke a rule of ASGI: it sent an illegal or malformed message, or left one out.

    The app's `send` raises it. The test gets it, too, even if the app catches it.
    """


class ASGIWarning(UserWarning):
    """The app broke a rule of ASGI that all servers ignore: a close reason before accept that is not text."""


class ClientDisconnected(OSError):
    """The app sent something after the end of the connection. The strictest servers raise this error."""


class LifespanError(RuntimeError):
    """The app reported that its startup or its shutdown failed."""


class UnexpectedMessage(AssertionError):
    """Something came from the app where nothing was expected.

    Args:
        message: The ASGI message, which the next receive returns. `None` if the connection ended.
        seconds: The time in which nothing was expected.
    """

    def __init__(self, message: Message | None, seconds: float) -> None:
        super().__init__(message, seconds)
        self.message = message
        self.seconds = seconds

    def __str__(self) -> str:
        came = "the end of the connection" if self.message is None else show(self.message)
        return f"expected nothing for {self.seconds:g} s, got {came}"


class WebSocketTimeout(TimeoutError):
    """A time limit was reached.

    Args:
        awaited: What the test was waiting for.
        seconds: The limit.
        last_sent: The last ASGI message that the app sent; `None` if it sent none.
        place: Where in its own code the app was waiting, as `file:line` and the line itself; `None` if it
            had ended.
        violations: Rules that the app broke before that, which may be the reason.
        then: What happened to the app, if it had to be ended.
    """

    def __init__(
        self,
        awaited: str,
        seconds: float,
        last_sent: Message | None = None,
        place: str | None = None,
        violations: Sequence[str] = (),
        then: str | None = None,
    ) -> None:
        super().__init__(awaited, seconds, last_sent, place, violations, then)
        self.awaited = awaited
        self.seconds = seconds
        self.last_sent = last_sent
        self.place = place
        self.violations = list(violations)
        self.then = then

    def __str__(self) -> str:
        lines = [
            f"timed out after {self.seconds:g} s, waiting for {self.awaited}",
            f"the app last sent {'nothing' if self.last_sent is None else show(self.last_sent)}",
            "the app had ended" if self.place is None else f"the app was waiting in {self.place}",
            *self.violations,
        ]
        return "\n".join([*lines, self.then] if self.then else lines)


class WebSocketDenialResponse(WebSocketDisconnect):
    """The app refused the connection: a `WebSocketDisconnect` that is an HTTP response, too.

    Args:
        status_code: The HTTP status. 403 if the app closed instead of accepting.
        headers: The headers of the response, pairs of `bytes`.
        content: The whole body.
        code: The app's close code, or 1006 if the app sent a response. Clients do not see it.
        reason: The app's close reason. Clients do not see it.
    """

    def __init__(
        self,
        status_code: int,
        headers: Iterable[tuple[bytes, bytes]] = (),
        content: bytes = b"",
        code: int = 1006,
        reason: str | None = None,
    ) -> None:
        super().__init__(code, reason)
        pairs = list(headers)
        self.args = (status_code, pairs, content, code, reason or "")
        self.status_code = status_code
        self.headers = Header([(name.decode("latin-1"), value.decode("latin-1")) for name, value in pairs])
        self.content = content

    @property
    def text(self) -> str:
        """The body decoded as UTF-8; invalid bytes become U+FFFD."""
        return self.content.decode(errors="replace")

    def json(self) -> Any:
        """The body decoded as JSON.

        Raises:
            ValueError: It is not JSON in UTF-8.
        """
        return loads(self.content.decode())

    def __str__(self) -> str:
        shown = f": {_shortened(self.text)}" if self.content else ""
        close = "" if self.code == 1006 else f" (it closed with code {self.code}"
        if close:
            close += f", reason {self.reason!r})" if self.reason else ")"
        return f"the app refused the connection with HTTP {self.status_code}{close}{shown}"


def show(message: object) -> str:
    """A message for an error, not all of it if it is long."""
    return _shortened(repr(message))


def _shortened(text: str) -> str:
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"


def add_note(error: BaseException, note: str) -> None:
    """Do what `BaseException.add_note` does, on Python 3.10 too, where pytest shows such notes as well."""
    error.__dict__.setdefault("__notes__", []).append(note)

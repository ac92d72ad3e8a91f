"""Who failed, as types.

    Exception
    ├─ WebSocketDisconnect(code, reason)      the conversation ended: normal
    │    └─ WebSocketClosed ──────────┐       you used it after the end
    ├─ RuntimeError                   │
    │    └─ WebSocketRuntimeError ◄───┘       a call or a message out of turn: a bug, yours or the server's
    └─ ValueError
         └─ WebSocketDataError(message)       the peer sent what was not asked for

`except WebSocketDisconnect` therefore covers every way in which the other side can be gone, and never a bug
in the handler; `except WebSocketRuntimeError` covers the bugs, a use after the end among them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:

    class WebSocketRuntimeError(RuntimeError):
        """A call or a message at the wrong time: a bug in the app or in the server, not in the peer."""

else:
    try:
        # Beside Lilya it must be Lilya's own class, or `except` clauses written for Lilya would miss ours.
        from lilya.exceptions import WebSocketRuntimeError
    except ImportError:

        class WebSocketRuntimeError(RuntimeError):
            """A call or a message at the wrong time: a bug in the app or in the server, not in the peer."""


__all__ = [
    "WebSocketClosed",
    "WebSocketDataError",
    "WebSocketDisconnect",
    "WebSocketRuntimeError",
]


class WebSocketDisconnect(Exception):
    """The connection ended: the client closed it, or it was lost. This is normal, not an error.

    Args:
        code: The close code, RFC 6455 section 7.4. 1005 means that the peer gave none, 1006 that the
            connection was lost without a close frame.
        reason: The peer's reason, at most 123 bytes of UTF-8, or `""` without a reason.
    """

    # Defaults of the class, for subclasses whose other base (an HTTP response, say) has an `__init__` that
    # does not call this one.
    code: int = 1005
    reason: str = ""

    # Which block this is the end of (`_conversation.py`): one that it is not of must not take it for its own.
    _origin: object = None

    def __init__(self, code: int = 1000, reason: str | None = None) -> None:
        super().__init__(code, reason or "")
        self.code = code
        self.reason = reason or ""

    def __str__(self) -> str:
        return f"the WebSocket was disconnected ({_describe_close(self.code, self.reason)})"


class WebSocketClosed(WebSocketDisconnect, WebSocketRuntimeError):
    """The WebSocket was used after its end.

    It is a `WebSocketDisconnect`, so a handler that treats the end as normal catches it, too. It is also a
    `WebSocketRuntimeError`, upstream's type for a call at the wrong time.

    Args:
        code: The close code of the first end; 1005 without a code.
        reason: The reason of the first end, or `""`.
        attempted: What was tried, as a phrase: `"send text"`.
        ended: How the connection ended: `"the client closed it"`.
    """

    def __init__(
        self,
        code: int = 1005,
        reason: str | None = None,
        attempted: str = "use the WebSocket",
        ended: str = "it has ended",
    ) -> None:
        super().__init__(code, reason)
        self.args = (code, reason or "", attempted, ended)
        self.attempted = attempted
        self.ended = ended

    def __str__(self) -> str:
        return (
            f"cannot {self.attempted} any longer: {self.ended} "
            f"({_describe_close(self.code, self.reason)}). Leave the handler, or catch WebSocketDisconnect "
            "where the end is expected"
        )


class WebSocketDataError(ValueError):
    """The peer sent something that you did not ask for. The connection stays usable.

    Args:
        message: The ASGI message with its payload.
        problem: What was expected and what came.
        details: What `errors()` returns. Default: one error, the problem.
    """

    def __init__(
        self,
        message: Any,
        problem: str = "the message is not what was asked for",
        details: Sequence[dict[str, Any]] = (),
    ) -> None:
        super().__init__(message, problem, *((details,) if details else ()))
        self.message = message
        self.problem = problem
        self._details = details

    def errors(self) -> list[dict[str, Any]]:
        """Return what is wrong, at least one error and at most 100.

        Returns:
            A dictionary for each error. `loc` is a tuple of names and indices that says where the error is,
            and is empty for the message as a whole. `type` is the library's name for the kind of error, and
            `msg` is a text.
        """
        return [dict(each) for each in self._details] or [
            {"loc": (), "type": "wrong_kind", "msg": self.problem}
        ]

    def __str__(self) -> str:
        return f"{self.problem}. The message is in `.message`, and the WebSocket is still open"


def _describe_close(code: int, reason: str) -> str:
    return f"code {code}, reason {reason!r}" if reason else f"code {code}"

"""`ErrorsToServer`, without Lilya: what Lilya does is in `tests/frameworks/test_endings.py`."""

from __future__ import annotations

from typing import Any

import pytest

from lilya.websockets.lilya import ErrorsToServer

pytestmark = pytest.mark.anyio


async def sent_by(app: Any, scope_type: str = "websocket") -> list[Any]:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        raise AssertionError("nothing is received")

    try:
        await ErrorsToServer(app)({"type": scope_type}, receive, send)
    except LookupError as error:
        sent.append(error)
    return sent


def answering(code: int, error: Exception | None) -> Any:
    """An app that closes, as Lilya does, while it handles an exception."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        message = {"type": "websocket.close", "code": code, "reason": repr(error)}
        if error is None:
            await send(message)
            return
        try:
            raise error
        except LookupError:
            await send(message)

    return app


async def test_what_no_server_may_send_is_the_exception() -> None:
    error = LookupError("no such room")
    assert await sent_by(answering(500, error)) == [error]
    assert error.__context__ is None


@pytest.mark.parametrize(
    ("code", "error", "scope_type"),
    [
        (4404, LookupError("no such room"), "websocket"),  # an app that closes in its own `except`
        (500, None, "websocket"),  # for the server to refuse
        (500, LookupError("no such room"), "http"),
    ],
)
async def test_everything_else_goes_through(code: int, error: Any, scope_type: str) -> None:
    sent = await sent_by(answering(code, error), scope_type)
    assert sent == [{"type": "websocket.close", "code": code, "reason": repr(error)}]


async def test_other_messages_go_through_while_an_exception_is_handled() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            raise LookupError
        except LookupError:
            await send({"type": "websocket.send", "text": "sorry"})

    assert await sent_by(app) == [{"type": "websocket.send", "text": "sorry"}]

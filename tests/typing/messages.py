"""What type checkers make of `WebSocket[In, Out]`: `nox -s types` has mypy and pyright read this file.

A line with two `ignore` comments must be refused by both of them: where one accepts it, its comment is unused
and therefore an error. Nothing here is run.
"""

from __future__ import annotations

from typing import Any

from typing_extensions import assert_type

from lilya.websockets import WebSocket
from lilya.websockets.testing import WebSocketSession, WebSocketTestSession
from lilya.websockets.typed import MessagePack
from lilya.websockets.types import Receive, Scope, Send


class Say: ...


class Leave: ...


class Said: ...


class Joined: ...


# Bare: as if there were no types.


async def bare(websocket: WebSocket) -> None:
    assert_type(websocket, WebSocket[Any, Any])
    assert_type(await websocket.receive_message(), Any)
    await websocket.send_message(object())
    async with websocket as inside:
        assert_type(inside, WebSocket[Any, Any])


def made(scope: Scope, receive: Receive, send: Send) -> None:
    assert_type(WebSocket(scope, receive, send), WebSocket[Any, Any])


# In and Out.


async def chat(websocket: WebSocket[Say | Leave, Said]) -> None:
    assert_type(await websocket.receive_message(), Say | Leave)
    assert_type(await websocket.receive_message(timeout=1), Say | Leave)
    async for message in websocket.iter_messages(on_error="answer"):
        assert_type(message, Say | Leave)
    await websocket.send_message(Said())
    await websocket.send_message(Said(), timeout=1)
    assert_type(await websocket.call(Said()), Say | Leave)
    await websocket.send_message(Say())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await websocket.call(Joined())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    websocket.iter_messages(on_error="ignore")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def several(websocket: WebSocket[Say, Said | Joined]) -> None:
    await websocket.send_message(Said())
    await websocket.send_message(Joined())
    await websocket.send_message(Leave())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


# One type is both.


async def both(websocket: WebSocket[Say]) -> None:
    assert_type(websocket, WebSocket[Say, Say])
    assert_type(await websocket.receive_message(), Say)
    await websocket.send_message(Say())
    await websocket.send_message(Said())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


# The constructor, wrap, blocks and subclasses keep the types.


async def kept(scope: Scope, receive: Receive, send: Send, other: object) -> None:
    websocket = WebSocket[Say | Leave, Said](scope, receive, send)
    assert_type(websocket, WebSocket[Say | Leave, Said])
    assert_type(WebSocket[Say, Said].wrap(other), WebSocket[Say, Said])
    async with websocket as inside:
        assert_type(inside, WebSocket[Say | Leave, Said])
    async with websocket.open(idle_timeout=1) as opened:
        assert_type(opened, WebSocket[Say | Leave, Said])


class Packed(WebSocket[Say, Said], codec=MessagePack()): ...


async def subclass(websocket: Packed) -> None:
    assert_type(await websocket.receive_message(), Say)
    await websocket.send_message(Say())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await to_say(websocket)


# A helper that sends fewer kinds takes a socket that may send more; one that sends more is refused.


async def to_say(websocket: WebSocket[Any, Said]) -> None: ...


async def to_join(websocket: WebSocket[Any, Said | Joined]) -> None: ...


async def to_read(websocket: WebSocket[Say | Leave, Any]) -> None: ...


async def helpers(
    few: WebSocket[Say, Said], many: WebSocket[Say | Leave, Said | Joined], untyped: WebSocket
) -> None:
    await to_say(few)
    await to_say(many)
    await to_say(untyped)
    await to_join(many)
    await to_join(few)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await to_read(few)
    await to_read(many)
    await bare(few)
    less: WebSocket[Say, Said] = many  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    await bare(less)


# The test client: the types swapped.


async def session(session: WebSocketSession) -> None:
    messages = session.typed(WebSocket[Say | Leave, Said])
    await messages.send_message(Leave())
    assert_type(await messages.receive_message(), Said)
    assert_type(await messages.call(Say()), Said)
    await messages.send_message(Said())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def session_in_a_thread(session: WebSocketTestSession) -> None:
    messages = session.typed(Packed)
    messages.send_message(Say())
    assert_type(messages.receive_message(), Said)
    messages.send_message(Said())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

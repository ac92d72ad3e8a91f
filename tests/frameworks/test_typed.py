"""Typed messages in frameworks: by annotation in FastAPI, by `wrap` elsewhere."""

# No `from __future__ import annotations`: FastAPI could not resolve what is local to a test.

import importlib.util
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import pytest
from fastapi import APIRouter, Depends, FastAPI, params
from litestar import Litestar
from litestar import WebSocket as LitestarWebSocket
from litestar import websocket as litestar_websocket
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.websockets import WebSocket as StarletteWebSocket
from starlette.websockets import WebSocketDisconnect as StarletteWebSocketDisconnect

from lilya import websockets
from lilya.websockets import fastapi, litestar, starlette
from lilya.websockets.testing import TestClient


class Say(BaseModel):
    type: Literal["say"] = "say"
    text: str


class Leave(BaseModel):
    type: Literal["leave"] = "leave"


class Said(BaseModel):
    type: Literal["said"] = "said"
    text: str


async def converse(websocket: websockets.WebSocket[Say | Leave, Said]) -> None:
    async with websocket:
        async for message in websocket.iter_messages(on_error="answer"):
            match message:
                case Say(text=text):
                    await websocket.send_message(Said(text=text))
                case Leave():
                    return


def check(app: Any, path: str = "/chat") -> None:
    with TestClient(app).websocket_connect(path) as session:
        messages = session.typed(websockets.WebSocket[Say | Leave, Said])
        messages.send_message(Say(text="hello"))
        assert messages.receive_message() == Said(text="hello")
        session.send_json({"type": "say"})
        assert session.receive_json()["type"] == "error"
        messages.send_message(Leave())
        assert session.receive() == {"type": "websocket.close", "code": 1000, "reason": ""}


# FastAPI


def test_the_annotation_of_fastapi_sees_its_types() -> None:
    app = FastAPI()
    seen = []

    @app.websocket("/chat")
    async def chat(websocket: fastapi.WebSocket[Say | Leave, Said]) -> None:
        seen.append(isinstance(websocket, fastapi.WebSocketClass[Say | Leave, Said]))  # type: ignore[misc]
        await converse(websocket)

    check(app)
    assert seen == [True]


def test_it_stands_beside_parameters_dependencies_and_routers() -> None:
    router = APIRouter(prefix="/rooms")
    seen: list[Any] = []

    async def counted(websocket: fastapi.WebSocket[Say]) -> int:
        seen.append(websocket)
        return 1

    async def untyped(websocket: fastapi.WebSocket) -> None:
        seen.append(websocket)

    @router.websocket("/{room}/chat")
    async def chat(
        room: str,
        websocket: fastapi.WebSocket[Say | Leave, Said],
        number: Annotated[int, Depends(counted)],
        nothing: Annotated[None, Depends(untyped)],
    ) -> None:
        seen.append(websocket)
        assert (room, number) == ("blue", 1)
        await converse(websocket)
        # over one connection, so the others know of the end
        assert {each.close_code for each in seen} == {1000}

    app = FastAPI()
    app.include_router(router)
    check(app, "/rooms/blue/chat")
    assert len(seen) == 3


def test_what_get_websocket_is_overridden_with_is_given_types() -> None:
    class Own(fastapi.WebSocketClass):
        pass

    async def own(websocket: StarletteWebSocket) -> fastapi.WebSocketClass:
        made.append(Own.wrap(websocket))
        return made[-1]

    made: list[Own] = []
    app = FastAPI()
    app.dependency_overrides[fastapi.get_websocket] = own

    @app.websocket("/chat")
    async def chat(websocket: fastapi.WebSocket[Say | Leave, Said]) -> None:
        await converse(websocket)
        assert made[0].close_code == 1000

    check(app)
    assert len(made) == 1


def test_exceptions_are_those_of_fastapi() -> None:
    app = FastAPI()
    codes = []

    @app.websocket("/chat")
    async def chat(websocket: fastapi.WebSocket[Say]) -> None:
        await websocket.accept()
        try:
            await websocket.receive_message()
        except StarletteWebSocketDisconnect as left:
            codes.append(left.code)

    with TestClient(app).websocket_connect("/chat") as session:
        session.close(4000)
    assert codes == [4000]


def test_it_is_an_annotated_with_and_without_types() -> None:
    bare: Any = fastapi.WebSocket
    typed: Any = fastapi.WebSocket[Say]
    for annotation, cls in ((bare, fastapi.WebSocketClass), (typed, fastapi.WebSocketClass[Say])):
        assert get_origin(annotation) is Annotated
        assert get_args(annotation)[0] is cls
        assert isinstance(get_args(annotation)[1], params.Depends)

    def handler(websocket: fastapi.WebSocket[Say], other: fastapi.WebSocket) -> None: ...

    hints = get_type_hints(handler)
    assert hints["websocket"] is fastapi.WebSocketClass[Say]
    assert hints["other"] is fastapi.WebSocketClass
    with pytest.raises(TypeError, match="nothing tells"):
        fastapi.WebSocket[Say | dict[str, Any]]


# Others


def test_starlette() -> None:
    async def chat(websocket: starlette.WebSocket) -> None:
        await converse(starlette.WebSocket[Say | Leave, Said].wrap(websocket))

    check(Starlette(routes=[starlette.WebSocketRoute("/chat", chat)]))


def test_starlette_with_its_own_object() -> None:
    from starlette.routing import WebSocketRoute

    async def chat(websocket: StarletteWebSocket) -> None:
        await converse(websockets.WebSocket[Say | Leave, Said].wrap(websocket))

    check(Starlette(routes=[WebSocketRoute("/chat", chat)]))


def test_litestar() -> None:
    @litestar.websocket("/chat")
    async def chat(socket: litestar.WebSocket) -> None:
        await converse(websockets.WebSocket[Say | Leave, Said].wrap(socket))

    check(Litestar([chat]))


def test_litestar_with_its_own_object() -> None:
    @litestar_websocket("/chat")
    async def chat(socket: LitestarWebSocket[Any, Any, Any]) -> None:
        await converse(websockets.WebSocket[Say | Leave, Said].wrap(socket))

    check(Litestar([chat]))


def test_quart() -> None:
    from quart import Quart

    from lilya.websockets import quart

    app = Quart(__name__)
    quart.init_app(app)

    @app.websocket("/chat")
    async def chat() -> None:
        await converse(websockets.WebSocket[Say | Leave, Said].wrap(quart.websocket))

    check(app)


@pytest.mark.skipif(
    importlib.util.find_spec("lilya.apps") is None, reason="Lilya has its environment: nox -s frameworks"
)
def test_lilya() -> None:
    from lilya.apps import Lilya
    from lilya.routing import WebSocketPath

    async def chat(websocket: websockets.WebSocket) -> None:
        await converse(websockets.WebSocket[Say | Leave, Said].wrap(websocket))

    check(Lilya(routes=[WebSocketPath("/chat", chat)]))

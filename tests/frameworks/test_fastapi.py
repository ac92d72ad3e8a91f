"""FastAPI with `lilya.websockets.fastapi`: the import is changed, and everything around it goes on."""

# No `from __future__ import annotations`: FastAPI cannot resolve the names of what a function defines.

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any

import pytest

pytest.importorskip("fastapi", reason="they have an environment of their own: nox -s tests")

import fastapi
from fastapi import (
    APIRouter,
    BackgroundTasks,
    Cookie,
    Depends,
    FastAPI,
    Header,
    HTTPException,
    Path,
    Query,
    Security,
)
from fastapi.requests import HTTPConnection
from fastapi.security import SecurityScopes
from fastapi.testclient import TestClient as FastAPIsClient

import lilya.websockets
from lilya.websockets import WebSocketState
from lilya.websockets.fastapi import (
    WebSocket,
    WebSocketClass,
    WebSocketClosed,
    WebSocketDisconnect,
    get_websocket,
)
from lilya.websockets.testing import TestClient as OurClient

from .running import SERVERS, running

Client = Callable[..., Any]


@pytest.fixture(params=[FastAPIsClient, OurClient], ids=["fastapi", "ours"])
def client(request: pytest.FixtureRequest) -> Client:
    """A test client: FastAPI's own, and this package's."""
    make: Client = request.param
    return make


def said(client: Any, path: str, **options: Any) -> Any:
    """The first message of an app, as JSON."""
    with client.websocket_connect(path, **options) as session:
        return session.receive_json()


# What is injected


def test_ours_is_injected_in_front_of_the_rest_and_behind_it(client: Client) -> None:
    app = FastAPI()

    @app.websocket("/first/{room}")
    async def first(websocket: WebSocket, room: str) -> None:
        assert type(websocket) is WebSocketClass
        await websocket.accept()
        await websocket.send_json(room)

    @app.websocket("/last/{room}")
    async def last(room: str, *, color: str = "red", websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_json([room, color])

    assert said(client(app), "/first/blue") == "blue"
    assert said(client(app), "/last/blue?color=green") == ["blue", "green"]


def test_parameters_of_each_kind(client: Client) -> None:
    app = FastAPI()

    @app.websocket("/rooms/{room}")
    async def rooms(
        websocket: WebSocket,
        room: Annotated[int, Path(ge=1)],
        limit: int,
        x_token: Annotated[str, Header()],
        session: Annotated[str | None, Cookie()] = None,
        tag: Annotated[list[str] | None, Query()] = None,
    ) -> None:
        await websocket.accept()
        await websocket.send_json([room, limit, x_token, session, tag])

    headers = {"x-token": "t", "cookie": "session=s"}
    found = said(client(app), "/rooms/7?limit=2&tag=a&tag=b", headers=headers)
    assert found == [7, 2, "t", "s", ["a", "b"]]


@pytest.mark.parametrize("ws", SERVERS)
def test_an_invalid_parameter_is_refused(ws: str) -> None:
    app = FastAPI()

    @app.websocket("/rooms/{room}")
    async def rooms(websocket: WebSocket, room: int, limit: int) -> None:
        raise AssertionError("not reached")

    with running(app, ws) as server:
        assert server.end_of("/rooms/blue?limit=1") == [403]
        assert server.end_of("/rooms/1") == [403]
        server.settle()
    # uvicorn's default says that whenever an app closes before it accepts.
    assert set(server.log.lines) <= {"ASGI callable returned without completing handshake."}


def test_dependencies_in_either_order(client: Client) -> None:
    app = FastAPI()
    order: list[str] = []

    async def plain(websocket: WebSocket, name: str = "nobody") -> str:
        order.append("plain")
        websocket.state.name = name
        return name

    def in_a_thread(websocket: WebSocket) -> str:
        order.append("thread")
        return str(websocket.url.path)

    async def given_back(websocket: WebSocket) -> AsyncIterator[str]:
        order.append("entered")
        try:
            yield "given"
        finally:
            order.append(f"given back with {websocket.close_code}")

    Plain = Annotated[str, Depends(plain)]
    Path_ = Annotated[str, Depends(in_a_thread)]
    Given = Annotated[str, Depends(given_back)]

    @app.websocket("/before")
    async def before(name: Plain, path: Path_, given: Given, websocket: WebSocket) -> None:
        async with websocket:
            await websocket.send_json([name, path, given, websocket.state.name])
        order.append("handler")

    @app.websocket("/after")
    async def after(websocket: WebSocket, given: Given, path: Path_, name: Plain) -> None:
        async with websocket:
            await websocket.send_json([name, path, given, websocket.state.name])
        order.append("handler")

    assert said(client(app), "/before?name=ann") == ["ann", "/before", "given", "ann"]
    assert order == ["plain", "thread", "entered", "handler", "given back with 1000"]
    order.clear()
    assert said(client(app), "/after?name=bob") == ["bob", "/after", "given", "bob"]
    assert order == ["entered", "thread", "plain", "handler", "given back with 1000"]


def test_security_with_scopes(client: Client) -> None:
    app = FastAPI()

    async def user(scopes: SecurityScopes, websocket: WebSocket) -> str:
        if websocket.query_params.get("token") != "secret":
            raise HTTPException(401, "who are you?", {"www-authenticate": "Bearer"})
        if "write" in scopes.scopes and "write" not in websocket.query_params:
            raise HTTPException(403)
        return "ann"

    @app.websocket("/")
    async def handler(websocket: WebSocket, name: Annotated[str, Security(user, scopes=["write"])]) -> None:
        await websocket.accept()
        await websocket.send_json(name)

    assert said(client(app), "/?token=secret&write=1") == "ann"
    for query, status in (("", 401), ("token=secret", 403)):
        with OurClient(app) as ours, pytest.raises(lilya.websockets.WebSocketDisconnect) as refused:
            ours.websocket_connect(f"/?{query}").__enter__()
        assert refused.value.status_code == status  # type: ignore[attr-defined]


def test_one_key_overrides_it(client: Client) -> None:
    app = FastAPI()

    class Loud(WebSocketClass):
        async def send_text(self, data: str, timeout: float | None = None) -> None:
            await super().send_text(data.upper(), timeout)

    async def loud(websocket: fastapi.WebSocket) -> WebSocketClass:
        return Loud.wrap(websocket)

    async def greeting(websocket: WebSocket) -> str:
        return type(websocket).__name__

    @app.websocket("/")
    async def handler(websocket: WebSocket, kind: Annotated[str, Depends(greeting)]) -> None:
        await websocket.accept()
        await websocket.send_text(kind)

    def kind() -> str:
        with client(app).websocket_connect("/") as session:
            return str(session.receive_text())

    assert kind() == "WebSocket"
    app.dependency_overrides[get_websocket] = loud
    assert kind() == "LOUD"
    app.dependency_overrides.clear()
    assert kind() == "WebSocket"


def test_routers_and_their_dependencies(client: Client) -> None:
    app = FastAPI()
    inner, outer = APIRouter(prefix="/inner"), APIRouter(prefix="/outer", tags=["outer"])
    seen: list[bool] = []

    async def check(websocket: WebSocket) -> None:
        seen.append(websocket.application_state is WebSocketState.CONNECTING)

    @inner.websocket("/{room}", name="room")
    async def handler(websocket: WebSocket, room: str) -> None:
        await websocket.accept()
        await websocket.send_json([room, str(websocket.url_path_for("room", room="x").path)])

    outer.include_router(inner, dependencies=[Depends(check)])
    app.include_router(outer, prefix="/api", dependencies=[Depends(check)])
    assert said(client(app), "/api/outer/inner/blue") == ["blue", "/api/outer/inner/x"]
    assert seen == [True]  # FastAPI calls a dependency once for each connection


def test_mounted_apps(client: Client) -> None:
    app, mounted = FastAPI(), FastAPI()

    @mounted.websocket("/rooms/{room}")
    async def handler(websocket: WebSocket, theirs: fastapi.WebSocket, room: str) -> None:
        await websocket.accept()
        await websocket.send_json([room, websocket.app is mounted, websocket.url == str(theirs.url)])

    app.mount("/sub", mounted)
    assert said(client(app), "/sub/rooms/blue") == ["blue", True, True]


def test_middleware_and_sessions(client: Client) -> None:
    pytest.importorskip("itsdangerous")
    from starlette.middleware.sessions import SessionMiddleware

    app = FastAPI()
    passed: list[str] = []

    class Noting:
        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            async def noted(message: Any) -> None:
                passed.append(message["type"])
                await send(message)

            await self.app(scope, receive, noted)

    app.add_middleware(Noting)
    app.add_middleware(SessionMiddleware, secret_key="s")

    @app.middleware("http")
    async def of_http(request: Any, call_next: Any) -> Any:
        raise AssertionError("not for WebSockets")

    @app.websocket("/")
    async def handler(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_json(websocket.session)
        await websocket.close()

    assert said(client(app), "/") == {}
    assert passed == ["websocket.accept", "websocket.send", "websocket.close"]


def test_background_tasks_are_injected(client: Client) -> None:
    app = FastAPI()

    @app.websocket("/")
    async def handler(websocket: WebSocket, tasks: BackgroundTasks) -> None:
        await websocket.accept()
        await websocket.send_json(len(tasks.tasks))

    assert said(client(app), "/") == 0


def test_the_state_of_the_lifespan(client: Client) -> None:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, str]]:
        yield {"pool": "a pool"}

    app = FastAPI(lifespan=lifespan)

    @app.websocket("/")
    async def handler(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_json(websocket.state.pool)

    with client(app) as started:
        assert said(started, "/") == "a pool"


# One state


@pytest.mark.parametrize("accepts", ["theirs", "ours", "connection"])
def test_frameworks_object_and_ours_are_one(accepts: str, client: Client) -> None:
    app = FastAPI()

    async def accepted(
        theirs: fastapi.WebSocket, ours: WebSocket, connection: HTTPConnection
    ) -> fastapi.WebSocket:
        assert connection is theirs
        if accepts == "connection":  # before there is one of ours
            pass
        await (ours if accepts == "ours" else theirs).accept()
        return theirs

    @app.websocket("/")
    async def handler(
        theirs: Annotated[fastapi.WebSocket, Depends(accepted)], again: fastapi.WebSocket, ours: WebSocket
    ) -> None:
        assert again is theirs
        for one in (theirs, ours):
            assert (one.client_state.name, one.application_state.name) == ("CONNECTED", "CONNECTED")
        await ours.send_text(await theirs.receive_text())
        await theirs.send_text(await ours.receive_text())
        with pytest.raises(WebSocketDisconnect):
            await ours.receive_text()
        for one in (theirs, ours):
            assert one.client_state.name == "DISCONNECTED"
        assert ours.close_code == 4001
        await theirs.close()

    with client(app).websocket_connect("/") as session:
        session.send_text("a")
        session.send_text("b")
        assert [session.receive_text(), session.receive_text()] == ["a", "b"]
        session.close(4001)


def test_theirs_accepts_before_there_is_one_of_ours(client: Client) -> None:
    app = FastAPI()

    async def accepted(websocket: fastapi.WebSocket) -> None:
        await websocket.accept(subprotocol="chat")

    @app.websocket("/", dependencies=[Depends(accepted)])
    async def handler(websocket: WebSocket) -> None:
        with pytest.raises(lilya.websockets.WebSocketRuntimeError, match="already accepted"):
            await websocket.accept()
        await websocket.send_json("here")

    assert said(client(app), "/", subprotocols=["chat"]) == "here"


def test_what_theirs_does_ours_has_recorded(client: Client) -> None:
    app = FastAPI()
    ran: list[str] = []

    @app.websocket("/")
    async def handler(theirs: fastapi.WebSocket, ours: WebSocket) -> None:
        ours.add_cleanup(lambda: ran.append("cleaned"))
        await theirs.accept(subprotocol="chat")
        assert ours.accepted_subprotocol == "chat"
        await theirs.close(4002, "so long")
        assert (ours.close_code, ours.close_reason, ours.closed_by) == (4002, "so long", "server")
        with pytest.raises(WebSocketClosed):
            await ours.send_text("anybody?")
        ran.append("handler")

    with client(app).websocket_connect("/", subprotocols=["chat"]) as session:
        assert session.receive() == {"type": "websocket.close", "code": 4002, "reason": "so long"}
    assert ran == ["cleaned", "handler"]


def test_a_denial_by_theirs(client: Client) -> None:
    app = FastAPI()

    @app.websocket("/")
    async def handler(theirs: fastapi.WebSocket, ours: WebSocket) -> None:
        await theirs.send_denial_response(fastapi.Response(status_code=418))
        with pytest.raises(WebSocketClosed):
            await ours.accept()

    with pytest.raises(Exception) as refused:  # noqa: PT011 - each client has a class of its own
        client(app).websocket_connect("/").__enter__()
    assert refused.value.status_code == 418  # type: ignore[attr-defined]


def test_two_dependencies_that_share_no_object_share_the_state(client: Client) -> None:
    app = FastAPI()

    class Mine(lilya.websockets.WebSocket):
        pass

    async def mine(websocket: fastapi.WebSocket) -> Mine:
        return Mine.wrap(websocket)

    fresh = Annotated[WebSocketClass, Depends(get_websocket, use_cache=False)]

    @app.websocket("/")
    async def handler(one: WebSocket, two: fresh, three: Annotated[Mine, Depends(mine)]) -> None:
        assert one is two
        assert isinstance(three, Mine)
        await three.accept()
        assert one.application_state is WebSocketState.CONNECTED
        await one.send_json("here")
        await three.close(4003)
        assert one.close_code == 4003

    assert said(client(app), "/") == "here"


def test_a_block_and_their_object(client: Client) -> None:
    """In a block what the framework's object receives is what waits there, in order."""
    app = FastAPI()

    @app.websocket("/")
    async def handler(theirs: fastapi.WebSocket, ours: WebSocket) -> None:
        async with ours:
            await theirs.send_json([await theirs.receive_text(), await ours.receive_text()])

    with client(app).websocket_connect("/") as session:
        session.send_text("a")
        session.send_text("b")
        assert session.receive_json() == ["a", "b"]


# Exceptions


def test_the_exceptions_are_both() -> None:
    for ours, theirs in (
        (WebSocketDisconnect, fastapi.WebSocketDisconnect),
        (WebSocketDisconnect, lilya.websockets.WebSocketDisconnect),
        (WebSocketClosed, fastapi.WebSocketDisconnect),
        (WebSocketClosed, lilya.websockets.WebSocketClosed),
        (WebSocketClosed, RuntimeError),
    ):
        assert issubclass(ours, theirs)
    error = WebSocketDisconnect(4000, "why")
    assert (error.code, error.reason) == (4000, "why")
    assert "4000" in str(error)
    closed = WebSocketClosed(4000, None, "send text", "the client closed it")
    assert (closed.code, closed.reason) == (4000, "")
    assert str(closed).startswith("cannot send text any longer")


@pytest.mark.parametrize("catches", [fastapi.WebSocketDisconnect, lilya.websockets.WebSocketDisconnect])
@pytest.mark.parametrize("ws", SERVERS)
def test_the_manager_of_the_tutorial_forgets_who_leaves(ws: str, catches: type[Exception]) -> None:
    app = FastAPI()
    active: list[WebSocketClass] = []
    codes: list[int] = []

    @app.websocket("/")
    async def handler(websocket: WebSocket) -> None:
        await websocket.accept()
        active.append(websocket)
        try:
            while True:
                await websocket.receive_text()
        except catches as left:
            codes.append(left.code)  # type: ignore[attr-defined]
            active.remove(websocket)

    with running(app, ws) as server:
        for _ in range(5):
            with server.connect("/") as session:
                session.send("hello")
                session.close(4001)
        server.settle()
    assert (active, codes, server.log.lines) == ([], [4001] * 5, [])


def test_handlers_of_exceptions(client: Client) -> None:
    app = FastAPI()
    handled: list[str] = []

    class Full(Exception):
        pass

    @app.exception_handler(fastapi.WebSocketDisconnect)
    async def of_leaving(websocket: fastapi.WebSocket, error: Any) -> None:
        handled.append(f"left with {error.code}")

    @app.exception_handler(Full)
    async def of_mine(websocket: fastapi.WebSocket, error: Exception) -> None:
        handled.append("full")
        await websocket.close(4013)

    @app.websocket("/leave")
    async def leave(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.receive_text()

    @app.websocket("/full")
    async def full(websocket: WebSocket) -> None:
        await websocket.accept()
        raise Full

    @app.websocket("/block")
    async def block(websocket: WebSocket) -> None:
        async with websocket:
            raise Full

    with client(app).websocket_connect("/leave") as session:
        session.close(4001)
    with client(app).websocket_connect("/full") as session:
        assert session.receive()["code"] == 4013
    with client(app).websocket_connect("/block") as session:
        assert session.receive()["code"] == 1011  # the block's; the handler's close is no second end
    assert handled == ["left with 4001", "full", "full"]


# What wraps FastAPI


def test_fastapis_own_telemetry(client: Client) -> None:
    pytest.importorskip("opentelemetry.sdk")
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    spans = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    options: Any = {"telemetry": {"tracer_provider": provider}}
    app = FastAPI(**options)

    @app.websocket("/rooms/{room}")
    async def handler(websocket: WebSocket, room: str) -> None:
        async with websocket:
            await websocket.send_json(room)

    assert said(client(app), "/rooms/blue") == "blue"
    finished = spans.get_finished_spans()
    assert "fastapi.endpoint" in {span.name for span in finished}
    assert all(span.status.is_unset for span in finished)


def test_opentelemetrys_instrumentation(client: Client) -> None:
    pytest.importorskip("opentelemetry.instrumentation.fastapi")
    from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    spans = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    app = FastAPI()

    @app.websocket("/rooms/{room}")
    async def handler(websocket: WebSocket, room: str) -> None:
        async with websocket:
            await websocket.send_json(await websocket.receive_text())

    FastAPIInstrumentor.instrument_app(app, tracer_provider=provider)
    with client(app).websocket_connect("/rooms/blue") as session:
        session.send_text("hello")
        assert session.receive_json() == "hello"
    finished = spans.get_finished_spans()
    assert any("websocket receive" in span.name or "websocket send" in span.name for span in finished)
    assert all(not span.events for span in finished)  # no exception was recorded


def test_sentrys_wrapper(client: Client) -> None:
    sentry_sdk = pytest.importorskip("sentry_sdk")
    from sentry_sdk.integrations.asgi import SentryAsgiMiddleware

    reported: list[Any] = []

    def before_send(event: Any, hint: Any) -> Any:
        reported.append(hint["exc_info"][1])

    sentry_sdk.init(
        dsn="http://key@127.0.0.1:9/1",
        before_send=before_send,
        default_integrations=False,
        auto_enabling_integrations=False,
    )
    try:
        app = FastAPI()

        @app.websocket("/{what}")
        async def handler(websocket: WebSocket, what: str) -> None:
            async with websocket:
                await websocket.send_json(await websocket.receive_text())
                if what == "fail":
                    raise ValueError(what)

        wrapped = client(SentryAsgiMiddleware(app))
        with wrapped.websocket_connect("/good") as session:
            session.send_text("hello")
            assert session.receive_json() == "hello"
        assert reported == []
        with (
            pytest.raises(ValueError, match="fail"),
            wrapped.websocket_connect("/fail") as session,
        ):
            session.send_text("hello")
            assert session.receive_json() == "hello"
            session.receive_text()
        assert [str(error) for error in reported] == ["fail"]
    finally:
        sentry_sdk.init(default_integrations=False, auto_enabling_integrations=False)


# What FastAPI cannot resolve


def test_an_annotation_that_cannot_be_resolved() -> None:
    """The page says what is seen then."""
    from .unresolved import app

    with running(app) as server:
        assert server.end_of("/") == [403]

"""Everything in Lilya that touches a WebSocket, on this package."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from lilya.apps import ChildLilya, Lilya
from lilya.authentication import AuthCredentials, AuthenticationBackend, BasicUser, requires
from lilya.context import g
from lilya.controllers import WebSocketController
from lilya.dependencies import Provide, Provides, Resolve
from lilya.exceptions import AuthenticationError, NotAuthorized, WebSocketException
from lilya.exceptions import WebSocketRuntimeError as LilyaRuntimeError
from lilya.middleware import DefineMiddleware
from lilya.middleware.authentication import AuthenticationMiddleware
from lilya.middleware.global_context import GlobalContextMiddleware
from lilya.middleware.sessions import SessionMiddleware
from lilya.permissions import DefinePermission
from lilya.protocols.middleware import MiddlewareProtocol
from lilya.protocols.permissions import PermissionProtocol
from lilya.responses import PlainText
from lilya.routing import Include, Router, WebSocketPath

import lilya.websockets
from lilya.websockets import (
    WebSocket,
    WebSocketClosed,
    WebSocketDataError,
    WebSocketDisconnect,
    WebSocketRuntimeError,
)
from lilya.websockets.testing import WebSocketDenialResponse

Connect = Callable[..., Any]


async def echo(websocket: WebSocket) -> None:
    await websocket.accept()
    async for text in websocket.iter_text():
        await websocket.send_text(f"You said: {text}")


# In effect


def test_it_is_in_effect() -> None:
    place = Path(lilya.websockets.__file__)
    assert (place.name, place.parent.name) == ("__init__.py", "websockets")
    assert "site-packages" in place.parts
    assert (place.parents[1] / "websockets.py").is_file(), "Lilya's own lies beside it"
    assert "WebSocketDataError" in lilya.websockets.__all__


def test_lilya_runs_on_it() -> None:
    import lilya.controllers
    import lilya.dependencies
    import lilya.middleware.exceptions
    import lilya.routing
    import lilya.testclient

    for module in (lilya.controllers, lilya.dependencies, lilya.middleware.exceptions, lilya.routing):
        assert module.WebSocket is WebSocket
    assert lilya.testclient.WebSocketDisconnect is WebSocketDisconnect


def test_the_exceptions_are_one() -> None:
    assert WebSocketRuntimeError is LilyaRuntimeError
    assert issubclass(WebSocketClosed, LilyaRuntimeError)


# Routes


def test_a_route(connect: Connect) -> None:
    app = Lilya(routes=[WebSocketPath("/echo", echo)])
    with connect(app, "/echo") as session:
        for text in ("one", "two"):
            session.send_text(text)
            assert session.receive_text() == f"You said: {text}"


def test_a_decorated_route(connect: Connect) -> None:
    app = Lilya()
    app.websocket("/echo")(echo)
    app.add_websocket_route("/added", echo)
    for path in ("/echo", "/added"):
        with connect(app, path) as session:
            session.send_text("hello")
            assert session.receive_text() == "You said: hello"


@pytest.mark.parametrize("kind", ["include", "child", "router", "nested"])
def test_included_routes(kind: str, connect: Connect) -> None:
    routes = [WebSocketPath("/echo", echo)]
    included = {
        "include": lambda: Include("/in", routes=routes),
        "child": lambda: Include("/in", app=ChildLilya(routes=routes)),
        "router": lambda: Include("/in", app=Router(routes=routes)),
        "nested": lambda: Include("/", routes=[Include("/in", routes=routes)]),
    }[kind]()
    with connect(Lilya(routes=[included]), "/in/echo") as session:
        session.send_text("hello")
        assert session.receive_text() == "You said: hello"


def test_path_parameters(connect: Connect) -> None:
    async def tell(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_json([websocket.path_params, websocket.query_params["page"]])
        await websocket.close()

    app = Lilya(routes=[Include("/rooms/{room}", routes=[WebSocketPath("/{number:int}", tell)])])
    with connect(app, "/rooms/blue/7?page=2") as session:
        assert session.receive_json() == [{"room": "blue", "number": 7}, "2"]


def test_path_for(connect: Connect) -> None:
    async def tell(websocket: WebSocket) -> None:
        await websocket.accept()
        for make in (websocket.path_for, websocket.url_path_for):
            url = make("room", room="blue")
            await websocket.send_text(f"{url} {url.path}")
        await websocket.close()

    routes = [WebSocketPath("/tell", tell), WebSocketPath("/rooms/{room}", echo, name="room")]
    with connect(Lilya(routes=routes), "/tell") as session:
        for _ in range(2):
            url, path = session.receive_text().split()
            assert path == "/rooms/blue"
            assert url.startswith("ws://")
            assert url.endswith("/rooms/blue")


def test_subprotocols_and_headers(connect: Connect) -> None:
    async def agree(websocket: WebSocket) -> None:
        await websocket.accept("chat", headers={"X-Room": websocket.headers["x-room"]})
        await websocket.close()

    app = Lilya(routes=[WebSocketPath("/", agree)])
    with connect(app, "/", ["news", "chat"], headers={"x-room": "blue"}) as session:
        assert session.accepted_subprotocol == "chat"


def test_hooks_around_a_route(connect: Connect) -> None:
    seen: list[Any] = []

    async def before(scope: Any, receive: Any, send: Any) -> None:
        seen.append(WebSocket(scope, receive, send).path_params)

    async def after(scope: Any, receive: Any, send: Any) -> None:
        seen.append("after")

    app = Lilya(routes=[WebSocketPath("/{room}", echo, before_request=[before], after_request=[after])])
    with connect(app, "/blue") as session:
        session.send_text("hello")
        assert session.receive_text() == "You said: hello"
    assert seen == [{"room": "blue"}, "after"]


# Controllers


@pytest.mark.parametrize(
    ("encoding", "kind", "sent", "received"),
    [("text", "text", "a", "a"), ("bytes", "bytes", b"a", b"a"), ("json", "json", {"a": 1}, {"a": 1})],
)
def test_a_controller(encoding: str, kind: str, sent: Any, received: Any, connect: Connect) -> None:
    ended = []

    class Echo(WebSocketController):
        async def on_receive(self, websocket: WebSocket, data: Any) -> None:
            await getattr(websocket, f"send_{kind}")(data)

        async def on_disconnect(self, websocket: WebSocket, close_code: int) -> None:
            ended.append((close_code, websocket.close_code))

    Echo.encoding = encoding
    with connect(Lilya(routes=[WebSocketPath("/", Echo)]), "/") as session:
        getattr(session, f"send_{kind}")(sent)
        assert getattr(session, f"receive_{kind}")() == received
        session.close(1001)
    assert ended == [(1001, 1001)]


# Dependencies


def test_dependencies(connect: Connect) -> None:
    async def name() -> str:
        return "blue"

    async def greeting(name: str) -> str:
        return f"Hello, {name}!"

    async def tell(websocket: WebSocket, greeting: str = Provides()) -> None:
        await websocket.accept()
        await websocket.send_text(greeting)
        await websocket.close()

    given = {"name": Provide(name), "greeting": Provide(greeting)}
    for app in (
        Lilya(routes=[WebSocketPath("/", tell, dependencies=given)]),
        Lilya(routes=[WebSocketPath("/", tell)], dependencies=given),
        Lilya(routes=[Include("/", routes=[WebSocketPath("/", tell)], dependencies=given)]),
    ):
        with connect(app, "/") as session:
            assert session.receive_text() == "Hello, blue!"


def test_a_resolved_dependency(connect: Connect) -> None:
    async def greeting() -> str:
        return "Hello!"

    async def tell(websocket: WebSocket, greeting: str = Resolve(greeting)) -> None:
        await websocket.accept()
        await websocket.send_text(greeting)
        await websocket.close()

    with connect(Lilya(routes=[WebSocketPath("/", tell)]), "/") as session:
        assert session.receive_text() == "Hello!"


class Pool:
    """Hands out sessions, and takes them back."""

    def __init__(self) -> None:
        self.log: list[str] = []

    def session(self) -> Iterator[str]:
        self.log.append("opened")
        try:
            yield "session"
        finally:
            self.log.append("given back")

    async def later(self) -> Any:
        self.log.append("opened later")
        try:
            yield "later"
        finally:
            self.log.append("given back later")


END = ["closed by the app", "closed by the client", "denied", "exception with a handler"]


@pytest.mark.parametrize("end", END)
def test_the_cleanup_of_a_generator_runs_at_the_end(end: str, connect: Connect) -> None:
    pool = Pool()

    async def work(websocket: WebSocket, session: str = Provides(), later: str = Provides()) -> None:
        if end == "denied":
            await websocket.close()
        else:
            await websocket.accept()
            if end == "closed by the app":
                await websocket.close()
            elif end == "closed by the client":
                async for _ in websocket.iter_text():
                    pass
            else:
                raise WebSocketException(code=4000, reason="so long")
        pool.log.append("handler ended")

    async def on_error(websocket: WebSocket, error: Any) -> None:
        await websocket.close(error.code, error.reason)
        pool.log.append("handler ended")

    app = Lilya(
        routes=[
            WebSocketPath(
                "/", work, dependencies={"session": Provide(pool.session), "later": Provide(pool.later)}
            )
        ],
        exception_handlers={WebSocketException: on_error},
    )
    if end == "denied":
        with pytest.raises(WebSocketDisconnect), connect(app, "/"):
            raise AssertionError("not reached")
    else:
        with connect(app, "/") as session:
            if end == "closed by the client":
                session.close()
            else:
                with pytest.raises(WebSocketDisconnect):
                    session.receive_text()
    assert pool.log == ["opened", "opened later", "given back", "given back later", "handler ended"]


def test_a_dependency_that_keeps_its_websocket(connect: Connect) -> None:
    class Notifier:
        def __init__(self, websocket: WebSocket) -> None:
            self.websocket = websocket

        async def notify(self, text: str) -> None:
            await self.websocket.send_text(text)

    async def notifier(request: WebSocket) -> Notifier:
        return Notifier(request)

    async def work(websocket: WebSocket, notifier: Notifier = Provides()) -> None:
        await websocket.accept()
        assert notifier.websocket is not websocket
        await notifier.notify("from the dependency")
        await websocket.close(4000, "done")
        assert notifier.websocket.close_code == 4000

    app = Lilya(routes=[WebSocketPath("/", work, dependencies={"notifier": Provide(notifier)})])
    with connect(app, "/") as session:
        assert session.receive_text() == "from the dependency"
        with pytest.raises(WebSocketDisconnect):
            session.receive_text()


def test_a_dependency_that_accepts(connect: Connect) -> None:
    async def login(request: WebSocket) -> str:
        await request.accept()
        return await request.receive_text()

    async def work(websocket: WebSocket, user: str = Provides()) -> None:
        with pytest.raises(WebSocketRuntimeError):
            await websocket.accept()
        await websocket.send_text(f"Hello, {user}!")
        await websocket.close()

    app = Lilya(routes=[WebSocketPath("/", work, dependencies={"user": Provide(login)})])
    with connect(app, "/") as session:
        session.send_text("Ada")
        assert session.receive_text() == "Hello, Ada!"


def test_a_missing_dependency(connect: Connect) -> None:
    async def work(websocket: WebSocket, user: str = Provides()) -> None:
        raise AssertionError("not reached")

    app = Lilya(routes=[WebSocketPath("/", work)])
    with pytest.raises(WebSocketDisconnect) as caught, connect(app, "/"):
        raise AssertionError("not reached")
    assert caught.value.code == 1011


# Permissions


class Key(PermissionProtocol):
    def __init__(self, app: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(app, *args, **kwargs)
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        websocket = WebSocket(scope, receive, send)
        if websocket.headers.get("x-key") == "right":
            await self.app(scope, receive, send)
        elif websocket.headers.get("x-key") == "wrong":
            await websocket.close(4003)
        else:
            raise NotAuthorized()


@pytest.mark.parametrize("level", ["route", "include", "app"])
def test_permissions(level: str, connect: Connect) -> None:
    key = {"permissions": [DefinePermission(Key)]}
    route = WebSocketPath("/", echo, **(key if level == "route" else {}))
    include = Include("/", routes=[route], **(key if level == "include" else {}))
    app = Lilya(routes=[include], **(key if level == "app" else {}))
    with connect(app, "/", headers={"x-key": "right"}) as session:
        session.send_text("hello")
        assert session.receive_text() == "You said: hello"
    with pytest.raises(WebSocketDisconnect), connect(app, "/", headers={"x-key": "wrong"}):
        raise AssertionError("not reached")


# Middleware


def test_a_middleware_that_makes_a_websocket(connect: Connect) -> None:
    sent = []

    class Counting(MiddlewareProtocol):
        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] != "websocket":
                await self.app(scope, receive, send)
                return
            websocket = WebSocket(scope, receive, send)

            async def counting(message: Any) -> None:
                sent.append(message["type"])
                await send(message)

            await self.app(scope, receive, counting)
            assert dict(websocket) == scope

    for app in (
        Lilya(routes=[WebSocketPath("/", echo)], middleware=[DefineMiddleware(Counting)]),
        Lilya(routes=[WebSocketPath("/", echo, middleware=[DefineMiddleware(Counting)])]),
    ):
        sent.clear()
        with connect(app, "/") as session:
            session.send_text("hello")
            assert session.receive_text() == "You said: hello"
        assert sent == ["websocket.accept", "websocket.send"]


def test_exception_handlers(connect: Connect) -> None:
    seen = []

    async def on_data_error(websocket: WebSocket, error: WebSocketDataError) -> None:
        seen.append(error.message["bytes"])
        await websocket.close(1003)

    async def strict(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.receive_text()

    handlers = {WebSocketDataError: on_data_error}
    for app in (
        Lilya(routes=[WebSocketPath("/", strict)], exception_handlers=handlers),
        Lilya(routes=[Include("/", routes=[WebSocketPath("/", strict)])], exception_handlers=handlers),
    ):
        with connect(app, "/") as session:
            session.send_bytes(b"\0")
            with pytest.raises(WebSocketDisconnect) as caught:
                session.receive_text()
        assert caught.value.code == 1003
        assert seen.pop() == b"\0"


def test_a_websocket_exception(connect: Connect) -> None:
    async def refuse(websocket: WebSocket) -> None:
        await websocket.accept()
        raise WebSocketException(code=1008, reason="policy violation")

    with connect(Lilya(routes=[WebSocketPath("/", refuse)]), "/") as session:
        with pytest.raises(WebSocketDisconnect) as caught:
            session.receive_text()
        assert (caught.value.code, caught.value.reason) == (1008, "policy violation")


class Backend(AuthenticationBackend):
    async def authenticate(self, connection: Any, /, **kwargs: Any) -> Any:
        name = connection.headers.get("x-user")
        if name == "nobody":
            raise AuthenticationError("nobody is nobody")
        return (AuthCredentials(["chat"]), BasicUser(name)) if name else None


def test_authentication(connect: Connect) -> None:
    async def tell(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_json([websocket.user.display_name, websocket.auth.scopes])
        await websocket.close()

    @requires("chat")
    async def members(websocket: WebSocket) -> None:
        await tell(websocket)

    app = Lilya(
        routes=[WebSocketPath("/", tell), WebSocketPath("/members", members)],
        middleware=[DefineMiddleware(AuthenticationMiddleware, backend=Backend())],
    )
    for path in ("/", "/members"):
        with connect(app, path, headers={"x-user": "Ada"}) as session:
            assert session.receive_json() == ["Ada", ["chat"]]
    with connect(app, "/") as session:
        assert session.receive_json() == ["", []]
    with pytest.raises(WebSocketDisconnect), connect(app, "/", headers={"x-user": "nobody"}):
        raise AssertionError("not reached")


def test_sessions(connect: Connect) -> None:
    async def count(websocket: WebSocket) -> None:
        websocket.session["visits"] = websocket.session.get("visits", 0) + 1
        await websocket.accept()
        await websocket.send_json(websocket.session)
        websocket.set_session({"visits": 7})
        await websocket.send_json(websocket.session)
        websocket.clear_session()
        await websocket.send_json(websocket.session)
        await websocket.close()

    app = Lilya(
        routes=[WebSocketPath("/", count)],
        middleware=[DefineMiddleware(SessionMiddleware, secret_key="a key for tests only")],
    )
    with connect(app, "/") as session:
        assert [session.receive_json() for _ in range(3)] == [{"visits": 1}, {"visits": 7}, None]


def test_the_global_context(connect: Connect) -> None:
    async def tell(websocket: WebSocket) -> None:
        g.room = "blue"
        await websocket.accept()
        await websocket.send_text(g.room)
        await websocket.close()

    app = Lilya(routes=[WebSocketPath("/", tell)], middleware=[DefineMiddleware(GlobalContextMiddleware)])
    with connect(app, "/") as session:
        assert session.receive_text() == "blue"


# What this package adds, under Lilya


def test_a_denial_with_lilyas_response() -> None:
    async def deny(websocket: WebSocket) -> None:
        await websocket.send_denial_response(PlainText("no", status_code=401))

    from .conftest import with_ours

    with (
        pytest.raises(WebSocketDenialResponse) as caught,
        with_ours(Lilya(routes=[WebSocketPath("/", deny)])),
    ):
        raise AssertionError("not reached")
    assert (caught.value.status_code, caught.value.content) == (401, b"no")


def test_the_constructor_is_lilyas() -> None:
    assert list(inspect.signature(WebSocket).parameters) == ["scope", "receive", "send"]

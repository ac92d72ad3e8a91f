"""The AsyncAPI document of apps of FastAPI, Litestar and Lilya."""

# No `from __future__ import annotations`: FastAPI could not resolve what is local to a test.

import importlib.util
import json
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field

from lilya import websockets
from lilya.websockets.asyncapi import AsyncAPI, describe
from lilya.websockets.testing import unguarded_routes

if importlib.util.find_spec("litestar") is None:
    pytest.skip("they have an environment of their own: nox -s frameworks", allow_module_level=True)

from fastapi import APIRouter, Cookie, Depends, FastAPI, Header, Path, Query, Security
from fastapi.security import APIKeyCookie, APIKeyQuery, HTTPBearer, OAuth2PasswordBearer, OpenIdConnect
from litestar import Controller, Litestar, Router, asgi, get
from litestar.di import NamedDependency, Provide
from litestar.openapi import OpenAPIConfig
from litestar.openapi.spec import Components, Reference, SecurityScheme
from litestar.params import (
    CookieParameter,
    FromQuery,
    HeaderParameter,
    Parameter,
    PathParameter,
    QueryParameter,
)

from lilya.websockets import fastapi, litestar
from tests.lilya_websockets.documents import problems


class Say(BaseModel):
    type: Literal["say"]
    text: str


class Said(BaseModel):
    type: Literal["said"]
    text: str


def made(app: Any, **options: Any) -> dict[str, Any]:
    """The document, in which nothing is wrong."""
    document = AsyncAPI(app, **options).document
    assert problems(document) == []
    return document


# FastAPI


async def chat(websocket: fastapi.WebSocket[Say, Said]) -> None:
    """Talk."""


def test_fastapi() -> None:
    app = FastAPI(
        title="Chat",
        version="7",
        description="Talk.",
        servers=[{"url": "/v1"}, {"url": "https://example.com/v1", "description": "Main."}],
    )
    app.get("/")(lambda: None)
    app.websocket("/chat")(chat)
    document = made(app)
    assert document["info"] == {"title": "Chat", "version": "7", "description": "Talk."}
    assert document["servers"] == {
        "server1": {"host": "example.com", "protocol": "wss", "pathname": "/v1", "description": "Main."}
    }
    assert list(document["channels"]) == ["chat"]
    assert document["channels"]["chat"]["description"] == "Talk."
    assert document["operations"].keys() == {"receive_chat", "send_chat"}
    assert made(app, title="Mine", description="", servers={})["info"] == {"title": "Mine", "version": "7"}
    assert "servers" not in made(app, servers={})


def test_routers_of_fastapi() -> None:
    inner = APIRouter(prefix="/rooms", tags=["rooms"], deprecated=True)
    inner.websocket("/{room}")(chat)
    outer = APIRouter(prefix="/outer", tags=["outer"])
    outer.include_router(inner, tags=["included"])
    hidden = APIRouter(include_in_schema=False)
    hidden.websocket("/hidden")(chat)
    app = FastAPI()
    app.include_router(outer, prefix="/v1")
    app.include_router(hidden)
    app.include_router(inner, include_in_schema=False)
    sub = FastAPI(title="Sub")
    sub.websocket("/{room:path}")(chat)
    app.mount("/sub", sub)
    document = made(app)
    channels = document["channels"]
    assert [each["address"] for each in channels.values()] == ["/v1/outer/rooms/{room}", "/sub/{room}"]
    assert channels["v1_outer_rooms_room"]["tags"] == [
        {"name": "outer"},
        {"name": "rooms"},
        {"name": "included"},
        {"name": "deprecated"},
    ]
    assert channels["sub_room"]["parameters"] == {"room": {"description": "May contain slashes."}}


class Filter(BaseModel):
    since: int = 0


class Hints(BaseModel):
    x_color: str = "red"
    other: Annotated[str, Field(alias="x_other")] = ""


class Needed(Hints):
    x_token: str


def test_parameters_of_fastapi() -> None:
    def number(size: Annotated[int, Query(description="How many.", ge=1)] = 5) -> int:
        return size

    app = FastAPI()

    @app.websocket("/rooms/{room}/{item}")
    async def rooms(
        websocket: fastapi.WebSocket[Say, Said],
        room: Annotated[Literal["blue", "red"], Path(description="Which.", examples=["blue"])],
        item: int,
        size: Annotated[int, Depends(number)],
        x_token: Annotated[str, Header()],
        name: str | None = None,
        session: Annotated[str, Cookie()] = "",
        secret: Annotated[str, Query(include_in_schema=False)] = "",
    ) -> None: ...

    @app.websocket("/files/{path:path}")
    async def files(
        websocket: fastapi.WebSocket[Say], path: Annotated[str, Path(description="Which file.")]
    ) -> None: ...

    @app.websocket("/filtered")
    async def filtered(websocket: fastapi.WebSocket[Say], by: Annotated[Filter, Query()]) -> None: ...

    @app.websocket("/hinted")
    async def hinted(websocket: fastapi.WebSocket[Say], by: Annotated[Hints, Header()]) -> None: ...

    @app.websocket("/needed")
    async def needed(websocket: fastapi.WebSocket[Say], by: Annotated[Needed, Header()]) -> None: ...

    document = made(app)
    channel = document["channels"]["rooms_room_item"]
    assert channel["parameters"] == {
        "room": {"description": "Which.", "enum": ["blue", "red"], "examples": ["blue"]},
        "item": {"description": "An integer."},
    }
    assert document["channels"]["files_path"]["parameters"] == {
        "path": {"description": "Which file. May contain slashes."}
    }
    binding = channel["bindings"]["ws"]
    assert (binding["method"], binding["bindingVersion"]) == ("GET", "0.1.0")
    assert list(binding["query"]["properties"]) == ["name", "size"]
    size = binding["query"]["properties"]["size"]
    assert (size["minimum"], size["description"], size["default"]) == (1, "How many.", 5)
    assert "required" not in binding["query"]
    assert binding["headers"]["required"] == ["x-token"]
    assert document["channels"]["filtered"]["bindings"]["ws"]["query"] == {
        "$ref": "#/components/schemas/Filter"
    }
    headers = document["channels"]["hinted"]["bindings"]["ws"]["headers"]
    assert (list(headers["properties"]), headers.get("required")) == (["x-color", "x_other"], None)
    headers = document["channels"]["needed"]["bindings"]["ws"]["headers"]
    assert (list(headers["properties"]), headers["required"]) == (
        ["x-color", "x_other", "x-token"],
        ["x-token"],
    )


def test_types_that_a_dependency_is_annotated_with() -> None:
    class Session:
        def __init__(self, websocket: websockets.WebSocket[Say, Said]) -> None: ...

    async def session(websocket: fastapi.WebSocket[Say, Said]) -> Any:
        return websocket

    app = FastAPI()

    @app.websocket("/chat")
    async def handler(conversation: Annotated[Any, Depends(session)]) -> None: ...

    assert made(app)["channels"]["chat"]["messages"].keys() == {"Say", "Said"}


def test_security_of_fastapi() -> None:
    oauth = OAuth2PasswordBearer("token", scopes={"read": "Reads.", "write": "Writes."})

    def user(token: Annotated[str, Depends(oauth)]) -> str:
        return token

    def connect(
        oauth_token: Annotated[str, Security(user, scopes=["read"])],
        again: Annotated[str, Security(user, scopes=["read"])],
        bearer: Annotated[Any, Depends(HTTPBearer(bearerFormat="JWT", description="A token."))],
        key: Annotated[Any, Security(APIKeyQuery(name="key"))],
    ) -> None: ...

    app = FastAPI()

    @app.websocket("/chat", dependencies=[Depends(connect)])
    async def handler(websocket: fastapi.WebSocket[Say, Said]) -> None: ...

    @app.websocket("/other", dependencies=[Depends(APIKeyCookie(name="a", scheme_name="APIKeyQuery"))])
    async def other(
        websocket: fastapi.WebSocket,
        openid: Annotated[
            Any, Depends(OpenIdConnect(openIdConnectUrl="https://example.com/", scheme_name="a b"))
        ],
    ) -> None: ...

    document = made(app)
    flows = {"password": {"tokenUrl": "token", "availableScopes": {"read": "Reads.", "write": "Writes."}}}
    assert document["components"]["securitySchemes"] == {
        "APIKeyQuery": {"type": "httpApiKey", "in": "query", "name": "key"},
        "APIKeyQuery_2": {"type": "httpApiKey", "in": "cookie", "name": "a"},
        "HTTPBearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT", "description": "A token."},
        "OAuth2PasswordBearer": {"type": "oauth2", "flows": flows},
        "a_b": {"type": "openIdConnect", "openIdConnectUrl": "https://example.com/"},
    }
    # AsyncAPI's list has alternatives, and all of these are required.
    for name in ("receive_chat", "send_chat"):
        assert document["operations"][name]["security"] == [
            {
                "type": "oauth2",
                "flows": flows,
                "scopes": ["read"],
                "description": "Required together with HTTPBearer and APIKeyQuery.",
                "x-required-with": [
                    {"$ref": "#/components/securitySchemes/HTTPBearer"},
                    {"$ref": "#/components/securitySchemes/APIKeyQuery"},
                ],
            }
        ]
    assert document["operations"]["receive_other"]["security"] == [
        {
            "type": "httpApiKey",
            "in": "cookie",
            "name": "a",
            "description": "Required together with a_b.",
            "x-required-with": [{"$ref": "#/components/securitySchemes/a_b"}],
        }
    ]


def test_security_schemes_that_are_alternatives() -> None:
    """Those that do not raise by themselves; one that does is required, whatever else there is."""
    key, cookie = APIKeyQuery(name="key", auto_error=False), APIKeyCookie(name="a", auto_error=False)
    app = FastAPI()

    @app.websocket("/either", dependencies=[Depends(key), Depends(cookie)])
    async def either(websocket: fastapi.WebSocket) -> None: ...

    @app.websocket("/one", dependencies=[Depends(key), Depends(HTTPBearer(description="A token."))])
    async def one(websocket: fastapi.WebSocket) -> None: ...

    @app.websocket(
        "/both", dependencies=[Depends(HTTPBearer(description="A token.")), Depends(APIKeyQuery(name="b"))]
    )
    async def both(websocket: fastapi.WebSocket) -> None: ...

    operations = made(app)["operations"]
    assert operations["receive_either"]["security"] == [
        {"$ref": "#/components/securitySchemes/APIKeyQuery"},
        {"$ref": "#/components/securitySchemes/APIKeyCookie"},
    ]
    assert operations["receive_one"]["security"] == [{"$ref": "#/components/securitySchemes/HTTPBearer"}]
    (scheme,) = operations["receive_both"]["security"]
    assert scheme["description"] == "A token. Required together with APIKeyQuery_2."


def test_names_that_are_there_for_type_checkers_only() -> None:
    from tests.frameworks.unresolved import app, types

    for unresolved, said in (
        (
            types,
            r"cannot resolve the annotation 'WebSocket\[int\]' of with_types: name 'WebSocket' is not",
        ),
        (
            app,
            "cannot resolve the annotation 'WebSocket', so FastAPI takes 'websocket' for a parameter of the",
        ),
    ):
        with pytest.raises(TypeError, match=said):
            AsyncAPI(unresolved).to_json()


def test_cookies_of_fastapi() -> None:
    app = FastAPI()

    @app.websocket("/required")
    async def required(
        websocket: fastapi.WebSocket,
        session: Annotated[str, Cookie(description="Who you are.")],
        theme: Annotated[str, Cookie()] = "dark",
        hidden: Annotated[str, Cookie(include_in_schema=False)] = "",
        x_token: Annotated[str, Header()] = "",
    ) -> None: ...

    @app.websocket("/optional")
    async def optional(websocket: fastapi.WebSocket, theme: Annotated[str, Cookie()] = "dark") -> None: ...

    channels = made(app)["channels"]
    headers = channels["required"]["bindings"]["ws"]["headers"]
    assert headers["properties"].keys() == {"x-token", "Cookie"}
    assert headers["properties"]["Cookie"] == {
        "type": "string",
        "description": "Cookies: `session` (required): Who you are.; `theme`",
    }
    assert headers["required"] == ["Cookie"]
    assert channels["optional"]["bindings"]["ws"]["headers"] == {
        "type": "object",
        "properties": {"Cookie": {"type": "string", "description": "Cookies: `theme`"}},
    }


# Litestar


def test_litestar() -> None:
    typed: Any = litestar.WebSocket

    async def room_of(socket: Any) -> None:
        """A room."""

    room_of.__annotations__["socket"] = typed[Say, Said]
    rooms = litestar.websocket("/rooms/{room:int}/{key:uuid}", websocket_class=typed[Say, Said])(room_of)

    @litestar.websocket("/described")
    @describe(websockets.WebSocket[Say, Said], tags=["own"])
    async def described(socket: litestar.WebSocket) -> None: ...

    class Hidden(Controller):
        path = "/hidden"
        include_in_schema = False

        @litestar.websocket("/")
        async def handler(self, socket: litestar.WebSocket) -> None: ...

    @get("/", sync_to_thread=False)
    def page() -> None: ...

    router = Router("/v1", route_handlers=[rooms, described], tags=["first"])
    app = Litestar([router, Hidden, page], openapi_config=OpenAPIConfig("Rooms", "3", description="Many."))
    document = made(app)
    assert document["info"] == {"title": "Rooms", "version": "3", "description": "Many."}
    channels = document["channels"]
    assert channels.keys() == {"v1_rooms_room_key", "v1_described"}
    room = channels["v1_rooms_room_key"]
    assert room["address"] == "/v1/rooms/{room}/{key}"
    assert room["parameters"] == {
        "room": {"description": "An integer."},
        "key": {"description": "A UUID."},
    }
    assert (room["description"], room["tags"]) == ("A room.", [{"name": "first"}])
    assert channels["v1_described"]["tags"] == [{"name": "first"}, {"name": "own"}]
    for channel in channels.values():
        assert channel["messages"].keys() == {"Say", "Said"}


class Unknown:
    """A type that has no JSON Schema."""


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the older of the two ways
@pytest.mark.parametrize("way", ["as of Litestar 2.23", "before"])
def test_parameters_of_litestar(way: str) -> None:
    def of_place(place: str, name: str, **said: Any) -> Any:
        if way == "before":
            named: dict[str, Any] = {place: name}
            return Parameter(**named, **said)
        kinds = {"query": QueryParameter, "header": HeaderParameter, "cookie": CookieParameter}
        return kinds[place](name=name, **said)

    def depends(limit: Annotated[int, QueryParameter(le=100)], key: Any) -> int:
        return limit

    depends.__annotations__["key"] = Annotated[str, of_place("header", "X-Key")]

    async def room(
        socket: litestar.WebSocket,
        room: Annotated[int, PathParameter(description="Its number.")],
        page: NamedDependency[int],
        since: Any = None,
        session: Any = "",
        missing: NamedDependency[int] = 1,
        hidden: Annotated[str, QueryParameter(include_in_schema=False)] = "",
        plain: FromQuery[int] = 1,
        unknown: FromQuery[Unknown | None] = None,
    ) -> None: ...

    room.__annotations__["since"] = Annotated[str | None, of_place("query", "from", description="A date.")]
    room.__annotations__["session"] = Annotated[str, of_place("cookie", "session-id")]
    dependencies = {"page": Provide(depends, sync_to_thread=False)}
    handler = litestar.websocket("/rooms/{room:int}", dependencies=dependencies)(room)
    (channel,) = made(Litestar([handler]))["channels"].values()
    assert channel["parameters"] == {"room": {"description": "Its number."}}
    binding = channel["bindings"]["ws"]
    query, headers = binding["query"], binding["headers"]
    assert query["properties"].keys() == {"from", "plain", "unknown", "limit"}
    assert query["required"] == ["limit"]
    assert query["properties"]["from"]["description"] == "A date."
    assert query["properties"]["limit"] == {"type": "integer", "maximum": 100}
    assert query["properties"]["unknown"] == {}
    assert headers == {
        "type": "object",
        "properties": {
            "X-Key": {"type": "string"},
            "Cookie": {"type": "string", "description": "Cookies: `session-id`"},
        },
        "required": ["X-Key"],
    }


def test_security_of_litestar() -> None:
    schemes = {
        "Token": SecurityScheme("http", scheme="Bearer", bearer_format="JWT"),
        "Key": SecurityScheme("apiKey", name="key", security_scheme_in="query"),
        "Elsewhere": Reference("#/components/securitySchemes/Key"),
    }

    @litestar.websocket("/")
    async def handler(socket: litestar.WebSocket) -> None: ...

    def document(security: list[dict[str, list[str]]], as_list: bool = False) -> Any:
        components = Components(security_schemes=schemes)  # type: ignore[arg-type]
        config = OpenAPIConfig("", "", security=security, components=[components] if as_list else components)
        return made(Litestar([handler], openapi_config=config))

    token, key = ({"$ref": f"#/components/securitySchemes/{name}"} for name in ("Token", "Key"))
    found = document([{"Token": []}, {"Key": []}])
    assert found["operations"]["send_root"]["security"] == [token, key]
    assert found["components"]["securitySchemes"] == {
        "Key": {"type": "httpApiKey", "name": "key", "in": "query"},
        "Token": {"type": "http", "scheme": "Bearer", "bearerFormat": "JWT"},
    }
    (both,) = document([{"Token": [], "Key": []}], as_list=True)["operations"]["send_root"]["security"]
    assert both["x-required-with"] == [key]
    # What is not declared as a scheme says nothing.
    for name in ("Other", "Elsewhere"):
        assert "security" not in document([{name: []}])["operations"]["send_root"]
    assert "security" not in document([])["operations"]["send_root"]


# Lilya


needs_lilya = pytest.mark.skipif(
    importlib.util.find_spec("lilya.apps") is None,
    reason="Lilya cannot be beside an editable install of ours: nox -s frameworks has it",
)


@needs_lilya
def test_lilya() -> None:
    from lilya.apps import ChildLilya, Lilya
    from lilya.routing import Include, Path, WebSocketPath

    async def annotated(websocket: websockets.WebSocket[Say, Said]) -> None: ...

    @describe(websockets.WebSocket[Say, Said])
    async def described(websocket: websockets.WebSocket) -> None:
        """A room."""

    async def page() -> None: ...

    app = Lilya(
        routes=[
            Path("/", page),
            WebSocketPath("/chat", annotated),
            WebSocketPath("/hidden", annotated, include_in_schema=False),
            Include("/rooms", routes=[WebSocketPath("/{room:int}/<name>", described)]),
            Include("/child", app=ChildLilya(routes=[WebSocketPath("/chat", annotated)])),
        ]
    )
    channels = made(app)["channels"]
    assert {name: each["address"] for name, each in channels.items()} == {
        "chat": "/chat",
        "rooms_room_name": "/rooms/{room}/{name}",
        "child_chat": "/child/chat",
    }
    assert channels["rooms_room_name"]["parameters"] == {"room": {"description": "An integer."}, "name": {}}
    for channel in channels.values():
        assert channel["messages"].keys() == {"Say", "Said"}


# Where it is served


async def got(app: Any, path: str) -> tuple[int, bytes]:
    """What an app responds to a request."""
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    scope: Any = {
        "type": "http",
        "method": "GET",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [],
        "http_version": "1.1",
        "scheme": "http",
        "server": ("example.com", 80),
        "client": ("192.0.2.1", 1),
        "state": {},
        "asgi": {"version": "3.0"},
    }
    await app(scope, receive, send)
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:])


def mounted(framework: str) -> Any:
    if framework == "fastapi":
        app: Any = FastAPI()
        app.mount("/asyncapi", AsyncAPI(app, title="Mounted"))
        return app
    if framework == "litestar":
        return Litestar([asgi("/asyncapi", is_mount=True, copy_scope=True)(AsyncAPI({}, title="Mounted"))])
    from lilya.apps import Lilya
    from lilya.routing import Include

    return Lilya(routes=[Include("/asyncapi", app=AsyncAPI({}, title="Mounted"))])


@pytest.mark.anyio
async def test_behind_a_proxy_that_cuts_the_prefix_off() -> None:
    """`root_path` has the prefix, and the path has not."""
    app = mounted("fastapi")

    async def served(scope: Any, receive: Any, send: Any) -> None:
        await app({**scope, "root_path": "/api"}, receive, send)

    for path in ("/asyncapi/", "/asyncapi/asyncapi.json", "/api/asyncapi/", "/api/asyncapi/asyncapi.json"):
        assert (await got(served, path))[0] == 200, path
    assert (await got(served, "/asyncapi/nothing"))[0] == 404


@pytest.mark.anyio
@pytest.mark.parametrize("framework", ["fastapi", "litestar", pytest.param("lilya", marks=needs_lilya)])
async def test_where_it_is_served(framework: str) -> None:
    app = mounted(framework)
    assert (await got(app, "/asyncapi"))[0] in (301, 303, 307)
    status, body = await got(app, "/asyncapi/")
    assert (status, b"<title>" in body) == (200, True)
    status, body = await got(app, "/asyncapi/asyncapi.json")
    assert (status, json.loads(body)["info"]["title"]) == (200, "Mounted")
    assert (await got(app, "/asyncapi/nothing"))[0] == 404
    assert unguarded_routes(app) == []

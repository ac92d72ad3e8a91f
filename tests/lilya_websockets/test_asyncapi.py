"""The AsyncAPI document: schemas, messages, operations, examples. Frameworks are in `tests/frameworks`."""

# No `from __future__ import annotations`: annotations that cannot be resolved are a case of their own.

import dataclasses
import json
import math
import subprocess
import sys
import uuid
from collections.abc import Callable
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, NamedTuple, TypeVar

import msgspec
import pydantic
import pytest
from starlette.applications import Starlette
from starlette.endpoints import WebSocketEndpoint
from starlette.middleware import Middleware
from starlette.routing import Host, Mount, WebSocketRoute
from typing_extensions import TypedDict

from lilya.websockets import WebSocket
from lilya.websockets.asyncapi import AsyncAPI, describe
from lilya.websockets.testing import unguarded_routes
from lilya.websockets.typed import JSON, CallId, Codec, MessagePack, ReplyTo
from tests.lilya_websockets import models
from tests.lilya_websockets.documents import problems, resolve

T = TypeVar("T")


class Say(pydantic.BaseModel):
    """Says something.

    To everybody.
    """

    type: Literal["say"] = "say"
    text: str


class Leave(pydantic.BaseModel):
    type: Literal["leave"] = "leave"


class Said(pydantic.BaseModel):
    text: str
    number: int = 1


def made(app: Any, **options: Any) -> dict[str, Any]:
    """The document, in which nothing is wrong."""
    asyncapi = AsyncAPI(app, **options)
    assert problems(asyncapi.document) == []
    assert json.loads(asyncapi.to_json()) == asyncapi.document
    assert AsyncAPI(app, **options).to_yaml() == asyncapi.to_yaml()
    return asyncapi.document


def of(websocket: Any, **options: Any) -> dict[str, Any]:
    """The document of one channel."""
    return made({"/": websocket}, **options)


def messages(document: dict[str, Any], channel: str = "root") -> dict[str, Any]:
    found: dict[str, Any] = document["channels"][channel]["messages"]
    return found


def operations(document: dict[str, Any]) -> dict[str, Any]:
    """By operation: what it does, with which messages, and with which replies."""

    def names(part: Any) -> list[str]:
        return [each["$ref"].rpartition("/")[2] for each in part.get("messages", ())]

    return {
        name: (each["action"], names(each), *([names(each["reply"])] if "reply" in each else []))
        for name, each in document["operations"].items()
    }


# Messages and operations


def test_a_whole_document() -> None:
    async def chat(websocket: WebSocket[Say | Leave, Said]) -> None:
        """Talk."""

    document = made({"/chat": chat}, title="Chat", version="2", servers={"main": "wss://example.com/api/"})
    schemas = document.pop("components")["schemas"]
    assert document == {
        "asyncapi": "3.0.0",
        "info": {"title": "Chat", "version": "2"},
        "servers": {"main": {"host": "example.com", "protocol": "wss", "pathname": "/api"}},
        "channels": {
            "chat": {
                "address": "/chat",
                "description": "Talk.",
                "messages": {
                    "Say": {
                        "name": "Say",
                        "summary": "Says something.",
                        "contentType": "application/json",
                        "payload": {"$ref": "#/components/schemas/Say"},
                    },
                    **{
                        name: {
                            "name": name,
                            "contentType": "application/json",
                            "payload": {"$ref": f"#/components/schemas/{name}"},
                        }
                        for name in ("Leave", "Said")
                    },
                },
            }
        },
        "operations": {
            "receive_chat": {
                "action": "receive",
                "channel": {"$ref": "#/channels/chat"},
                "messages": [
                    {"$ref": "#/channels/chat/messages/Say"},
                    {"$ref": "#/channels/chat/messages/Leave"},
                ],
            },
            "send_chat": {
                "action": "send",
                "channel": {"$ref": "#/channels/chat"},
                "messages": [{"$ref": "#/channels/chat/messages/Said"}],
            },
        },
    }
    assert schemas["Say"]["description"] == "Says something.\n\nTo everybody."
    # A client has to say which one it is. What the app sends has its defaults in it.
    assert schemas["Leave"]["required"] == ["type"]
    assert sorted(schemas["Said"]["required"]) == ["number", "text"]


def test_what_may_be_left_out_in_one_direction_only() -> None:
    document = of(WebSocket[Said])
    schemas = document["components"]["schemas"]
    assert schemas["Said-Input"]["required"] == ["text"]
    assert schemas["Said-Output"]["required"] == ["text", "number"]
    assert operations(document) == {
        "receive_root": ("receive", ["Said-Input"]),
        "send_root": ("send", ["Said-Output"]),
    }


def test_one_message_for_both_directions() -> None:
    class Word(pydantic.BaseModel):
        text: str

    document = of(WebSocket[Word])
    assert list(messages(document)) == ["Word"]
    assert operations(document) == {"receive_root": ("receive", ["Word"]), "send_root": ("send", ["Word"])}


class Node(pydantic.BaseModel):
    children: "list[Node]"


class Tree(pydantic.BaseModel):
    root: Node
    depth: int = 0


def test_recursive_models_that_are_the_same_in_both_directions_are_one() -> None:
    assert of(WebSocket[Node])["components"]["schemas"].keys() == {"Node"}
    document = of(WebSocket[Tree])
    assert document["components"]["schemas"].keys() == {"Node", "Tree-Input", "Tree-Output"}


class Ask(pydantic.BaseModel):
    type: Literal["ask"]
    id: CallId = pydantic.Field(None, alias="request~id")


class Answer(pydantic.BaseModel):
    type: Literal["answer"]
    reply_to: ReplyTo = pydantic.Field(None, validation_alias=pydantic.AliasChoices("re", "reply"))


class Note(pydantic.BaseModel):
    type: Literal["note"]


@pytest.mark.parametrize(
    ("websocket", "found"),
    [
        (WebSocket[Ask, Answer], {"answer_root": ("receive", ["Ask"], ["Answer"])}),
        (WebSocket[Answer, Ask], {"call_root": ("send", ["Ask"], ["Answer"])}),
        (
            WebSocket[Ask | Note, Answer | Note],
            {
                "receive_root": ("receive", ["Note"]),
                "answer_root": ("receive", ["Ask"], ["Answer"]),
                "send_root": ("send", ["Note"]),
            },
        ),
        # An id that nothing answers, and an answer to nothing.
        (WebSocket[Ask, Note], {"receive_root": ("receive", ["Ask"]), "send_root": ("send", ["Note"])}),
        (WebSocket[Note, Answer], {"receive_root": ("receive", ["Note"]), "send_root": ("send", ["Answer"])}),
    ],
)
def test_requests_and_replies(websocket: Any, found: Any) -> None:
    assert operations(of(websocket)) == found


def test_requests_of_both_sides() -> None:
    document = of(WebSocket[Ask | Answer])
    assert operations(document) == {
        "answer_root": ("receive", ["Ask-Input"], ["Answer-Output"]),
        "call_root": ("send", ["Ask-Output"], ["Answer-Input"]),
    }
    assert {name: each["correlationId"]["location"] for name, each in messages(document).items()} == {
        "Ask-Input": "$message.payload#/request~0id",
        "Ask-Output": "$message.payload#/request~0id",
        "Answer-Input": "$message.payload#/re",
        "Answer-Output": "$message.payload#/reply_to",
    }


def test_ids_of_msgspec() -> None:
    class Ping(msgspec.Struct, tag="ping", rename="camel"):
        call_id: CallId = None

    class Pong(msgspec.Struct, tag="pong"):
        reply_to: ReplyTo = None

    document = of(WebSocket[Ping, Pong])
    assert operations(document) == {"answer_root": ("receive", ["Ping"], ["Pong"])}
    assert messages(document)["Ping"]["correlationId"] == {"location": "$message.payload#/callId"}


def test_any_is_no_message() -> None:
    assert operations(of(WebSocket[Any, Said])) == {"send_root": ("send", ["Said"])}


@pytest.mark.parametrize(
    ("codec", "content_type", "is_binary"),
    [
        (JSON(), "application/json", None),
        (JSON(binary=True), "application/json", True),
        (MessagePack(), "application/msgpack", True),
        (Codec(), "application/octet-stream", None),
    ],
)
def test_codecs(codec: Any, content_type: str, is_binary: Any) -> None:
    class Packed(WebSocket[Say, Any], codec=codec): ...

    message = messages(of(Packed))["Say"]
    assert (message["contentType"], message.get("x-websocket-binary")) == (content_type, is_binary)


# Schemas


class Colour(Enum):
    RED = "red"


class Box(pydantic.BaseModel, Generic[T]):
    value: T


class Point(NamedTuple):
    x: int
    y: int = 0


class Options(TypedDict, total=False):
    size: int


@dataclasses.dataclass
class Plain:
    type: Literal["plain"]
    colour: Colour = Colour.RED


class GenericStruct(msgspec.Struct, Generic[T], tag=True):
    value: T


@pytest.mark.parametrize(
    ("type_", "names"),
    [
        (Box[int], ["Box_int_"]),
        (Box[int] | int, ["Box_int_", "int"]),
        (Box[list[Say]], ["Box_list_Say__"]),
        (GenericStruct[int] | None, ["GenericStruct_int_", "null"]),
        (Plain | str, ["Plain", "str"]),
        (Point, ["Point"]),
        (Options, ["Options"]),
        (list[Say] | None, ["list_Say", "null"]),
        (dict[str, Node], ["dict_str_Node"]),
        (Annotated[Say | Leave, pydantic.Field(discriminator="type")], ["Say", "Leave"]),
        (models.PydanticDataSay | models.PydanticDataLeave, ["PydanticDataSay", "PydanticDataLeave"]),
        (models.StructSay | models.StructLeave, ["StructSay", "StructLeave"]),
        (models.DataSay | models.DataLeave, ["DataSay", "DataLeave"]),
    ],
)
def test_types(type_: Any, names: list[str]) -> None:
    found = [name.removesuffix("-Input") for name in messages(of(WebSocket[type_, Any]))]
    # What is not of a class has the name that it has in Python, which is longer.
    assert [name.rpartition(".")[2].rpartition("Options")[1] or name for name in found] == names or [
        "_".join(part.rpartition(".")[2] for part in name.split("_")) for name in found
    ] == names


def test_the_field_that_tells_members_apart_is_required_wherever_their_union_is() -> None:
    class Both(pydantic.BaseModel):
        said: Annotated[Say | Leave, pydantic.Field(discriminator="type")]

    for type_ in (list[Say | Leave], Both, pydantic.RootModel[Both]):
        schemas = of(WebSocket[type_, Any])["components"]["schemas"]  # type: ignore[valid-type]
        for name in ("Say", "Leave"):
            assert "type" in (schemas.get(name) or schemas[f"{name}-Input"])["required"]


def test_two_models_of_one_name() -> None:
    def one() -> Any:
        class Say(pydantic.BaseModel):
            one: int

        return Say

    def other() -> Any:
        class Say(pydantic.BaseModel):
            other: int

        return Say

    websocket: Any = WebSocket
    first, second = websocket[one()], websocket[other()]
    document = made({"/a": first, "/b": second, "/c": WebSocket[models.Say, Any]})
    schemas = document["components"]["schemas"]
    assert schemas.keys() == {"Say", "Say_2", "Say_3"}  # and no module, which is nobody's business
    for channel, field in (("a", "one"), ("b", "other"), ("c", "type")):
        (message,) = messages(document, channel).values()
        assert message["name"] == "Say"
        assert field in resolve(document, message["payload"]["$ref"])["properties"]


def test_names_without_modules() -> None:
    """Also where a model has two schemas, and where a name looks like one with a module."""

    def of_pydantic(default: Any) -> Any:
        return pydantic.create_model("Say", field=(int, default), __module__=f"secret{default}")

    def of_msgspec(name: str) -> Any:
        return msgspec.defstruct("Leave", [(name, int)], module=f"secret.{name}")

    lone: Any = pydantic.create_model("My__Own", field=(int, ...))
    websocket: Any = WebSocket
    document = made(
        {
            "/a": websocket[of_pydantic(1)],
            "/b": websocket[of_pydantic(2)],
            "/c": websocket[of_msgspec("one")],
            "/d": websocket[of_msgspec("two")],
            "/e": websocket[lone],
        }
    )
    names = {"Say-Input", "Say-Output", "Say_2-Input", "Say_2-Output", "Leave", "Leave_2", "My__Own"}
    assert document["components"]["schemas"].keys() == names
    assert "secret" not in json.dumps(document)
    for channel, value in (("a", 1), ("b", 2)):
        received = document["operations"][f"receive_{channel}"]["messages"][0]["$ref"].rpartition("/")[2]
        payload = messages(document, channel)[received]["payload"]
        assert resolve(document, payload["$ref"])["properties"]["field"]["default"] == value


def test_one_name_in_two_libraries() -> None:
    class Say(msgspec.Struct):
        other: "int"

    document = made({"/a": WebSocket[Say], "/b": WebSocket[models.Say, Leave]})
    assert document["components"]["schemas"].keys() == {"Say", "pydantic.Say", "Leave"}
    (message,) = messages(document, "a").values()
    assert list(resolve(document, message["payload"]["$ref"])["properties"]) == ["other"]


class Later(pydantic.BaseModel):
    pair: tuple[int, str] = (1, "a")
    shape: Annotated[Say | Leave, pydantic.Field(discriminator="type")]
    colour: Annotated[Colour, pydantic.Field(description="Of it.")] = Colour.RED
    amount: Annotated[float, pydantic.Field(lt=math.inf, gt=0)]
    looks: dict[str, Any] = pydantic.Field(
        {"$ref": "#/nowhere"}, json_schema_extra={"x-unspeakable": math.inf}
    )
    old: int = pydantic.Field(0, deprecated=True)


def test_later_drafts_become_draft_7() -> None:
    document = of(WebSocket[Later, Any])
    fields = document["components"]["schemas"]["Later"]["properties"]
    assert fields["pair"]["items"] == [{"type": "integer"}, {"type": "string"}]
    assert "discriminator" not in fields["shape"]
    assert fields["colour"]["allOf"] == [{"$ref": "#/components/schemas/Colour"}]
    assert fields["colour"]["description"] == "Of it."
    assert (fields["amount"]["exclusiveMinimum"], "exclusiveMaximum" in fields["amount"]) == (0, False)
    assert "default" not in fields["looks"]  # parsers would look for it
    assert "x-unspeakable" not in fields["looks"]
    assert fields["old"]["deprecated"] is True


def test_a_member_with_a_description_of_its_own() -> None:
    said: Any = Annotated[Leave, pydantic.Field(description="Goes.")]
    document = of(WebSocket[said | Say, Any])
    leave = messages(document)["Leave"]
    assert leave["summary"] == "Goes."
    assert leave["payload"]["allOf"] == [{"$ref": "#/components/schemas/Leave"}]
    assert document["components"]["schemas"]["Leave"]["required"] == ["type"]


def test_tuples_of_msgspec() -> None:
    class Pair(msgspec.Struct):
        pair: tuple[int, str]

    pair = of(WebSocket[Pair])["components"]["schemas"]["Pair"]["properties"]["pair"]
    assert (pair["items"], pair["additionalItems"]) == ([{"type": "integer"}, {"type": "string"}], False)


class Hidden(pydantic.BaseModel):
    shown: int
    hidden: Annotated[int, pydantic.Field(exclude=True)] = 0
    shape: Any = pydantic.Field(None, json_schema_extra={"items": True})


def test_what_is_not_sent() -> None:
    schema = of(WebSocket[Any, Hidden])["components"]["schemas"]["Hidden"]
    assert sorted(schema["required"]) == ["shape", "shown"]


def test_types_without_a_schema() -> None:
    class Odd(pydantic.BaseModel):
        call: Callable[[], int]

    with pytest.raises(TypeError, match="pydantic has no JSON Schema of one of Odd"):
        AsyncAPI({"/": WebSocket[Odd]}).to_json()

    class Other(msgspec.Struct):
        value: Annotated[int, msgspec.Meta(extra_json_schema={"title": "Number"})]
        odd: "Strange"

    class Strange: ...

    Other.__annotations__["odd"] = Strange
    with pytest.raises(TypeError, match="msgspec has no JSON Schema of one of Other"):
        AsyncAPI({"/": WebSocket[Other]}).to_json()


# Handlers


async def untyped(websocket: Any) -> None:
    """Nothing is known of it."""


async def chat(websocket: WebSocket[Say, Said]) -> None: ...


def test_handlers_without_types() -> None:
    document = made({"/": untyped, "/lambda": lambda websocket: None, "/one": partial(chat)})
    assert document["channels"]["root"] == {"address": "/", "description": "Nothing is known of it."}
    assert operations(document)["receive_root"] == ("receive", [])
    assert operations(document)["send_root"] == ("send", [])
    assert operations(document)["receive_one"] == ("receive", ["Say"])


def test_nothing() -> None:
    assert made({}) == {"asyncapi": "3.0.0", "info": {"title": "WebSocket API", "version": "0.1.0"}}


def test_describe() -> None:
    @describe(WebSocket[Say, Said], title="Chat", tags=["talk", "talk"], deprecated=True)
    async def handler(websocket: Any) -> None: ...

    document = made({"/": handler})
    channel = document["channels"]["root"]
    assert channel["title"] == "Chat"
    assert channel["tags"] == [{"name": "talk"}, {"name": "deprecated"}]
    assert document["operations"]["receive_root"]["tags"] == channel["tags"]
    assert operations(document)["receive_root"] == ("receive", ["Say"])

    @describe(tags=["talk"])
    async def annotated(websocket: WebSocket[Say, Said]) -> None: ...

    assert operations(of(annotated))["send_root"] == ("send", ["Said"])
    for wrong in (WebSocket, Say, "WebSocket"):
        with pytest.raises(TypeError, match=r"describe takes a WebSocket\[In, Out\], got "):
            describe(wrong)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"tags": "chat"}, r"tags must be a list of strings, got 'chat': write \['chat'\]"),
        ({"tags": [1]}, "tags must be a list of strings, got 1 in it"),
        ({"title": 1}, "title must be a string, got 1"),
        ({"deprecated": 1}, "deprecated must be bool, got int"),
        ({"deprecated": "since 2.0"}, "deprecated must be bool, got str"),
    ],
)
def test_arguments_of_describe(arguments: Any, said: str) -> None:
    with pytest.raises(TypeError, match=said):
        describe(**arguments)


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        ({"title": b"x"}, TypeError, "title must be a string, got b'x'"),
        ({"version": 1.0}, TypeError, "version must be a string, got 1.0"),
        ({"description": 1}, TypeError, "description must be a string, got 1"),
        (
            {"servers": ["wss://a.example"]},
            TypeError,
            r"as in \{'production': .*\}, got \['wss://a.example'\]",
        ),
        ({"servers": "wss://a.example"}, TypeError, "got 'wss://a.example'"),
        ({"servers": {"a": None}}, TypeError, "a server must be an address such as .*, got None"),
        ({"transcripts": "chat.ws"}, TypeError, "transcripts must be a list of files, got 'chat.ws'"),
        ({"transcripts": Path("chat.ws")}, TypeError, "transcripts must be a list of files, got "),
    ],
)
def test_arguments_of_asyncapi(arguments: Any, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        AsyncAPI({}, **arguments)


def test_paths_of_a_mapping() -> None:
    for mapping, error, said in (
        ({"chat": chat}, ValueError, "a path must start with a slash, such as '/chat', got 'chat'"),
        ({"": chat}, ValueError, "a path must start with a slash, such as '/chat', got ''"),
        ({1: chat}, TypeError, "a mapping must have paths such as '/chat', got 1"),
    ):
        with pytest.raises(error, match=said):
            made(mapping)


def test_the_class_in_place_of_a_handler() -> None:
    """It says nothing of the app, and its docstring is not the app's."""

    class Typed(WebSocket[Say, Said]):
        """For people who talk."""

    document = made({"/bare": WebSocket, "/types": WebSocket[Say, Said], "/own": Typed})
    channels = document["channels"]
    assert channels["bare"] == {"address": "/bare"}
    assert "description" not in channels["types"]
    assert channels["own"]["description"] == "For people who talk."


def test_a_described_partial() -> None:
    def both(one: Any, websocket: Any) -> None: ...

    for handler in (
        describe(WebSocket[Say, Said])(partial(both, 1)),
        partial(describe(WebSocket[Say, Said])(both), 1),
        partial(partial(describe(WebSocket[Say, Said])(both)), 1),
    ):
        assert operations(of(handler))["receive_root"] == ("receive", ["Say"])


def test_names_that_are_no_keys() -> None:
    Größe: Any = pydantic.create_model("Größe", wert=(int, ...))
    Weite: Any = msgspec.defstruct("Wéite", [("wert", int)])
    websocket: Any = WebSocket
    document = made(
        {"/größe": websocket[Größe], "/é": websocket[Weite], "/ö": websocket[dict[str, Größe], Any]}
    )
    assert list(document["channels"]) == ["gr_e", "root", "root_2"]
    assert messages(document, "gr_e")["Gr__e"]["name"] == "Größe"


def test_deprecated_as_pep_702_says() -> None:
    from typing_extensions import deprecated

    @deprecated("Use /v2.")
    async def handler(websocket: WebSocket[Say]) -> None: ...

    tags = of(handler)["channels"]["root"]["tags"]
    assert tags == [{"name": "deprecated", "description": "Use /v2."}]


def test_annotations_that_cannot_be_resolved() -> None:
    async def handler(websocket: "WebSocket[Nowhere]") -> None: ...  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(TypeError, match=r"cannot resolve the annotation 'WebSocket\[Nowhere\]' of .*handler"):
        AsyncAPI({"/": handler}).to_json()

    async def renamed(socket: "Socket[Say]", more: "list[Nowhere]") -> None: ...  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(TypeError, match=r"cannot resolve the annotation 'Socket\[Say\]' of .*renamed"):
        AsyncAPI({"/": renamed}).to_json()

    async def other(websocket: WebSocket[Say, Any], more: "Nowhere", most: "list[Nowhere]") -> None: ...  # type: ignore[name-defined]  # noqa: F821

    assert operations(of(other))["receive_root"] == ("receive", ["Say"])

    @describe(WebSocket[Say, Any])
    async def described(websocket: "WebSocket[Nowhere]") -> None: ...  # type: ignore[name-defined]  # noqa: F821

    assert operations(of(described))["receive_root"] == ("receive", ["Say"])


def test_names_of_types_in_quotes() -> None:
    async def handler(websocket: "WebSocket['Say', Said]") -> None: ...

    if sys.version_info < (3, 11):  # which does not look into them
        with pytest.raises(TypeError, match=r"the types of .*WebSocket\['Say', .*Said\] are not known: use"):
            of(handler)
    else:
        assert operations(of(handler))["receive_root"] == ("receive", ["Say"])

    async def generic(websocket: WebSocket[T]) -> None: ...

    with pytest.raises(TypeError, match=r"the types of .*WebSocket\[~T, ~T\] are not known: use describe"):
        of(generic)


# Starlette


class Endpoint(WebSocketEndpoint):
    pass


class Wrapper:
    """A middleware."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None: ...


async def room(
    websocket: WebSocket[Say], room: Literal["blue", "red"], colour: Colour, id: uuid.UUID
) -> None: ...


async def plain(scope: Any, receive: Any, send: Any) -> None: ...


def starlette_app() -> Any:
    return Starlette(
        routes=[
            WebSocketRoute("/", chat),
            WebSocketRoute("/rooms/{room}/{colour}/{id}/{number:int}/{rest:path}", room),
            WebSocketRoute("/endpoint", Endpoint),
            Mount("/v1", routes=[Mount("/deep", routes=[WebSocketRoute("/{number:int}", chat)])]),
            Mount("/app", Starlette(routes=[WebSocketRoute("/", untyped)])),
            Host("api.example.com", Starlette(routes=[WebSocketRoute("/host", untyped)])),
            Mount("/other", plain),
            WebSocketRoute("/v1/deep-{number}", untyped),
            WebSocketRoute("/v1/deep_{number}", untyped),
            WebSocketRoute("/v1/deep_{number:int}", chat),
        ],
        middleware=[Middleware(Wrapper)],
    )


@pytest.mark.parametrize("wrap", [lambda app: app, Wrapper, partial])
def test_starlette(wrap: Any) -> None:
    document = made(wrap(starlette_app()))
    assert {name: channel["address"] for name, channel in document["channels"].items()} == {
        "root": "/",
        "rooms_room_colour_id_number_rest": "/rooms/{room}/{colour}/{id}/{number}/{rest}",
        "endpoint": "/endpoint",
        "v1_deep_number": "/v1/deep/{number}",
        "app": "/app/",
        "host": "/host",
        "v1_deep_number_2": "/v1/deep-{number}",
        "v1_deep__number": "/v1/deep_{number}",
    }
    assert document["channels"]["rooms_room_colour_id_number_rest"]["parameters"] == {
        "room": {"enum": ["blue", "red"]},
        "colour": {"enum": ["red"]},
        "id": {"description": "A UUID."},
        "number": {"description": "An integer."},
        "rest": {"description": "May contain slashes."},
    }


def test_an_app_of_no_framework() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None: ...

    for each in (app, Wrapper(app)):
        with pytest.raises(
            TypeError, match=r"cannot read the routes of .*Name its handlers, as in {'/chat': chat}"
        ):
            AsyncAPI(each).to_json()


def test_what_serves_http_only_is_neither_a_channel_nor_unguarded() -> None:
    app = starlette_app()
    app.mount("/asyncapi", AsyncAPI(app))
    assert made(app) == made(starlette_app())
    assert unguarded_routes(app) == unguarded_routes(starlette_app())


# Servers


@pytest.mark.parametrize(
    ("url", "server"),
    [
        ("wss://example.com", {"host": "example.com", "protocol": "wss"}),
        (
            "https://example.com:8443/a/b/",
            {"host": "example.com:8443", "protocol": "wss", "pathname": "/a/b"},
        ),
        ("ws://user:secret@[::1]:80/", {"host": "[::1]:80", "protocol": "ws"}),
        ("http://{region}.example.com", {"host": "{region}.example.com", "protocol": "ws"}),
    ],
)
def test_servers(url: str, server: Any) -> None:
    assert made({}, servers={"main": url})["servers"] == {"main": server}


@pytest.mark.parametrize("url", ["", "example.com", "ftp://example.com", "wss://", "wss://a:b", "wss://[::1"])
def test_what_is_no_server(url: str) -> None:
    with pytest.raises(ValueError, match=r"a server must be an address such as 'wss://example.com/api', got"):
        AsyncAPI({}, servers={"main": url})


# Examples


def examples(document: dict[str, Any], channel: str = "root") -> dict[str, list[Any]]:
    return {
        name: [example["payload"] for example in message.get("examples", ())]
        for name, message in messages(document, channel).items()
    }


def transcript(folder: Path, text: str, name: str = "chat.ws") -> Path:
    pytest.importorskip("ws_doctest", reason="ws-doctest reads the messages of transcripts")
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_messages_of_transcripts_are_examples(tmp_path: Path) -> None:
    file = transcript(
        tmp_path,
        '> connect /rooms/a%20b?x=1\n< accept\n> json {"type": "say", "text": "hi"}\n'
        '< json {"text": "hi", "number": 1}\n> json {"type": "say", "text": "hi"}\n'
        '< json {"text": "hi", "number": 2}\n> json {"type": "leave"}\n'
        '< json {"text": "$changes", "number": 3}\n< close 1000\n',
    )
    document = made({"/rooms/{room}": WebSocket[Say | Leave, Said], "/": chat}, transcripts=[file])
    assert examples(document, "rooms_room") == {
        "Say": [{"type": "say", "text": "hi"}],
        "Leave": [{"type": "leave"}],
        "Said": [{"text": "hi", "number": 1}, {"text": "hi", "number": 2}],
    }
    assert examples(document) == {"Say": [], "Said": []}


def test_a_message_that_looks_like_a_reference_is_no_example(tmp_path: Path) -> None:
    file = transcript(
        tmp_path, '> connect /\n< accept\n> json [{"$ref": "#/a"}]\n> json [{"ref": "a"}]\n> close\n'
    )
    document = of(WebSocket[list[dict[str, str]], Any], transcripts=[file])
    assert list(examples(document).values()) == [[[{"ref": "a"}]]]


def test_several_clients_and_paths_with_slashes(tmp_path: Path) -> None:
    file = transcript(
        tmp_path,
        "ann > connect /a\nann < accept\nbob > connect /files/b/c\nbob < accept\n"
        'ann > json {"type": "say", "text": "ann"}\nbob > json {"type": "leave"}\n'
        "ann < bytes 00ff\nbob > close\nann < close 1000\n",
    )
    app = Starlette(
        routes=[
            WebSocketRoute("/files/{path:path}", describe(WebSocket[Leave, Any])(partial(untyped).func)),
            WebSocketRoute("/a", lambda websocket: None),
        ]
    )
    document = made(app, transcripts=[file])
    assert examples(document, "files_path") == {"Leave": [{"type": "leave"}]}
    assert "messages" not in document["channels"]["a"]
    del untyped.__asyncapi__  # type: ignore[attr-defined]


def test_a_message_is_of_the_model_that_it_validates_as(tmp_path: Path) -> None:
    file = transcript(tmp_path, '> connect /\n< accept\n> json 5\n> json "a"\n> json {"x": 1}\n> json null\n')
    document = of(WebSocket[dict[str, int] | str | int | None, Any], transcripts=[file])
    assert list(examples(document).values()) == [[{"x": 1}], ["a"], [5], [None]]


def test_examples_in_binary_messages(tmp_path: Path) -> None:
    class Packed(WebSocket[models.TaggedSay | models.TaggedLeave], codec=MessagePack()): ...

    packed = msgspec.msgpack.encode(models.TaggedSay("hi")).hex()
    file = transcript(tmp_path, f"> connect /\n< accept\n> bytes {packed}\n< bytes {packed}\n> close\n")
    assert examples(of(Packed, transcripts=[file])) == {
        "TaggedSay": [{"type": "say", "text": "hi"}],
        "TaggedLeave": [],
    }


def test_an_example_that_json_cannot_hold_is_left_out(tmp_path: Path) -> None:
    class Blob(msgspec.Struct):
        data: bytes

    class Packed(WebSocket[Blob], codec=MessagePack()): ...

    packed = msgspec.msgpack.encode(Blob(b"\xff")).hex()
    file = transcript(tmp_path, f"> connect /\n< accept\n> bytes {packed}\n> close\n")
    assert examples(of(Packed, transcripts=[file])) == {"Blob": []}


REFUSAL = '{"type": "error", "errors": []}'


@pytest.mark.parametrize("then", [f"< json {REFUSAL}", "< close 1007"])
@pytest.mark.parametrize("wrong", ["json {}", "text {", "bytes 00", 'json {"type": "say", "text": 5}'])
def test_messages_that_the_app_refuses_are_no_examples(tmp_path: Path, wrong: str, then: str) -> None:
    file = transcript(tmp_path, f"> connect /\n< accept\n> {wrong}\n{then}\n")
    assert examples(of(WebSocket[Say, Any], transcripts=[file])) == {"Say": []}


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (
            "> json {}\n< json " + '{"type": "say", "text": "a"}',
            "chat.ws:3: this is no Say, which the client of / sends: > json {}",
        ),
        ("> json {}\n> close", "chat.ws:3: this is no Say"),
        ("> json {}\n< text {", "chat.ws:3: this is no Say"),
        ("> json {}\n< close 1000", "chat.ws:3: this is no Say"),
        ("> bytes 00", "chat.ws:3: this is no Say, which the client of / sends: > bytes 00"),
        ("< json {}", "chat.ws:3: this is no Say, which the app of / sends: < json {}"),
        ("< json []", "chat.ws:3: this is no Say, which the app"),
        ('< json {"type": "error"}', "chat.ws:3: this is no Say, which the app"),
    ],
)
def test_a_message_that_validates_as_none_is_an_error(tmp_path: Path, lines: str, said: str) -> None:
    file = transcript(tmp_path, f"> connect /\n< accept\n{lines}\n")
    with pytest.raises(ValueError, match="this is no Say") as caught:
        AsyncAPI({"/": WebSocket[Say]}, transcripts=[file]).to_json()
    assert said in str(caught.value)


def test_a_client_that_comes_back_was_told_nothing(tmp_path: Path) -> None:
    start = "ann > connect /\nann < accept\n"
    file = transcript(tmp_path, f"{start}ann > json {{}}\nann > close\n{start}")
    with pytest.raises(ValueError, match=r"chat\.ws:3: this is no Say"):
        AsyncAPI({"/": WebSocket[Say]}, transcripts=[file]).to_json()


def test_a_transcript_of_another_path_is_an_error(tmp_path: Path) -> None:
    file = transcript(tmp_path, "> connect /nowhere\n< deny 404\n")
    with pytest.raises(ValueError, match=r"chat.ws:1: no channel of the document is at /nowhere"):
        AsyncAPI({"/": WebSocket[Say]}, transcripts=[file]).to_json()


def test_examples_need_ws_doctest() -> None:
    source = """
import sys
sys.modules["ws_doctest"] = None
from lilya.websockets.asyncapi import AsyncAPI
print(AsyncAPI({}).document["asyncapi"])
try:
    AsyncAPI({}, transcripts=["chat.ws"]).to_json()
except ImportError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.splitlines() == ["3.0.0", "examples from transcripts need ws-doctest: install it"]


# The checks of documents find what is wrong


def planted(change: Callable[[dict[str, Any]], None]) -> list[str]:
    document = json.loads(json.dumps(of(WebSocket[Later, Tree], servers={"a": "wss://example.com"})))
    change(document)
    return problems(document)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda document: document.update(asyncapi="2.6.0"), "top level"),
        (lambda document: document["info"].pop("version"), "no title or no version"),
        (lambda document: document["components"]["schemas"].pop("Node"), "leads nowhere"),
        (lambda document: document["servers"]["a"].update(protocol="http"), "server a"),
        (lambda document: document["channels"]["root"].update(address="/{x}"), "its parameters are not"),
        (lambda document: document["channels"]["root"].update(address="/{x:int}"), "has a converter"),
        (lambda document: document["channels"]["root"].update(address="chat"), "is no path"),
        (lambda document: document["channels"].update(more=document["channels"]["root"]), "have one address"),
        (lambda document: document["operations"]["send_root"].update(action="publish"), "publish"),
        (
            lambda document: document["operations"]["send_root"]["messages"].append({"$ref": "#/info"}),
            "is not of its channel",
        ),
        (lambda document: document["components"]["schemas"].update({"a b": {}}), "is no key"),
        (lambda document: document["components"]["schemas"]["Node"].update(prefixItems=[]), "not draft 7"),
        (
            lambda document: document["components"]["schemas"]["Tree"]["properties"]["root"].update(
                title="a"
            ),
            "beside a reference",
        ),
        (lambda document: document["info"].update({1: 2}), "not what JSON can hold"),
    ],
)
def test_planted_faults(change: Callable[[dict[str, Any]], None], found: str) -> None:
    assert any(found in problem for problem in planted(change))


def test_nothing_planted() -> None:
    assert planted(lambda document: None) == []

"""`WebSocket[In, Out]`: what it is made from, what it receives and sends."""

from __future__ import annotations

import dataclasses
import enum
import json
import re
import sys
from collections.abc import Iterator
from typing import Annotated, Any, Generic, Literal, NewType, TypeVar, Union

import msgspec
import pydantic
import pytest
from typing_extensions import NotRequired, Required, TypeAliasType, TypedDict

from lilya.websockets import (
    WebSocket,
    WebSocketClosed,
    WebSocketDataError,
    WebSocketDisconnect,
    WebSocketRuntimeError,
)
from lilya.websockets.typed import JSON, Codec, MessagePack

from .models import (
    KINDS,
    DataLeave,
    DataSay,
    DictLeave,
    DictSay,
    Kind,
    Leave,
    Say,
    StructLeave,
    StructSay,
    TaggedLeave,
    TaggedSay,
)
from .server import ClientDisconnected, Server, data, disconnect, text

pytestmark = pytest.mark.anyio

T = TypeVar("T")


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    return KINDS[request.param]


def named(value: object) -> str:
    """An id of a test: the same in each of pytest's workers, without the addresses in what is printed."""
    return re.sub(r" at 0x[0-9a-f]+", "", str(value))


def of(kind: Kind, **options: Any) -> Any:
    """A WebSocket that receives and sends both messages of a kind."""

    class Typed(WebSocket[kind.union], library=kind.library, **options):  # type: ignore[name-defined]
        pass

    return Typed


async def opened(cls: Any, *events: Any) -> tuple[Any, Server]:
    server = Server(*events)
    return await server.accepted(cls), server


async def received(cls: Any, *events: Any) -> Any:
    websocket, _ = await opened(cls, *events)
    return await websocket.receive_message()


async def sent(cls: Any, message: Any) -> Any:
    websocket, server = await opened(cls)
    await websocket.send_message(message)
    (only,) = server.sent
    return only.get("text", only.get("bytes"))


def as_dict(message: Any) -> Any:
    if isinstance(message, dict):
        return message
    return msgspec.to_builtins(message, enc_hook=pydantic.BaseModel.model_dump)


# Messages


async def test_messages_of_every_kind_arrive_as_models(kind: Kind) -> None:
    websocket, server = await opened(
        of(kind), text('{"type": "say", "text": "é"}'), text('{"type":"leave"}'), disconnect(1000)
    )
    messages = [message async for message in websocket.iter_messages()]
    assert [as_dict(message) for message in messages] == [{"type": "say", "text": "é"}, {"type": "leave"}]
    if kind.say is not DictSay:
        assert [type(message) for message in messages] == [kind.say, kind.leave]
    assert websocket.close_code == 1000
    assert server.sent == []


async def test_models_of_every_kind_are_sent(kind: Kind) -> None:
    say = kind.say(type="say", text="é") if kind.say is DictSay else kind.say(text="é")
    assert json.loads(await sent(of(kind), say)) == {"type": "say", "text": "é"}
    assert "é" in await sent(of(kind), say)


WRONG = [
    ('{"text": "no type"}', None),
    ('{"type": "shout", "text": "a"}', None),
    ('{"type": [], "text": "a"}', None),
    ('{"type": {"a": 1}}', None),
    ('{"type": null}', None),
    ('{"type": 5}', None),
    ('{"type": true}', None),
    ('{"type": "say"}', ("text",)),
    ('{"type": "say", "text": 5}', ("text",)),
    ("{", ()),
    ("", ()),
    ("5", ()),
    ("null", ()),
    ("[]", ()),
    ('"\ud800"', ()),
    ("[" * 100_000, ()),
    ("{" * 100_000, ()),
    ("9" * 10_000, ()),
    ('{"type": "say", "text": "\ud800"}', None),
]


@pytest.mark.parametrize(("payload", "loc"), WRONG, ids=[payload[:30] for payload, _ in WRONG])
@pytest.mark.contract("typed-received")
async def test_what_a_client_sends_wrong(kind: Kind, payload: str, loc: tuple[Any, ...] | None) -> None:
    websocket, _ = await opened(of(kind), text(payload), text('{"type":"leave"}'))
    with pytest.raises(WebSocketDataError) as raised:
        await websocket.receive_message()
    error = raised.value
    assert error.message == {"type": "websocket.receive", "text": payload}
    assert len(str(error)) < 1000
    assert error.__cause__ is not None
    for detail in error.errors():
        assert set(detail) == {"loc", "type", "msg"}
        assert isinstance(detail["type"], str)
        assert isinstance(detail["msg"], str)
        assert loc is None or detail["loc"] == loc
    assert as_dict(await websocket.receive_message()) == {"type": "leave"}


@pytest.mark.parametrize(
    ("codec", "event", "expected"),
    [
        (JSON(), data(b"{}"), "expected text, got binary data"),
        (JSON(binary=True), text("{}"), "expected binary data, got text"),
        (MessagePack(), text("{}"), "expected binary data, got text"),
    ],
)
async def test_the_wrong_kind_of_message(codec: Codec, event: Any, expected: str) -> None:
    websocket, server = await opened(of(KINDS["pydantic"], codec=codec), event, event, disconnect())
    with pytest.raises(WebSocketDataError, match=expected) as raised:
        await websocket.receive_message()
    (detail,) = raised.value.errors()
    assert detail["loc"] == ()
    assert detail["type"] == "wrong_kind"
    assert [message async for message in websocket.iter_messages(on_error="answer")] == []
    (answer,) = server.sent
    errors = codec.decode(answer["bytes"] if codec.binary else answer["text"])["errors"]
    wanted = "binary" if codec.binary else "text"
    assert errors == [{"loc": [], "type": "wrong_kind", "msg": f"Expected a {wanted} message"}]


async def test_the_errors_of_an_untyped_receive() -> None:
    server = Server(text("{"), text("{}"))
    websocket = await server.accepted()
    with pytest.raises(WebSocketDataError) as raised:
        await websocket.receive_json()
    assert raised.value.errors() == [{"loc": (), "type": "wrong_kind", "msg": raised.value.problem}]


@pytest.mark.parametrize("message", [5, "a", None, [], {}, {"type": "say"}, object(), Kind])
@pytest.mark.contract("typed-sent")
async def test_what_the_app_sends_wrong_is_not_sent(kind: Kind, message: Any) -> None:
    websocket, server = await opened(of(kind))
    with pytest.raises(TypeError, match="a message must be "):
        await websocket.send_message(message)
    assert server.sent == []
    await websocket.send_text("still open")


async def test_a_model_of_another_type_is_not_sent(kind: Kind) -> None:
    class Other(WebSocket[Any, kind.leave], library=kind.library):  # type: ignore[name-defined]
        pass

    say = kind.say(type="say", text="é") if kind.say is DictSay else kind.say(text="é")
    websocket, server = await opened(Other)
    with pytest.raises(TypeError, match="a message must be "):
        await websocket.send_message(say)
    assert server.sent == []


async def test_a_model_of_pydantic_with_a_wrong_value_is_not_sent() -> None:
    wrong = Say(text="a")
    wrong.text = 5  # type: ignore[assignment]
    websocket, server = await opened(WebSocket[Say])
    with pytest.raises(ValueError, match="str"):
        await websocket.send_message(wrong)
    assert server.sent == []


@dataclasses.dataclass
class Circle:
    inner: Any = None


@pytest.mark.parametrize("library", ["pydantic", "msgspec"])
async def test_what_holds_itself_is_not_sent(library: Any) -> None:
    class Typed(WebSocket[Circle], library=library):
        pass

    circle = Circle()
    circle.inner = circle
    websocket, server = await opened(Typed)
    with pytest.raises(ValueError):  # noqa: PT011  # the text is the library's
        await websocket.send_message(circle)
    assert server.sent == []


@pytest.mark.parametrize("kind", [each for each in KINDS.values() if each.say is not DictSay])
async def test_of_a_subclass_only_what_the_type_has_is_sent(kind: Kind) -> None:
    if dataclasses.is_dataclass(kind.say):

        @dataclasses.dataclass
        class Secret(kind.say):  # type: ignore[name-defined,misc]
            password: str = "secret"

    else:

        class Secret(kind.say):  # type: ignore[name-defined,misc,no-redef]
            password: str = "secret"

    assert json.loads(await sent(of(kind), Secret(text="a"))) == {"type": "say", "text": "a"}


class Louder(Say):
    type: Literal["louder"] = "louder"  # type: ignore[assignment]
    volume: int = 11


class SecretLouder(Louder):
    password: str = "secret"


class LouderStruct(TaggedSay, tag="louder"):
    volume: int = 11


class SecretStruct(LouderStruct):
    password: str = "secret"


@dataclasses.dataclass
class LouderData(DataSay):
    type: Literal["louder"] = "louder"  # type: ignore[assignment]
    volume: int = 11


@dataclasses.dataclass
class SecretData(LouderData):
    password: str = "secret"


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(
    ("library", "models"),
    [
        ("pydantic", (Say, Louder, SecretLouder)),
        ("msgspec", (TaggedSay, LouderStruct, SecretStruct)),
        ("pydantic", (DataSay, LouderData, SecretData)),
        ("msgspec", (DataSay, LouderData, SecretData)),
    ],
    ids=["pydantic", "msgspec", "dataclasses by pydantic", "dataclasses by msgspec"],
)
async def test_a_message_of_a_subclass_is_sent_as_the_nearest_of_the_types(
    library: Any, models: Any, turned: bool
) -> None:
    base, derived, secret = models
    union: Any = derived | base if turned else base | derived

    class Typed(WebSocket[union], library=library):
        pass

    expected = {"type": "louder", "text": "a", "volume": 11}
    assert json.loads(await sent(Typed, secret(text="a"))) == expected
    assert json.loads(await sent(Typed, base(text="a"))) == {"type": "say", "text": "a"}


class Number(msgspec.Struct):
    value: Any


@pytest.mark.parametrize("value", [2**70, "\ud800"])
async def test_what_cannot_be_encoded_is_not_sent(value: Any) -> None:
    class Typed(WebSocket[Number], codec=MessagePack()):
        pass

    websocket, server = await opened(Typed)
    with pytest.raises(ValueError):  # noqa: PT011  # the text is the library's
        await websocket.send_message(Number(value))
    assert server.sent == []


# on_error


async def test_an_invalid_message_is_raised_and_another_loop_goes_on(kind: Kind) -> None:
    websocket, _ = await opened(of(kind), text("{"), text('{"type":"leave"}'), disconnect())
    messages = websocket.iter_messages()
    with pytest.raises(WebSocketDataError):
        await anext(messages)
    assert as_dict(await anext(messages)) == {"type": "leave"}
    assert [message async for message in websocket.iter_messages()] == []


async def test_an_invalid_message_is_answered(kind: Kind) -> None:
    websocket, server = await opened(
        of(kind), text('{"type": "say", "text": 5}'), text('{"type":"leave"}'), disconnect()
    )
    messages = [message async for message in websocket.iter_messages(on_error="answer")]
    assert [as_dict(message) for message in messages] == [{"type": "leave"}]
    (answer,) = server.sent
    said = json.loads(answer["text"])
    assert set(said) == {"type", "errors"}
    assert said["type"] == "error"
    (error,) = said["errors"]
    assert error["loc"] == ["text"]
    assert error["msg"]


async def test_an_invalid_message_closes(kind: Kind) -> None:
    websocket, server = await opened(of(kind), text("{"), text('{"type":"leave"}'))
    assert [message async for message in websocket.iter_messages(on_error="close")] == []
    assert [(message["type"], message.get("code")) for message in server.sent] == [("websocket.close", 1007)]
    assert websocket.closed_by == "server"


async def test_a_client_that_leaves_while_it_is_answered_ends_the_iteration() -> None:
    websocket, server = await opened(WebSocket[Say], text("{"))
    server.fail(ClientDisconnected())
    assert [message async for message in websocket.iter_messages(on_error="answer")] == []
    assert websocket.close_code == 1006


async def test_on_error_is_one_of_three() -> None:
    websocket, _ = await opened(WebSocket[Say])
    with pytest.raises(ValueError, match="on_error must be 'raise', 'answer' or 'close', got 'ignore'"):
        websocket.iter_messages(on_error="ignore")


class Guarded(pydantic.BaseModel):
    a: int = 0
    b: list[Say] = []
    c: dict[str, int] = {}

    model_config = pydantic.ConfigDict(extra="forbid")

    @pydantic.field_validator("a")
    @classmethod
    def of_app(cls, value: int) -> int:
        if value == 1:
            raise ValueError("internal secret of the app")
        if value == 2:
            raise AssertionError("internal secret of the app")
        if value == 3:
            raise pydantic.ValidationError.from_exception_data(
                "x",
                [{"type": "value_error", "input": value, "ctx": {"error": ValueError("internal secret")}}],
            )
        if value == 4:
            from pydantic_core import PydanticCustomError

            raise PydanticCustomError("of_the_app", "internal secret")
        return value


class GuardedStruct(msgspec.Struct):
    a: int = 0

    def __post_init__(self) -> None:
        if self.a:
            raise ValueError("internal secret of the app")


@pytest.mark.parametrize("model", [Guarded, GuardedStruct])
@pytest.mark.parametrize("value", [1, 2, 3, 4])
async def test_an_answer_has_nothing_of_the_app_in_it(model: Any, value: int) -> None:
    cls: Any = WebSocket[model]
    websocket, server = await opened(cls, text(f'{{"a": {value}}}'), text(f'{{"a": {value}}}'), disconnect())
    with pytest.raises(WebSocketDataError) as raised:
        await websocket.receive_message()
    assert "internal secret" in raised.value.errors()[0]["msg"]
    async for _ in websocket.iter_messages(on_error="answer"):
        raise AssertionError("it is invalid")
    (answer,) = server.sent
    assert "secret" not in answer["text"]
    assert "of_the_app" not in answer["text"]
    assert json.loads(answer["text"])["errors"][0]["type"] == "invalid"


@pytest.mark.parametrize(
    "payload",
    [
        '{"b": [1]}',
        "5",
        json.dumps({"x" * 100_000: 1}),
        json.dumps({"c": {"x" * 100_000: "a"}}),
        json.dumps({str(number): 1 for number in range(90)}),
        json.dumps({str(number): 1 for number in range(5000)}),
        json.dumps({"b": "x" * 100_000}),
        json.dumps({"\ud800": 1}),
    ],
)
async def test_an_answer_is_bounded_and_names_no_class(payload: str) -> None:
    websocket, server = await opened(WebSocket[Guarded], text(payload), text(payload), disconnect())
    with pytest.raises(WebSocketDataError) as raised:
        await websocket.receive_message()
    assert 1 <= len(raised.value.errors()) <= 100
    assert len(repr(raised.value.errors())) < 50_000
    assert len(str(raised.value)) < 1000
    async for _ in websocket.iter_messages(on_error="answer"):
        raise AssertionError("it is invalid")
    (answer,) = server.sent
    assert len(answer["text"]) < 6000
    assert "Say" not in answer["text"]
    assert "Guarded" not in answer["text"]
    assert len(json.loads(answer["text"])["errors"]) <= 10


class Root(pydantic.RootModel[list[int]]):
    pass


class Nested(pydantic.BaseModel):
    either: Say | Guarded | None = None
    said: dict[str, Say] = {}


@pytest.mark.parametrize(
    ("types", "payload", "place"),
    [
        (Say | None, '{"text": 5}', ["text"]),
        (Say | str, '{"text": 5}', ["text"]),
        (Say | Leave | str, '{"type": "say", "text": 5}', ["text"]),
        (Say | Leave | list[int], '{"type": "say"}', ["text"]),
        (Nested, '{"either": {"text": 5, "a": "x"}}', ["either", "text"]),
        (Nested, '{"said": {"x": {"text": 5}}}', ["said", "x", "text"]),
        (Nested, '{"said": {"x": 5}}', ["said", "x"]),
        (Nested | Root, '{"said": {"x": {}}}', ["said", "x", "text"]),
        (list[Say | Leave], '[{"type": "leave"}, {"type": "say", "text": 5}]', [1, "text"]),
        (list[Say | Leave] | str, '[{"type": "leave"}, {"text": 5}]', [1]),
    ],
    ids=named,
)
async def test_places_are_those_in_the_message(types: Any, payload: str, place: list[Any]) -> None:
    websocket, server = await opened(WebSocket[types], text(payload), disconnect())
    async for _ in websocket.iter_messages(on_error="answer"):
        raise AssertionError("it is invalid")
    (answer,) = server.sent
    assert place in [error["loc"] for error in json.loads(answer["text"])["errors"]]
    for name in ("Say", "Leave", "Guarded", "Root", "tagged-union"):
        assert name not in answer["text"]


async def test_no_text_of_an_answer_names_a_class() -> None:
    class Typed(WebSocket[Nested], codec=MessagePack()):
        pass

    payload = msgspec.msgpack.encode({"said": {"x": 5}})
    websocket, server = await opened(Typed, data(payload), disconnect())
    async for _ in websocket.iter_messages(on_error="answer"):
        raise AssertionError("it is invalid")
    (error,) = msgspec.msgpack.decode(server.sent[0]["bytes"])["errors"]
    assert error == {"loc": ["said", "x"], "type": "model_type", "msg": "Input should be an object"}


# What untyped WebSockets do


@pytest.mark.parametrize("attempt", ["iter_messages", "receive_message", "send_message", "call"])
async def test_an_untyped_websocket_names_the_way(attempt: str) -> None:
    websocket, server = await opened(WebSocket)
    arguments = ["a"] if attempt in ("send_message", "call") else []
    with pytest.raises(WebSocketRuntimeError) as raised:
        await getattr(websocket, attempt)(*arguments)
    assert "has no message types. Use WebSocket[In, Out](scope, receive, send)" in str(raised.value)
    assert "WebSocket[In, Out].wrap(websocket)" in str(raised.value)
    assert server.sent == []


@pytest.mark.parametrize("wrapped", [True, False])
async def test_a_route_of_starlette_looks_at_no_annotation(wrapped: bool) -> None:
    from lilya.websockets.starlette import WebSocket, WebSocketRoute

    Talk = WebSocket[Say, Say]
    seen: list[Say] = []

    async def talk(websocket: Talk) -> None:
        async with Talk.wrap(websocket) if wrapped else websocket as typed:
            seen.append(await typed.receive_message())

    server = Server(text('{"type": "say", "text": "hello"}'))
    app = WebSocketRoute("/", talk).app
    if wrapped:
        await app(server.scope, server.receive, server.send)
        assert [message.text for message in seen] == ["hello"]
    else:
        with pytest.raises(WebSocketRuntimeError, match="has no message types"):
            await app(server.scope, server.receive, server.send)


async def test_wrap_gives_an_untyped_one_types() -> None:
    server = Server(text('{"text": "a"}'), disconnect(4000))
    untyped = await server.accepted()
    websocket = WebSocket[Say].wrap(untyped)
    assert type(websocket).__name__ == "WebSocket[Say]"
    assert await websocket.receive_message() == Say(text="a")
    assert [message async for message in websocket.iter_messages()] == []
    assert untyped.close_code == websocket.close_code == 4000
    assert WebSocket[Say].wrap(websocket) is websocket
    assert WebSocket.wrap(websocket) is websocket


async def test_before_accept_and_after_the_end() -> None:
    server = Server(disconnect())
    cls: Any = WebSocket[Say]
    websocket: Any = server.websocket(cls)
    with pytest.raises(WebSocketRuntimeError, match="cannot receive text yet"):
        await websocket.receive_message()
    with pytest.raises(WebSocketRuntimeError, match="cannot iterate yet"):
        await anext(websocket.iter_messages())
    with pytest.raises(WebSocketRuntimeError, match="yet"):
        await websocket.send_message(Say(text="a"))
    await websocket.accept()
    with pytest.raises(WebSocketDisconnect):
        await websocket.receive_message()
    with pytest.raises(WebSocketClosed):
        await websocket.send_message(Say(text="a"))
    assert [message async for message in websocket.iter_messages()] == []


async def test_time_limits() -> None:
    websocket, server = await opened(WebSocket[Say])
    with pytest.raises(TimeoutError):
        await websocket.receive_message(timeout=0.01)
    server.push(text('{"text": "a"}'))
    assert await websocket.receive_message(timeout=5) == Say(text="a")
    server.held.add("websocket.send")
    with pytest.raises(TimeoutError):
        await websocket.send_message(Say(text="a"), timeout=0.01)


async def test_in_a_block() -> None:
    server = Server(text('{"text": "a"}'))
    cls: Any = WebSocket[Say]
    async with server.websocket(cls) as websocket:
        async for message in websocket.iter_messages():
            await websocket.send_message(message)
            server.push(disconnect(1000))
    assert server.sent[1]["text"] == '{"type":"say","text":"a"}'


# What types it is made from


def test_it_is_made_once_for_the_same_types() -> None:
    assert WebSocket[Say | Leave, Say] is WebSocket[Say | Leave, Say]
    assert WebSocket[Say] is WebSocket[Say, Say]
    assert WebSocket[Say]._typed is not None
    others: Any = WebSocket[Say, Leave]
    assert WebSocket[Say] is not others
    assert issubclass(WebSocket[Say], WebSocket)
    assert WebSocket[Say | Leave, Say].__name__ == "WebSocket[Say | Leave, Say]"


def test_any_is_untyped() -> None:
    assert WebSocket[Any] is WebSocket[Any, Any] is WebSocket


class Unhashable:
    __hash__ = None  # type: ignore[assignment]


def test_types_that_have_no_hash() -> None:
    cls = WebSocket[Annotated[Say, Unhashable()]]
    assert cls._typed is not None
    with pytest.raises(TypeError, match="nothing tells"):
        WebSocket[Annotated[Say | dict[str, int], Unhashable()]]


@pytest.mark.parametrize("types", [(T, T), T, "Say", (Say, "Said"), list[T], Say | T])  # type: ignore[valid-type]
def test_types_that_are_not_known_yet_make_an_annotation(types: Any) -> None:
    annotation: Any = WebSocket[types]
    assert annotation.__origin__ is WebSocket
    server = Server()
    with pytest.raises(WebSocketRuntimeError, match="no message types"):
        annotation(server.scope, server.receive, server.send).iter_messages()


class Base(WebSocket[T]):
    """A generic class of an app."""

    greeting = "hello"

    async def send_message(self, message: Any, timeout: float | None = None) -> None:
        await self.send_text(self.greeting)
        await super().send_message(message, timeout)


async def test_a_subclass_of_an_app_keeps_what_it_overrides() -> None:
    cls: Any = Base[Say]
    assert cls.__name__ == "Base[Say]"
    websocket, server = await opened(cls)
    await websocket.send_message(Say(text="a"))
    assert [message["text"] for message in server.sent] == ["hello", '{"type":"say","text":"a"}']


@pytest.mark.parametrize("types", [(), (Say,) * 3])
def test_other_than_one_or_two_types(types: Any) -> None:
    with pytest.raises(TypeError, match=rf"takes one type or two, got {len(types)}"):
        WebSocket[types]


def test_types_once() -> None:
    with pytest.raises(TypeError, match=r"WebSocket\[Say\] has types already"):
        WebSocket[Say][Leave]


class Empty(pydantic.BaseModel):
    pass


class Same(pydantic.BaseModel):
    type: Literal["say"] = "say"


class EmptyStruct(msgspec.Struct):
    pass


class OtherTag(msgspec.Struct, tag_field="kind", tag="other"):
    pass


class Renamed(msgspec.Struct):
    type: Literal["renamed"] = msgspec.field(default="renamed", name="t")


@dataclasses.dataclass
class Nameless:
    type: NotThere  # type: ignore[name-defined]  # noqa: F821


class NamelessStruct(msgspec.Struct, tag="nameless"):
    field: NotThere  # type: ignore[name-defined]  # noqa: F821


class ArrayStruct(msgspec.Struct, array_like=True):
    a: int


UNTOLD = [
    Say | Empty,
    Say | Same,
    Say | dict[str, int],
    list[Say | Empty],
    Annotated[Say | Empty, "said in the room"],
    Say | DictSay,
    StructSay | EmptyStruct,
    TaggedSay | StructSay,
    DataSay | dict[str, Any],
    DataSay | Nameless,
    Union[Say, Any],  # noqa: UP007  # `|` does not take it on every Python
    list[int] | dict[str, int] | Empty,
]


@pytest.mark.parametrize("types", UNTOLD, ids=named)
def test_a_union_of_models_that_nothing_tells_apart(types: Any) -> None:
    with pytest.raises(TypeError, match=r"nothing tells the members of .* apart") as raised:
        WebSocket[types]
    assert "`type: Literal[" in str(raised.value)
    assert ("tag=True" in str(raised.value)) is ("Struct" in str(types))


@pytest.mark.parametrize(
    ("types", "words"),
    [
        (Say | TaggedSay, "is made from types of pydantic and of msgspec"),
        (list[Say] | TaggedSay, "is made from types of pydantic and of msgspec"),
        (StructLeave | Renamed, "has several names in messages: t, type"),
        (TaggedSay | OtherTag, "msgspec cannot make messages of TaggedSay | OtherTag"),
        (Nameless, "Nameless"),
        (NamelessStruct | TaggedSay, "msgspec cannot make messages of NamelessStruct | TaggedSay"),
        (ArrayStruct | TaggedSay, "msgspec cannot make messages of ArrayStruct | TaggedSay"),
    ],
    ids=named,
)
def test_types_of_which_no_messages_can_be_made(types: Any, words: str) -> None:
    with pytest.raises(TypeError) as raised:
        WebSocket[types]
    assert words in str(raised.value)


def test_a_library_that_is_not_that_of_the_types() -> None:
    with pytest.raises(TypeError, match="Say is of pydantic, and cannot be served by msgspec"):

        class Typed(WebSocket[Say], library="msgspec"):
            pass


def test_a_library_that_is_none() -> None:
    with pytest.raises(ValueError, match="library must be 'pydantic' or 'msgspec', got 'attrs'"):

        class Typed(WebSocket[Say], library="attrs"):
            pass


@pytest.mark.parametrize("value", [1, "utf-8", None])
def test_binary_of_another_type(value: Any) -> None:
    with pytest.raises(TypeError, match=f"^binary must be bool, got {type(value).__name__}$"):
        JSON(binary=value)


def test_a_codec_that_is_none() -> None:
    with pytest.raises(TypeError, match="codec must be a Codec, got str"):

        class Typed(WebSocket[Say], codec="json"):
            pass


UserId = NewType("UserId", int)
Named = TypeAliasType("Named", Say | Leave)


class Event(pydantic.BaseModel, Generic[T]):
    kind: Literal["event"] = "event"
    body: T


class OtherEvent(pydantic.BaseModel):
    kind: Literal["other"] = "other"


NESTED = Event[Event[Say]](body=Event[Say](body=Say(text="a")))


class Deferred(pydantic.BaseModel):
    kind: Literal["deferred"] = "deferred"
    later: Later | None = None


class Later(pydantic.BaseModel):
    at: int


class Optional(TypedDict):
    type: Required[Literal["optional"]]
    at: NotRequired[int]


class Untagged(TypedDict, total=False):
    type: Literal["untagged"]


def kind_of(value: Any) -> Any:
    return value.get("kind") if isinstance(value, dict) else getattr(value, "kind", None)


class Left(pydantic.BaseModel):
    kind: str = "left"


class Right(pydantic.BaseModel):
    kind: str = "right"


Told = Annotated[
    Annotated[Left, pydantic.Tag("left")] | Annotated[Right, pydantic.Tag("right")],
    pydantic.Discriminator(kind_of),
]


class Several(pydantic.BaseModel):
    type: Literal["first", "second"]


class SeveralStruct(msgspec.Struct):
    type: Literal["first", "second"]


class Colour(str, enum.Enum):
    RED = "red"
    BLUE = "blue"


class Red(pydantic.BaseModel):
    colour: Literal[Colour.RED] = Colour.RED


class Blue(pydantic.BaseModel):
    colour: Literal[Colour.BLUE] = Colour.BLUE


class Yes(msgspec.Struct):
    ok: Literal[True] = True


class No(msgspec.Struct):
    ok: Literal[False] = False


Tree = TypeAliasType("Tree", "list[Tree] | int")


@pytest.mark.parametrize(
    ("types", "payload", "value"),
    [
        (Optional | Untagged, '{"type": "untagged"}', {"type": "untagged"}),
        (Optional | Untagged, '{"type": "optional", "at": 1}', {"type": "optional", "at": 1}),
        (Told, '{"kind": "right"}', Right()),
        (Told | None, '{"kind": "right"}', Right()),
        (Told | None, "null", None),
        (list[Told | int], '[{"kind": "left"}, 1]', [Left(), 1]),
        (Several | Leave, '{"type": "second"}', Several(type="second")),
        (SeveralStruct | StructLeave, '{"type": "second"}', SeveralStruct(type="second")),
        (Red | Blue, '{"colour": "blue"}', Blue()),
        (Yes | No, '{"ok": false}', No()),
        (Tree, "[1, [2]]", [1, [2]]),
        (Event[Event[Say]] | OtherEvent, '{"body": {"body": {"text": "a"}}, "kind": "event"}', NESTED),
        (int, "5", 5),
        (str, '"a"', "a"),
        (int | str | None, "null", None),
        (list[Say], '[{"text": "a"}]', [Say(text="a")]),
        (list[TaggedSay], '[{"type": "say", "text": "a"}]', [TaggedSay("a")]),
        (list[Say | Leave], '[{"type": "leave"}, {"type": "say", "text": "a"}]', [Leave(), Say(text="a")]),
        (dict[str, Say | Leave | None], '{"a": {"type": "leave"}, "b": null}', {"a": Leave(), "b": None}),
        (tuple[int, ...] | Say, '{"text": "a"}', Say(text="a")),
        (dict[str, int], '{"a": 1}', {"a": 1}),
        (Say | None, "null", None),
        (Say | str, '"a"', "a"),
        (Say | Leave | str | None, '"a"', "a"),
        (Say | Leave | list[int], '{"type": "leave"}', Leave()),
        (StructSay | StructLeave | str | None, '"a"', "a"),
        (StructSay | StructLeave | str | None, '{"type": "leave"}', StructLeave()),
        (TaggedSay | TaggedLeave | int, "5", 5),
        (UserId, "5", 5),
        (Named, '{"type": "leave"}', Leave()),
        (Union[Named, str], '"a"', "a"),  # noqa: UP007
        (Annotated[Say | Leave, "said in the room"], '{"type": "leave"}', Leave()),
        (
            Annotated[Say | Leave, pydantic.Field(discriminator="type")],
            '{"type": "say", "text": "a"}',
            Say(text="a"),
        ),
        (Root | Say, "[1]", Root([1])),
        (Event[Say] | OtherEvent, '{"kind": "event", "body": {"text": "a"}}', Event[Say](body=Say(text="a"))),
        (Deferred | OtherEvent, '{"kind": "deferred", "later": {"at": 1}}', Deferred(later=Later(at=1))),
        (Literal["a", "b"], '"a"', "a"),
        (ArrayStruct | None, "[1]", ArrayStruct(1)),
        (Any | None, '{"a": [1]}', {"a": [1]}),
    ],
    ids=named,
)
async def test_types_of_which_messages_can_be_made(types: Any, payload: str, value: Any) -> None:
    cls: Any = WebSocket[types]
    assert await received(cls, text(payload)) == value
    assert json.loads(await sent(cls, value)) == json.loads(
        await sent(cls, await received(cls, text(payload)))
    )


@pytest.mark.parametrize(
    ("types", "payload", "words"),
    [
        (
            Red | Blue,
            '{"colour": "green"}',
            "'green' found using 'colour' does not match any of the expected tags: 'red', 'blue'",
        ),
        (Red, '{"colour": "green"}', "Input should be 'red'"),
        (Told, '{"kind": "up"}', "Input tag 'up' does not match any of the expected tags: 'left', 'right'"),
        (Told, "5", "Unable to extract tag"),
    ],
    ids=named,
)
async def test_no_text_of_an_answer_names_an_enum_or_a_function(types: Any, payload: str, words: str) -> None:
    websocket, server = await opened(WebSocket[types], text(payload), disconnect())
    async for _ in websocket.iter_messages(on_error="answer"):
        raise AssertionError("it is invalid")
    (answer,) = server.sent
    assert json.loads(answer["text"])["errors"][0]["msg"].endswith(words)
    assert "Colour" not in answer["text"]
    assert "kind_of" not in answer["text"]


@pytest.mark.parametrize(
    ("types", "value"),
    [
        (list[Say], [Leave()]),
        (list[TaggedSay], [TaggedLeave()]),
        (int, "a"),
        (Literal["a"], "b"),
        (Say | str, 5),
    ],
    ids=named,
)
async def test_values_that_are_not_of_the_type(types: Any, value: Any) -> None:
    cls: Any = WebSocket[types]
    with pytest.raises(TypeError, match="a message must be "):
        await sent(cls, value)


class Aliased(pydantic.BaseModel):
    said_by: str = pydantic.Field(alias="saidBy")


@pytest.mark.parametrize("library", ["pydantic", "msgspec"])
async def test_numbers_that_json_does_not_have(library: Any) -> None:
    class Typed(WebSocket[list[float]], library=library):
        pass

    assert await sent(Typed, [float("nan"), float("-inf")]) == "[null,null]"
    if library == "msgspec":
        with pytest.raises(WebSocketDataError):
            await received(Typed, text("[NaN]"))
    else:
        assert await received(Typed, text("[Infinity]")) == [float("inf")]
    finite: Any = WebSocket[list[Annotated[float, pydantic.Field(allow_inf_nan=False)]]]
    with pytest.raises(WebSocketDataError):
        await received(finite, text("[Infinity]"))


async def test_the_names_in_messages_are_the_aliases() -> None:
    message = await received(WebSocket[Aliased], text('{"saidBy": "ann"}'))
    assert await sent(WebSocket[Aliased], message) == '{"saidBy":"ann"}'


@pytest.mark.parametrize("library", ["pydantic", "msgspec"])
async def test_nesting_without_end_is_a_data_error(library: Any) -> None:
    class Typed(WebSocket[list[Any]], library=library):
        pass

    websocket, _ = await opened(Typed, text("[" * 100_000), text("[1]"))
    with pytest.raises(WebSocketDataError, match=r"nested too deep|recursion limit"):
        await websocket.receive_message()
    assert await websocket.receive_message() == [1]


def test_a_model_that_is_defined_later() -> None:
    class First(pydantic.BaseModel):
        type: Literal["first"] = "first"
        other: Second | None = None  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(TypeError, match=r"First.*Second"):
        WebSocket[First | Leave]


# Codecs


@pytest.mark.parametrize("codec", [JSON(binary=True), MessagePack()], ids=lambda codec: type(codec).__name__)
async def test_binary_messages(kind: Kind, codec: Codec) -> None:
    payload = codec.encode({"type": "say", "text": "é"})
    assert isinstance(payload, bytes)
    websocket, server = await opened(
        of(kind, codec=codec), data(payload), data(b"\xff"), data(b""), disconnect()
    )
    async for message in websocket.iter_messages(on_error="answer"):
        assert as_dict(message) == {"type": "say", "text": "é"}
        await websocket.send_message(message)
    echo, *answers = server.sent
    assert codec.decode(echo["bytes"]) == {"type": "say", "text": "é"}
    assert [codec.decode(answer["bytes"])["type"] for answer in answers] == ["error", "error"]


class Reversed(Codec):
    """JSON from its end."""

    def decode(self, data: str) -> Any:
        return json.loads(data[::-1])

    def encode(self, value: Any) -> str:
        return json.dumps(value)[::-1]


async def test_a_codec_of_ones_own(kind: Kind) -> None:
    cls = of(kind, codec=Reversed())
    websocket, server = await opened(
        cls, text('}"yas" :"epyt" ,"a" :"txet"{'), text("{"), text("5"), disconnect()
    )
    async for message in websocket.iter_messages(on_error="answer"):
        assert as_dict(message) == {"type": "say", "text": "a"}
        await websocket.send_message(message)
    echo, undecodable, invalid = [json.loads(message["text"][::-1]) for message in server.sent]
    assert echo == {"type": "say", "text": "a"}
    assert undecodable["errors"] == [{"loc": [], "type": "malformed", "msg": "the message cannot be decoded"}]
    assert invalid["type"] == "error"


class Broken(Codec):
    def decode(self, data: Any) -> Any:
        raise KeyError(data)


@pytest.mark.parametrize("kind", [KINDS["pydantic"], KINDS["msgspec-literal"]])
async def test_any_exception_of_a_codec_is_a_data_error(kind: Kind) -> None:
    with pytest.raises(WebSocketDataError, match="the message cannot be decoded") as raised:
        await received(of(kind, codec=Broken()), text("a"))
    assert isinstance(raised.value.__cause__, ValueError)
    assert isinstance(raised.value.__cause__.__cause__, KeyError)


def test_a_codec_that_defines_nothing() -> None:
    for call in (Codec().decode, Codec().encode):
        with pytest.raises(NotImplementedError, match="Codec must define "):
            call("a")


async def test_a_codec_for_types_that_are_served_by_the_other_library() -> None:
    class Typed(WebSocket[DataSay | DataLeave, DictSay | DictLeave], codec=MessagePack(), library="msgspec"):
        pass

    payload = msgspec.msgpack.encode({"type": "leave"})
    assert await received(Typed, data(payload)) == DataLeave()
    assert await sent(Typed, {"type": "leave"}) == payload


class Bytes(pydantic.BaseModel):
    payload: bytes
    link: pydantic.AnyUrl | None = None


async def test_bytes_in_messagepack_are_bytes() -> None:
    class Typed(WebSocket[Bytes], codec=MessagePack()):
        pass

    message = Bytes(payload=b"\xff\x00", link=pydantic.AnyUrl("http://a/"))
    packed = await sent(Typed, message)
    assert msgspec.msgpack.decode(packed) == {"payload": b"\xff\x00", "link": "http://a/"}
    assert await received(Typed, data(packed)) == message


# What is not installed


@pytest.fixture
def without() -> Iterator[Any]:
    """Makes modules impossible to import, and ours that need them to be imported anew."""
    patch = pytest.MonkeyPatch()

    def remove(*names: str) -> None:
        for name in names:
            for module in [each for each in sys.modules if each == name or each.startswith(f"{name}.")]:
                patch.setitem(sys.modules, module, None)
            patch.delitem(sys.modules, f"lilya.websockets.typed._{name}", raising=False)

    yield remove
    patch.undo()


async def test_without_both_libraries(without: Any) -> None:
    class Own(TypedDict):  # of which no other test has made messages
        x: float

    without("pydantic", "msgspec")
    with pytest.raises(
        ImportError, match=r"install lilya-websockets\[pydantic\] or lilya-websockets\[msgspec\]"
    ):
        WebSocket[Own]


@pytest.mark.parametrize(("name", "other"), [("pydantic", "msgspec"), ("msgspec", "pydantic")])
async def test_without_one_of_them(without: Any, name: str, other: Any) -> None:
    without(name)
    assert await received(WebSocket[list[bytes], list[str]], text('["YQ=="]')) != []

    with pytest.raises(ImportError, match=rf"install lilya-websockets\[{name}\]"):

        class Typed(WebSocket[list[int]], library=name):
            pass


def test_messagepack_without_msgspec(without: Any) -> None:
    without("msgspec")
    with pytest.raises(ImportError, match=r"MessagePack needs msgspec: install lilya-websockets\[msgspec\]"):
        MessagePack()

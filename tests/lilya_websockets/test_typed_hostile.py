"""What clients send to typed WebSockets to do harm: only documented errors, and work that is linear."""

from __future__ import annotations

import dataclasses
import enum
import json
import sys
import uuid
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from types import FrameType
from typing import Annotated, Any, Literal, NamedTuple, Union

import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lilya.websockets import WebSocket, WebSocketDataError
from lilya.websockets.typed import JSON, Codec, MessagePack
from lilya.websockets.typed._hashes import longest

from .models import KINDS, Kind
from .server import Server, data, steps, text


def of(kind: Kind, codec: Codec | None = None, more: Any = None) -> Any:
    union = kind.union | more if more else kind.union

    class Typed(WebSocket[union], library=kind.library, codec=codec):  # type: ignore[valid-type]
        pass

    return Typed


CLASSES = {
    **{f"{name}": of(kind) for name, kind in KINDS.items()},
    **{f"{name}-binary": of(KINDS[name], JSON(binary=True)) for name in ("pydantic", "msgspec-literal")},
    **{f"{name}-msgpack": of(kind, MessagePack()) for name, kind in KINDS.items()},
    **{
        f"{name}-or-list": of(KINDS[name], more=list[int] | None)
        for name in ("pydantic", "msgspec-tagged", "msgspec-literal", "dict-by-pydantic")
    },
}


def try_it(cls: Any, payload: Any) -> None:
    """Whatever it is: a message, or a documented error that is bounded, and the connection stays usable."""
    event = text(payload) if isinstance(payload, str) else data(payload)
    server = Server(event, event)
    websocket = server.websocket(cls)
    steps(websocket.accept())
    try:
        message = steps(websocket.receive_message())
    except WebSocketDataError as raised:
        error = raised
    else:
        steps(websocket.send_message(message))
        return
    assert error.message == event
    assert len(str(error)) < 2000
    details = error.errors()
    assert 1 <= len(details) <= 100
    assert len(repr(details)) < 100_000
    server.push({"type": "websocket.disconnect", "code": 1000})
    server.sent.clear()
    with pytest.raises(StopAsyncIteration):
        steps(anext(websocket.iter_messages(on_error="answer")))
    (answer,) = server.sent
    assert len(repr(answer)) < 20_000


PRINTED = st.text(st.characters(codec=None))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | PRINTED,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(PRINTED, inner, max_size=4),
    max_leaves=10,
)
MESSAGES = st.fixed_dictionaries(
    {"type": st.sampled_from(["say", "leave", "shout"]) | VALUES}, optional={"text": PRINTED | VALUES}
)


@pytest.mark.parametrize("name", CLASSES)
@given(value=MESSAGES | VALUES)
def test_any_value(name: str, value: Any) -> None:
    cls = CLASSES[name]
    codec = cls._typed.codec
    if isinstance(codec, MessagePack):
        try:
            payload: Any = msgspec.msgpack.encode(value)
        except (UnicodeEncodeError, OverflowError):
            return
    else:
        payload = json.dumps(value, ensure_ascii=False)
        if codec.binary:
            payload = payload.encode("utf-8", "surrogatepass")
    try_it(cls, payload)


@pytest.mark.parametrize("name", CLASSES)
@given(payload=st.binary() | st.text(st.characters(codec=None)))
def test_any_payload(name: str, payload: Any) -> None:
    try_it(CLASSES[name], payload)


MEGABYTES = 10_000_000
HOSTILE = {
    "arrays": "[" * 1_000_000,
    "objects": '{"type":' * 200_000,
    "closed": "[" * 500 + "]" * 500,
    "nested text": '{"type":"say","text":' + "[" * 100_000 + "]" * 100_000 + "}",
    "integer": "9" * 1_000_000,
    "integer as text": '{"type":"say","text":' + "9" * 1_000_000 + "}",
    "exponent": '{"type":"say","text":1e999999999}',
    "duplicate types": '{"type":"say","type":"leave","type":"say","text":"a","text":5}',
    "many duplicates": "{" + '"type":"say",' * 100_000 + '"text":"a"}',
    "many keys": "{" + ",".join(f'"{number}":1' for number in range(100_000)) + "}",
    "long text": '{"type":"say","text":"' + "x" * MEGABYTES + '"}',
    "long type": '{"type":"' + "x" * MEGABYTES + '"}',
    "long key": '{"' + "x" * MEGABYTES + '":1}',
    "escaped surrogate": '{"type":"say","text":"\\ud800"}',
    "surrogate": '{"type":"say","text":"\ud800"}',
    "nul": '{"type":"say","text":"\\u0000"}',
    "wrong items": "[" + '"a",' * 100_000 + "1]",
    "NaN": '{"type":"say","text":NaN}',
    "blanks": " " * 1_000_000 + "{}",
}


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("payload", HOSTILE.values(), ids=HOSTILE)
def test_hostile_payloads(name: str, payload: str) -> None:
    cls = CLASSES[name]
    binary = cls._typed.codec.binary
    try_it(cls, payload.encode("utf-8", "surrogatepass") if binary else payload)


@pytest.mark.parametrize("name", [name for name in CLASSES if "msgpack" in name])
@pytest.mark.parametrize(
    "payload",
    [
        b"\x91" * 100_000,
        b"\x81\xa4type" * 100_000,
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\xdb\xff\xff\xff\xffaaaa",
        b"\xc6\xff\xff\xff\xff",
        b"\xd6\xff\x00\x00\x00\x00",
        b"\xc7\x0c\xff" + b"\xff" * 12,
        b"\xc8\x00\x04\x05aaaa",
        b"\x81\x90\x01",
        b"\x81\xc0\x01",
        b"\x82\xa4type\xa3say\xa4text\xa1\xff",
        b"\xcb\x7f\xf8\x00\x00\x00\x00\x00\x00",
    ],
)
def test_hostile_messagepack(name: str, payload: bytes) -> None:
    try_it(CLASSES[name], payload)


def test_a_hundred_models() -> None:
    create: Any = pydantic.create_model
    literals: list[Any] = [Literal[f"m{n}"] for n in range(100)]
    kinds: list[Any] = ["m0", "m99", "m100", "x" * 1_000_000, 5, None, [], {}]
    for models in (
        [create(f"M{n}", type=(literals[n], f"m{n}"), text=(str, "")) for n in range(100)],
        [msgspec.defstruct(f"S{n}", [("type", literals[n], f"m{n}"), ("text", str, "")]) for n in range(100)],
        [msgspec.defstruct(f"T{n}", [("text", str, "")], tag=f"m{n}") for n in range(100)],
    ):
        union: Any = Union[tuple(models)]  # noqa: UP007  # made at run time
        cls: Any = WebSocket[union]
        for kind in kinds:
            for words in ("a", 5, "x" * 1_000_000):
                try_it(cls, json.dumps({"type": kind, "text": words}))


# Numbers of one hash: Python compares each of them with all others.
SAME_HASH = [number * (2**61 - 1) for number in range(1, 3000)]


class PydanticInts(pydantic.BaseModel):
    ids: set[int]


class PydanticFew(pydantic.BaseModel):
    ids: Annotated[set[int], pydantic.Field(max_length=50)]


class PydanticSmall(pydantic.BaseModel):
    ids: list[dict[Annotated[int, pydantic.Field(ge=0, lt=2**53)], str]]


class MsgspecInts(msgspec.Struct):
    ids: set[int]


class MsgspecFew(msgspec.Struct):
    ids: Annotated[set[int], msgspec.Meta(max_length=300)]


class MsgspecSmall(msgspec.Struct):
    ids: list[dict[Annotated[int, msgspec.Meta(ge=0, lt=2**53)], str]]


class Point(NamedTuple):
    x: int


@dataclasses.dataclass(frozen=True)
class Frozen:
    inner: tuple[Fraction, ...] = ()
    others: frozenset[str] = frozenset()
    self: Frozen | None = None


@dataclasses.dataclass(frozen=True)
class Name:
    text: str


class Colour(enum.Enum):
    RED = 1


@pytest.mark.parametrize(
    ("type_", "library", "most"),
    [
        (PydanticInts, "pydantic", 16_384),
        (MsgspecInts, "msgspec", 16_384),
        (PydanticFew, "pydantic", None),
        (MsgspecFew, "msgspec", 30_000),
        (PydanticSmall, "pydantic", None),
        (MsgspecSmall, "msgspec", None),
        (set[uuid.UUID], "pydantic", 16_384),
        (list[dict[str, set[Decimal]] | None], "msgspec", 16_384),
        (dict[uuid.UUID, str] | int, "pydantic", 16_384),
        (frozenset[tuple[str, int]], "msgspec", 16_384),
        (set[Point], "pydantic", 16_384),
        (set[Frozen], "pydantic", 16_384),
        (set[tuple[str, ...]], "pydantic", None),
        (set[Name], "msgspec", None),
        (set[Annotated[int, pydantic.Field(lt=5)]], "pydantic", 16_384),
        (set[Any], "pydantic", 16_384),
        (set, "msgspec", 16_384),
        (dict[Any, set[Literal[1, 2]]], "pydantic", None),
        (dict, "msgspec", None),
        (dict[str, int], "msgspec", None),
        (set[Colour | bool | str], "msgspec", None),
        (Annotated[set[int], msgspec.Meta(max_length=5)], "msgspec", 16_384),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_how_long_a_message_with_chosen_hashes_may_be(type_: Any, library: Any, most: int | None) -> None:
    assert longest(type_, library) == most


@pytest.mark.parametrize("codec", [None, JSON(binary=True)])
@pytest.mark.parametrize("model", [PydanticInts, MsgspecInts])
def test_numbers_of_one_hash(model: Any, codec: Codec | None) -> None:
    class Typed(WebSocket[model], codec=codec):
        pass

    def payload(count: int) -> Any:
        written = json.dumps({"ids": SAME_HASH[:count]})
        return written if codec is None else written.encode()

    try_it(Typed, payload(500))
    assert len(payload(2000)) > 16_384
    server = Server(*(data(payload(2000)) if codec else text(payload(2000)) for _ in range(2)))
    websocket = server.websocket(Typed)
    steps(websocket.accept())
    with pytest.raises(WebSocketDataError, match="may have 16,384 characters or bytes, and has") as caught:
        steps(websocket.receive_message())
    assert [each["type"] for each in caught.value.errors()] == ["too_long"]
    server.push({"type": "websocket.disconnect", "code": 1000})
    server.sent.clear()
    with pytest.raises(StopAsyncIteration):
        steps(anext(websocket.iter_messages(on_error="answer")))
    assert "too_long" in repr(server.sent)


def test_pydantic_stops_at_the_number_that_is_allowed() -> None:
    """All of them would be compared with one another otherwise: some 100 times as much work."""
    compared = 0

    class Counted(int):
        def __hash__(self) -> int:
            return 1

        def __eq__(self, other: object) -> bool:
            nonlocal compared
            compared += 1
            return self is other

    values: Any = [Counted(number) for number in range(1000)]
    adapter: Any = pydantic.TypeAdapter(Annotated[set[Any], pydantic.Field(max_length=50)])
    with pytest.raises(pydantic.ValidationError):
        adapter.validate_python(values)
    assert compared < 100 * 100


@pytest.mark.parametrize("model", [PydanticFew, PydanticSmall, MsgspecSmall])
def test_a_bound_takes_the_limit_away(model: Any) -> None:
    cls: Any = WebSocket[model]
    try_it(cls, json.dumps({"ids": [{str(number): "x"} for number in range(5000)]}))
    try_it(cls, json.dumps({"ids": SAME_HASH}))


def test_a_message_that_cannot_be_written_is_named() -> None:
    class Plain(Codec):
        def decode(self, data: str) -> Any:
            return json.loads(data)

        def encode(self, value: Any) -> str:
            return json.dumps(value)

    class Typed(WebSocket[dict[str, Any]], codec=Plain(), library="pydantic"):
        pass

    server = Server(text('{"a": {"\\ud800": 1}}'))
    websocket: Any = server.websocket(Typed)
    steps(websocket.accept())
    message = steps(websocket.receive_message())
    with pytest.raises(ValueError, match="the message cannot be encoded"):
        steps(websocket.send_message(message))
    assert len(server.sent) == 1


def lines_of(call: Callable[[], object]) -> int:
    """How many lines of Python a call runs."""
    count = 0

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal count
        count += 1
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
    return count


@pytest.mark.parametrize(
    "name", ["pydantic", "msgspec-tagged", "msgspec-literal", "dict-by-pydantic-or-list"]
)
def test_the_work_does_not_grow_with_what_a_client_sends_wrong(name: str) -> None:
    """All of the loops over an input are the libraries', in Rust and C; ours are over a bounded number."""
    cls = CLASSES[name]

    def lines(size: int) -> int:
        return max(
            lines_of(lambda payload=payload: try_it(cls, payload))  # type: ignore[misc]
            for payload in (
                '{"type":"say","text":' + "[" * size + "}",
                "{" + ",".join(f'"{number}":1' for number in range(size)) + "}",
                "[" + '"a",' * size + "1]",
                '{"type":"' + "x" * size + '"}',
            )
        )

    few = lines(200)
    assert lines(20_000) <= few * 1.2 + 100

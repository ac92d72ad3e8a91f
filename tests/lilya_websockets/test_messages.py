"""What may stand in a message: every check of an argument, called as the pure function it is."""

from __future__ import annotations

import array
import enum
import json
import math
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from lilya.websockets import WebSocketClose
from lilya.websockets._messages import (
    _encoding,
    checked_bytes,
    checked_close,
    checked_headers,
    checked_payload,
    checked_status,
    checked_subprotocol,
    checked_text,
    describe,
    dumps,
    encode_json,
    loads,
)


class Code(enum.IntEnum):
    MINE = 4001


class Text(str):
    pass


# Payloads


@pytest.mark.contract("send-arguments")
@pytest.mark.parametrize("value", ["", "a", "é", "\U0001f600", "\0", Text("a")])
def test_text(value: str) -> None:
    assert checked_text(value) is value


@pytest.mark.contract("send-arguments")
@pytest.mark.parametrize(
    ("value", "words"),
    [
        (b"a", "bytes: decode it, or use send_bytes"),
        (bytearray(), "bytearray: decode it"),
        (memoryview(b""), "memoryview: decode it"),
        ({}, "dict: use send_json"),
        ([], "list: use send_json"),
        (5, "int: use send_json"),
        (None, "got None"),
        (object(), "got object"),
    ],
)
def test_no_text(value: object, words: str) -> None:
    with pytest.raises(TypeError, match="text must be str") as caught:
        checked_text(value)
    assert words in str(caught.value)


@pytest.mark.contract("send-arguments")
@pytest.mark.parametrize("value", ["\ud800", "ab\udfff", "é\udc80é"])
def test_text_with_a_lone_surrogate(value: str) -> None:
    position = next(index for index, character in enumerate(value) if "\ud800" <= character <= "\udfff")
    with pytest.raises(ValueError, match=f"character {position} is the lone surrogate"):
        checked_text(value)


@pytest.mark.contract("send-arguments")
@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"", b""),
        (b"ab", b"ab"),
        (bytearray(b"ab"), b"ab"),
        (memoryview(b"ab"), b"ab"),
        (memoryview(b"abcd")[::2], b"ac"),
        (array.array("B", [1, 2]), b"\1\2"),
        (type("Bytes", (bytes,), {})(b"ab"), b"ab"),
    ],
)
def test_bytes(value: object, expected: bytes) -> None:
    checked = checked_bytes(value)
    assert checked == expected
    assert type(checked) is bytes


@pytest.mark.contract("send-arguments")
@pytest.mark.parametrize("value", ["a", None, 5, [1], {}, object()])
def test_no_bytes(value: object) -> None:
    with pytest.raises(TypeError, match="binary data must be bytes-like") as caught:
        checked_bytes(value)
    assert ("use send_text" in str(caught.value)) is isinstance(value, str)


@pytest.mark.contract("send-raw-payload")
@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ({"text": ""}, {"text": ""}),
        ({"text": "a", "bytes": None}, {"text": "a"}),
        ({"bytes": b""}, {"bytes": b""}),
        ({"bytes": bytearray(b"a"), "text": None}, {"bytes": b"a"}),
    ],
)
def test_payload(message: dict[str, Any], expected: dict[str, Any]) -> None:
    assert checked_payload(message) == expected


@pytest.mark.contract("send-raw-payload")
@pytest.mark.parametrize(
    ("message", "error", "words"),
    [
        ({}, ValueError, "got neither"),
        ({"text": None, "bytes": None}, ValueError, "got neither"),
        ({"text": "a", "bytes": b"a"}, ValueError, "got both"),
        ({"text": "", "bytes": b""}, ValueError, "got both"),
        ({"text": b"a"}, TypeError, "text must be str"),
        ({"bytes": "a"}, TypeError, "bytes-like"),
    ],
)
def test_no_payload(message: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        checked_payload(message)


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ({"text": "a" * 40}, f"text ('{'a' * 40}')"),
        ({"text": "a" * 41}, f"text ('{'a' * 40}'…)"),
        ({"bytes": b"\0"}, r"binary data (b'\x00')"),
        ({"bytes": b"a" * 10**6}, f"binary data (b'{'a' * 40}'…)"),
        ({"text": 5}, "text (int)"),
        ({"text": [0] * 50}, "text (list…)"),
        ({"text": None}, "neither text nor binary data"),
        (None, "None instead of a message"),
        (b"", "bytes instead of a message"),
    ],
)
def test_a_message_in_a_few_words(message: object, words: str) -> None:
    assert describe(message) == words


# Close

SENDABLE = [*range(1000, 1004), *range(1007, 1015), *range(3000, 5000)]


@pytest.mark.contract("close-codes")
def test_every_close_code() -> None:
    for code in range(-1, 5002):
        if code in SENDABLE:
            assert checked_close(code, None) == (code, "")
            assert checked_close(code, "a") == (code, "a")
        else:
            for reason in (None, "a"):
                with pytest.raises(ValueError, match=f"got {code}") as caught:
                    checked_close(code, reason)
            assert ("never sent" in str(caught.value)) is (code in (1005, 1006, 1015))


@pytest.mark.contract("close-codes", "exceptions-wrong-arguments")
@pytest.mark.parametrize(
    ("code", "error"),
    [
        (True, ValueError),
        (False, ValueError),
        (1000.0, TypeError),
        ("1000", TypeError),
        (b"1000", TypeError),
        (None, TypeError),
        ([], TypeError),
        (10**30, ValueError),
        (float("nan"), TypeError),
    ],
)
def test_no_close_code(code: Any, error: type[Exception]) -> None:
    for reason in (None, "a"):
        with pytest.raises(error, match="close code must be"):
            checked_close(code, reason)
    with pytest.raises(error):
        WebSocketClose(code)


@pytest.mark.contract("close-codes")
def test_a_close_code_of_an_enum_becomes_a_plain_int() -> None:
    for reason in (None, "a"):
        code, _ = checked_close(Code.MINE, reason)
        assert type(code) is int
        assert code == 4001


@pytest.mark.contract("close-codes")
@pytest.mark.parametrize("character", ["a", "é", "€", "\U0001f600"])
def test_a_close_reason_has_123_bytes(character: str) -> None:
    size = len(character.encode())
    longest = character * (123 // size) + "a" * (123 % size)
    assert len(longest.encode()) == 123

    assert checked_close(1000, longest) == (1000, longest)
    with pytest.raises(ValueError, match="at most 123 bytes of UTF-8, got 124"):
        checked_close(1000, longest + "a")


@pytest.mark.contract("close-codes")
@pytest.mark.parametrize(("reason", "error"), [(b"a", TypeError), (5, TypeError), ("\ud800", ValueError)])
def test_no_close_reason(reason: object, error: type[Exception]) -> None:
    with pytest.raises(error):
        checked_close(1000, reason)


# Headers


@pytest.mark.contract("accept-headers")
@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([], []),
        ([(b"X-A", b"1"), ("X-B", "2"), ("x-a", b"3")], [(b"x-a", b"1"), (b"x-b", b"2"), (b"x-a", b"3")]),
        ({"X-A": "é", b"x-b": b"\xff"}, [(b"x-a", b"\xe9"), (b"x-b", b"\xff")]),
        (CIMultiDict([("a", "1"), ("A", "2")]), [(b"a", b"1"), (b"a", b"2")]),
        (([name, "v"] for name in ("a", "b", "c", "d")), [(b"%c" % c, b"v") for c in b"abcd"]),
        ([(bytearray(b"A"), memoryview(b""))], [(b"a", b"")]),
        ([("a", " \t\x01\x7f")], [(b"a", b" \t\x01\x7f")]),
    ],
)
def test_headers(headers: object, expected: list[tuple[bytes, bytes]]) -> None:
    checked = checked_headers(headers, of_handshake=True)
    assert checked == expected
    assert all(type(name) is type(value) is bytes for name, value in checked)


@pytest.mark.contract("accept-headers", "exceptions-wrong-arguments")
@pytest.mark.parametrize(
    ("headers", "error", "words"),
    [
        (5, TypeError, "pairs or a mapping, got int"),
        ("ab", TypeError, "pairs or a mapping, got str"),
        (b"ab", TypeError, "pairs or a mapping, got bytes"),
        ([5], TypeError, "pair of name and value, got int"),
        (["ab"], TypeError, "pair of name and value, got str"),
        ([b"ab"], TypeError, "a header name must be bytes or str, got int"),
        ([("a",)], TypeError, "pair of name and value"),
        ([("a", "b", "c")], TypeError, "pair of name and value"),
        ([(5, "a")], TypeError, "name must be bytes or str, got int"),
        ([("a", None)], TypeError, "value must be bytes or str, got None"),
        ([("€", "a")], ValueError, "name must encode to latin-1"),
        ([("a", "€")], ValueError, "value must encode to latin-1"),
        ([("", "a")], ValueError, "must be a token"),
        ([("é", "a")], ValueError, "must be a token"),
        ([("Sec-WebSocket-Protocol", "a")], ValueError, r"use accept\(subprotocol=...\)"),
        ([("sec-websocket-extensions", "a")], ValueError, "the server's to send; leave it out"),
        ([(b"SEC-WEBSOCKET-ACCEPT", b"a")], ValueError, "the server's to send"),
    ],
)
def test_no_headers(headers: object, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        checked_headers(headers, of_handshake=True)


TOKEN = set(b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")


@pytest.mark.contract("accept-headers")
@pytest.mark.parametrize("position", [0, 1, 2])
@pytest.mark.parametrize("part", ["name", "value"])
def test_every_byte_in_a_header(part: str, position: int) -> None:
    """Nothing gets through that could end a header or begin another."""
    refused = set()
    for byte in range(256):
        text = bytes([*b"xx"[:position], byte, *b"xx"[position:]])
        pair = (text, b"v") if part == "name" else (b"n", text)
        try:
            ((name, value),) = checked_headers([pair], of_handshake=True)
        except ValueError:
            refused.add(byte)
        else:
            assert (name, value) == (pair[0].lower(), pair[1])
    assert refused == (set(range(256)) - TOKEN if part == "name" else set(b"\r\n\0"))


@pytest.mark.contract("accept-headers")
@pytest.mark.parametrize(
    "name", [b"sec-websocket-version", b"connection", b"content-length", b"transfer-encoding", b"upgrade"]
)
def test_a_denial_may_send_what_a_handshake_must_not(name: bytes) -> None:
    header = [(name, b"13")]
    assert checked_headers(header, of_handshake=False) == header
    with pytest.raises(ValueError, match=f"the header '{name.decode()}' is the server's to send"):
        checked_headers([(name.upper(), b"13")], of_handshake=True)


@pytest.mark.parametrize(
    "header",
    [
        ("set-cookie", "token=SECRET\r\n"),
        ("x" * 5000 + ":", "SECRET"),
        ("set-cookie", "SECRET€"),
        ("SECRET",),
    ],
)
def test_an_error_shows_no_value_of_a_header(header: Any) -> None:
    with pytest.raises((TypeError, ValueError)) as caught:
        checked_headers([header], of_handshake=True)
    assert "SECRET" not in str(caught.value)
    assert len(str(caught.value)) < 200


def test_an_error_shows_no_subprotocol_that_a_client_has_offered() -> None:
    """Browsers cannot send a header of their own: some apps send their token in this one."""
    with pytest.raises(ValueError, match="it offered 2 others") as caught:
        checked_subprotocol("chat", ["bearer", "SECRET"])
    assert "SECRET" not in str(caught.value)


# Subprotocol and status


@pytest.mark.contract("accept-subprotocol")
@pytest.mark.parametrize(
    ("subprotocol", "offered", "error", "words"),
    [
        ("chat", [], ValueError, "it offered none"),
        ("chat", ["Chat", "soap"], ValueError, "it offered 2 others"),
        ("", [""], ValueError, "must be a token"),
        ("a b", ["a b"], ValueError, "must be a token"),
        ("a\r\nb: c", ["a\r\nb: c"], ValueError, "must be a token"),
        ("a\n", ["a\n"], ValueError, "must be a token"),
        ("é", ["é"], ValueError, "must be a token"),
        ("\ud800", ["\ud800"], ValueError, "must be a token"),
        ("a,b", ["a,b"], ValueError, "must be a token"),
        (b"chat", ["chat"], TypeError, "must be str or None, got bytes"),
        (5, [], TypeError, "must be str or None, got int"),
    ],
)
def test_no_subprotocol(subprotocol: object, offered: list[str], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        checked_subprotocol(subprotocol, offered)


@pytest.mark.contract("accept-subprotocol")
def test_subprotocol() -> None:
    assert checked_subprotocol("v1.chat", iter(["soap", "v1.chat"])) == "v1.chat"


@pytest.mark.contract("denial-status")
def test_every_status() -> None:
    for status in range(-1, 1001):
        if 200 <= status <= 599:
            assert checked_status(status) == status
        else:
            with pytest.raises(ValueError, match=f"200 to 599, got {status}"):
                checked_status(status)
    assert type(checked_status(HTTPStatus.NOT_FOUND)) is int


@pytest.mark.contract("denial-status")
@pytest.mark.parametrize("status", [None, "200", 200.0, b"200"])
def test_no_status(status: object) -> None:
    with pytest.raises(TypeError, match="must be int"):
        checked_status(status)


# JSON


@pytest.mark.contract("send-json")
@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        ({"a": [1, 2.5, None, True]}, '{"a":[1,2.5,null,true]}'),
        ("é€\U0001f600", '"é€\U0001f600"'),
        ("\ud800", '"\\ud800"'),
        ({"\udfff": "é\udc80"}, '{"\\udfff":"é\\udc80"}'),
        ("", '""'),
        (None, "null"),
    ],
)
def test_encode_json(value: object, encoded: str) -> None:
    assert encode_json(value, dumps) == encoded
    encoded.encode()


def test_nothing_is_made_of_bytes_that_an_encoder_returns() -> None:
    assert encode_json({}, lambda value: b"\xff") == b"\xff"


@pytest.mark.contract("send-json")
@pytest.mark.parametrize("value", [float("nan"), float("inf"), [-float("inf")], {"a": float("nan")}])
def test_encode_no_number(value: object) -> None:
    with pytest.raises(ValueError, match="JSON does not have"):
        encode_json(value, dumps)


@pytest.mark.contract("send-json")
def test_what_an_encoder_says_of_a_value_is_raised_as_it_is() -> None:
    def encode(value: object) -> str:
        raise ValueError(f"no room for {value!r}")

    with pytest.raises(ValueError, match=r"^no room for 1$"):
        encode_json(1, encode)


@pytest.mark.contract("send-json")
def test_encode_what_has_no_end() -> None:
    circle: list[Any] = []
    circle.append(circle)
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]

    holding: dict[str, Any] = {}
    holding["itself"] = [holding]

    for endless in (circle, holding, deep):
        with pytest.raises(ValueError, match="nested too deep for JSON, or holds itself") as caught:
            encode_json(endless, dumps)
        assert isinstance(caught.value.__cause__, RecursionError)
    while deep:  # by hand: the interpreter would take it apart by recursion
        (deep,) = deep


@pytest.mark.contract("send-json")
@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        0,
        -1.5,
        10**30,
        "",
        'hé\u2028\x00"\\',
        [],
        {},
        [[1, "a"], {"b": None}],
        {1: 2, None: 3, "c": (4,)},
    ],
)
def test_the_encoder_is_that_of_the_standard_library(value: object) -> None:
    expected = json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    assert dumps(value) == expected
    assert _encoding(None)(value) == expected  # on an interpreter without the compiled encoder


@pytest.mark.contract("send-json")
@pytest.mark.parametrize("value", [object(), {1, 2}, b"", {(1,): 2}])
def test_encode_what_has_no_form(value: object) -> None:
    with pytest.raises(TypeError):
        encode_json(value, dumps)


NOT_JSON = [
    "",
    " ",
    "{",
    "[1,",
    "[1,]",
    '{"a":1,}',
    "{'a':1}",
    '{"a" 1}',
    "nul",
    "NaN",
    "Infinity",
    "-Infinity",
    "[NaN]",
    '{"a":-Infinity}',
    "9" * 5000,
    "\ufeff{}",
    "\ufeff",
    "1 2",
    "{}{}",
    "{}x",
    '"\t"',
    '"\\x"',
    '"\\u12"',
    "01",
    "1.",
    ".5",
    "+1",
    "--1",
    "\0",
    "undefined",
    "// comment\n1",
    '"unterminated',
    "\u00a01",
]


@pytest.mark.contract("receive-json-invalid")
@pytest.mark.parametrize("text", NOT_JSON)
def test_loads_what_is_not_json(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        loads(text)


@pytest.mark.contract("receive-json-invalid")
@pytest.mark.parametrize("opening", ["[", '{"a":', "[[", '[{"a":'])
def test_loads_what_is_nested_too_deep(opening: str) -> None:
    with pytest.raises(RecursionError):
        loads(opening * 100_000)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (" \t\r\n{} ", {}),
        ("1e2", 100.0),
        ("-0.5", -0.5),
        ("1.7976931348623157e308", 1.7976931348623157e308),
        ("1e-999", 0.0),
        # RFC 8259, section 6, leaves the range to the reader.
        ("1e999", math.inf),
        ('{"a":1,"a":2}', {"a": 2}),
        ('"\\ud83d\\ude00"', "\U0001f600"),
        ('"\\ud83d"', "\ud83d"),
        ("9" * 4000, int("9" * 4000)),
    ],
)
def test_loads(text: str, value: object) -> None:
    assert loads(text) == value


@given(st.text() | st.text(alphabet='[]{}":,0123456789.eE+-truefalsn \\u'))
def test_loads_what_the_standard_library_loads(text: str) -> None:
    def strict(name: str) -> None:
        raise ValueError(name)

    try:
        expected = json.loads(text, parse_constant=strict)
    except ValueError:
        with pytest.raises(ValueError, match=r"."):
            loads(text)
        return
    assert loads(text) == expected


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(alphabet=st.characters()),
    lambda values: st.lists(values) | st.dictionaries(st.text(alphabet=st.characters()), values),
    max_leaves=20,
)


@given(JSON)
def test_json_round_trip(value: Any) -> None:
    """Whatever JSON can say comes back, a lone surrogate too."""
    encoded = encode_json(value, dumps)
    assert isinstance(encoded, str)
    if json.loads(json.dumps(value)) == value:  # a pair of surrogates is one character to JSON
        assert loads(encoded.encode().decode()) == value


def test_a_mapping_is_no_message_by_its_name_alone() -> None:
    assert isinstance(CIMultiDict(), Mapping)
    assert describe(CIMultiDict(text="a")) == "text ('a')"

"""The grammar: what it reads, what it refuses, and that both directions agree."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pygments.lexers import get_lexer_by_name
from pygments.token import Error

from ws_doctest import transcript
from ws_doctest.transcript import (
    Accept,
    Bytes,
    Close,
    Connect,
    Deny,
    Event,
    Step,
    Text,
    TranscriptError,
    Wait,
)

TOKENS = st.text("abcdefghijklmnopqrstuvwxyz0123456789-", min_size=1)
VALUES = st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_characters="\x7f")).map(
    str.strip
)
# str.strip() also takes characters that a header value may not begin with, such as U+00A0.
HEADERS = st.lists(
    st.tuples(
        TOKENS.filter(lambda name: not name.startswith(("connection", "upgrade", "sec-websocket-"))),
        VALUES.filter(lambda value: not any("\x7f" <= char < "\xa0" for char in value)),
    ),
    max_size=3,
).map(tuple)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=6,
)


def json_text(value: object) -> Text:
    """Return the text frame that is shown as this JSON, whatever it is."""
    frame = transcript.fit(Text(json.dumps(value)), Text("", json=True))
    assert isinstance(frame, Text)
    return frame


JSON_TEXTS = JSON.map(json_text)
FRAMES = st.one_of(
    TEXTS.map(Text),
    st.binary().map(Bytes),
    JSON_TEXTS,
    JSON_TEXTS.map(lambda text: Bytes(text.data.encode(), json=True)),
)
CODES = st.integers(3000, 4999) | st.sampled_from([1000, 1001, 1011])
REASONS = TEXTS.filter(lambda text: len(text.encode()) <= 123)
CLOSES = st.just(Close()) | st.builds(Close, CODES, REASONS)


@st.composite
def sessions(draw: st.DrawFn) -> tuple[Step, ...]:
    """Draw a session as a transcript may show it."""
    offered = draw(st.lists(TOKENS, unique=True, max_size=3))
    path = "/" + draw(st.text("abc/?=&%20", max_size=8))
    steps = [Step(True, Connect(path, draw(HEADERS), tuple(offered)))]
    if draw(st.booleans()):
        body = draw(st.binary() | TEXTS.map(str.encode))
        return (*steps, Step(False, Deny(draw(st.integers(200, 599)), draw(HEADERS), body)))
    subprotocol = draw(st.sampled_from(offered)) if offered else None
    steps.append(Step(False, Accept(subprotocol, draw(HEADERS))))
    frames = st.builds(Step, st.booleans(), FRAMES)
    steps += draw(st.lists(frames | st.just(Step(True, Wait())), max_size=5))
    end: Event = draw(CLOSES)
    return (*steps, Step(draw(st.booleans()), end))


@given(sessions())
def test_text_and_steps_agree_in_both_directions(steps: tuple[Step, ...]) -> None:
    text = transcript.format_steps(steps)
    parsed = transcript.parse(text)
    assert parsed.steps == steps
    assert parsed.format() == text


@given(sessions())
def test_every_transcript_can_be_coloured(steps: tuple[Step, ...]) -> None:
    text = transcript.format_steps(steps)
    tokens = list(get_lexer_by_name("ws", stripnl=False, ensurenl=False).get_tokens(text))
    assert "".join(value for _, value in tokens) == text
    assert not [value for kind, value in tokens if kind is Error and value.startswith((">", "<"))]


def test_comments_and_blank_lines_are_kept() -> None:
    text = '# hello\n\n> connect /\n< accept\n# now\n>   json {"a":1}\n> close 1000\n'
    parsed = transcript.parse(text)
    assert parsed.format() == text
    assert [step.line for step in parsed.steps] == [3, 4, 6, 7]
    assert parsed.steps[2].event == Text('{"a": 1}', json=True)


def test_update_changes_only_what_differs() -> None:
    parsed = transcript.parse(
        "> connect /\n< accept\n# the answer\n>  text   hi\n< text old\n# end\n> close\n"
    )
    seen = [*parsed.steps[:3], Step(False, Text("new")), Step(False, Bytes(b"\x00")), parsed.steps[4]]
    assert parsed.updated(seen) == (
        "> connect /\n< accept\n# the answer\n>  text   hi\n< text new\n< bytes 00\n# end\n> close\n"
    )


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", 'text ""'),
        ("two\nlines", r'text "two\nlines"'),
        (" blank", 'text " blank"'),
        ('"quoted"', r'text "\"quoted\""'),
        ("été", "text été"),
        ("a\u2028b", r'text "a\u2028b"'),
    ],
)
def test_what_a_reader_could_not_see_is_quoted(text: str, line: str) -> None:
    assert Step(True, Text(text)).format() == (f"> {line}",)


@pytest.mark.parametrize(
    ("seen", "wanted", "shown"),
    [
        (Text('{"a":1}'), None, 'json {"a": 1}'),
        (Text("17"), None, "text 17"),
        (Text("17"), Text("17", json=True), "json 17"),
        (Text('{"a":1}'), Text('{"a":1}'), 'text {"a":1}'),
        (Text("{not json"), Text("{}", json=True), "text {not json"),
        (Text('{"a": NaN}'), None, 'text {"a": NaN}'),
        (Text("[" * 100_000), None, "text " + "[" * 100_000),
        (Bytes(b"[1]"), None, "json-binary [1]"),
        (Bytes(b"[1]"), Bytes(b""), "bytes 5b 31 5d"),
        (Bytes(b"[1]"), Text("[1]", json=True), "json-binary [1]"),
        (Bytes(b"\xff"), None, "bytes ff"),
    ],
)
def test_a_frame_takes_the_form_of_the_transcript(
    seen: Text | Bytes, wanted: Event | None, shown: str
) -> None:
    assert Step(False, transcript.fit(seen, wanted)).format() == ("< " + shown,)


OPEN = "> connect /\n< accept\n"


@pytest.mark.parametrize(
    ("text", "line", "expected"),
    [
        ("", 1, "starts with `> connect PATH`; the file has no steps"),
        ("> text hi\n", 1, "starts with `> connect PATH`; this line says '> text hi'"),
        ("> conect /\n", 1, "after `>` comes one of connect,"),
        ("> connect chat\n", 1, "takes the path and query as on a request line"),
        ("> connect /a b\n", 1, "takes the path and query as on a request line"),
        ("> connect /\n> connect /\n", 2, "one `> connect`"),
        ("> connect /\n< acept\n", 2, "after `<` comes one of accept,"),
        ("> connect /\n< text hi\n", 2, "the first thing a client sees is `< accept` or `< deny`"),
        (OPEN + "< accept\n", 3, "accepted or denied once"),
        (OPEN + "text hi\n", 3, "a line starts with `> `"),
        (OPEN + ">text hi\n", 3, "a line starts with `> `"),
        (OPEN + "> text\n", 3, 'an empty one being `text ""`'),
        (OPEN + '> text "open\n', 3, "a text that starts with a quote is a JSON string"),
        (OPEN + '> text "\\ud800"\n', 3, "encodable as UTF-8"),
        (OPEN + "> json {'a': 1}\n", 3, "expected JSON"),
        (OPEN + "> json NaN\n", 3, "NaN is not JSON"),
        (OPEN + "> bytes 0\n", 3, "hexadecimal bytes"),
        (OPEN + "> wait 5\n", 3, "expected `> wait`, which has nothing behind it"),
        (OPEN + "< wait\n", 3, "after `<` comes one of accept,"),
        (OPEN + "> close 999\n", 3, "a code from 1000 to 4999"),
        (OPEN + "> close 1005\n", 3, "a client closes with 1000-1003"),
        (OPEN + "> close 1000 " + "x" * 124 + "\n", 3, "at most 123 bytes"),
        (OPEN + "< close 1006 gone\n", 3, "has no reason"),
        (OPEN + "> close\n< text late\n", 4, "the session has ended in line 3"),
        (OPEN + "> header a: b\n", 3, "`header` belongs directly below"),
        (OPEN + "> subprotocol a\n", 3, "`subprotocol` belongs directly below `> connect`"),
        (OPEN + "< body hi\n", 3, "`body` belongs directly below `< deny`"),
        ("> connect /\n> header Upgrade: x\n", 2, "the handshake makes its own headers"),
        ("> connect /\n> header sec-websocket-protocol: x\n", 2, "the handshake makes its own headers"),
        ("> connect /\n> header a b\n", 2, "`header NAME: VALUE`"),
        ("> connect /\n> header a b: c\n", 2, "`header NAME: VALUE`"),
        ('> connect /\n> header a: "b\\r\\nc: d"\n', 2, "no control characters"),
        ("> connect /\n> subprotocol a,b\n", 2, "`> subprotocol NAME`"),
        ("> connect /\n> subprotocol a\n> subprotocol a\n", 3, "offered once"),
        ("> connect /\n< deny 99\n", 2, "an HTTP status from 200 to 599"),
    ],
)
def test_a_misspelt_line_is_refused_with_its_place(text: str, line: int, expected: str) -> None:
    with pytest.raises(TranscriptError) as caught:
        transcript.parse(text, "echo.ws")
    assert str(caught.value).startswith(f"echo.ws:{line}: ")
    assert expected in str(caught.value)

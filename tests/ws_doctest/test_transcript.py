"""The grammar: what it reads, what it refuses, and that both directions agree."""

# ruff: noqa: E501 - a case is a line

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
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
TEXTS = st.text(st.characters(exclude_categories=["Cs"])).filter(lambda text: "${" not in text)
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
    steps += draw(
        st.lists(frames | st.sampled_from([Step(True, Wait()), Step(True, Wait("1.5h"))]), max_size=5)
    )
    end: Event = draw(CLOSES)
    return (*steps, Step(draw(st.booleans()), end))


NAMES = st.from_regex(r"[A-Za-z][A-Za-z0-9_-]{0,5}", fullmatch=True)


@st.composite
def sessions_of_several(draw: st.DrawFn) -> tuple[Step, ...]:
    """Draw what several clients do and see; some come again after their end."""
    waiting = {
        name: [replace(step, name=name) for session in own for step in session]
        for name, own in draw(
            st.dictionaries(NAMES, st.lists(sessions(), min_size=1, max_size=2), min_size=1, max_size=2)
        ).items()
    }
    steps: list[Step] = []
    while any(waiting.values()):
        steps.append(waiting[draw(st.sampled_from([name for name in waiting if waiting[name]]))].pop(0))
    return tuple(steps)


# On a busy machine it may take long to make them.
patient = settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)


@patient
@given(sessions() | sessions_of_several())
def test_text_and_steps_agree_in_both_directions(steps: tuple[Step, ...]) -> None:
    text = transcript.format_steps(steps)
    parsed = transcript.parse(text)
    assert parsed.steps == steps
    assert parsed.format() == text


@patient
@given(sessions() | sessions_of_several())
def test_every_transcript_can_be_coloured(steps: tuple[Step, ...]) -> None:
    text = transcript.format_steps(steps)
    tokens = list(get_lexer_by_name("ws", stripnl=False, ensurenl=False).get_tokens(text))
    assert "".join(value for _, value in tokens) == text
    assert not [value for kind, value in tokens if kind is Error]


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


def test_the_paths_are_those_of_the_first_connections() -> None:
    text = "a > connect /x\nb > connect /y\nc > connect /x\na < deny 403\na > connect /z\n"
    assert transcript.parse(text).paths == ("/x", "/y")
    assert transcript.parse("> connect /x\n").paths == ("/x",)


def test_a_client_may_come_again() -> None:
    text = f"{ANN}ann < close 1012\nann > connect /?since=1\nann < accept\nann > close\n"
    assert transcript.parse(text).format() == text
    # Without what is seen it cannot be told whether a connection has ended.
    transcript.parse("ann > connect /\nann > text bye\nann > connect /\n")


@pytest.mark.parametrize(
    ("wanted", "seen", "found"),
    [
        ('{"id": "$a"}', '{"id": "17"}', {"$a": "17"}),
        ('{"id": "$a"}', '{"id": 17}', {"$a": 17}),
        ('{"$a": "x", "b": ["$a", "$c"]}', '{"k": "x", "b": ["k", null]}', {"$a": "k", "$c": None}),
        ('["$known"]', '["before"]', {}),
        ('["$known"]', '["after"]', None),
        ('["$a", "$a"]', "[1, 2]", None),
        ('{"id": "$a", "n": 1}', '{"id": "17", "n": 2}', None),
        ('{"id": "$a", "n": 1}', '{"n": 1, "id": "17"}', None),
        ('{"id": "$a"}', '{"id": "17", "n": 2}', None),
        ('["$a"]', "[1, 2]", None),
        ('["$a"]', '{"a": 1}', None),
        ('["$a", 1]', "[1, true]", None),
        ('["$a"]', "[{}]", None),  # a value, not a part of the message
        ('["$a"]', "no JSON", None),
        ('["$a"]', "[" * 100_000, None),
        ('["$ a", "$", "a$b"]', '["x", "y", "z"]', None),
        ("[1]", "[1]", None),  # there is nothing to bind
    ],
)
def test_a_name_stands_for_a_value(wanted: str, seen: str, found: dict[str, object] | None) -> None:
    known: dict[str, object] = {"$known": "before"}
    event = Text(wanted, json=True)
    assert transcript.bind(event, Text(seen), known) == (None if found is None else event)
    assert known == {"$known": "before", **(found or {})}  # nothing of what did not fit
    as_bytes = Bytes(wanted.encode(), json=True)
    assert transcript.bind(as_bytes, Text(seen), {}) is None
    assert transcript.bind(None, Text(seen), {}) is None


def test_a_value_is_put_in_the_place_of_its_name() -> None:
    known = {"$a": "1-2 é", "$n": 7}
    assert transcript.fill(Connect("/?since=$a&$b=$n"), known) == Connect("/?since=1-2%20%C3%A9&$b=7")
    filled = transcript.fill(Text('{"$a": ["$a", "$b", "$n"]}', json=True), known)
    assert filled == Text('{"1-2 é": ["1-2 é", "$b", 7]}', json=True)
    assert transcript.fill(Bytes(b'["$n"]', json=True), known) == Bytes(b"[7]", json=True)
    assert transcript.fill(Text("now $a, ${a}b, $b"), known) == Text("now 1-2 é, 1-2 éb, $b")
    assert transcript.fill(Close(1000, "no $n"), known) == Close(1000, "no 7")
    assert transcript.fill(Connect("/", (("x-id", "$n"),)), known) == Connect("/", (("x-id", "7"),))
    for event in (Bytes(b"$a"), Text('["$b"]', json=True), Text("$b")):
        assert transcript.fill(event, known) == event


@pytest.mark.parametrize(
    ("wanted", "seen", "found"),
    [
        (Text("Hello, $name."), Text("Hello, Ada."), {"$name": "Ada"}),
        (Text("$a and $a"), Text("x and x"), {"$a": "x"}),
        (Text("$a and $a"), Text("x and y"), None),
        (Text("$known"), Text("before"), {}),
        (Text("$known!"), Text("after!"), None),
        (Text("costs $5"), Text("costs $6"), None),  # no name
        (Text("${id:uuid}"), Text("6f1c2a34-0000-4000-8000-00000000000f"), {"$id": "6f1c2a34-0000-4000-8000-00000000000f"}),
        (Text("${id:uuid}"), Text("6f1c2a34"), None),
        (Text("at ${t:time}"), Text("at 2026-01-02T03:04:05Z"), {"$t": "2026-01-02T03:04:05Z"}),
        (Text("${n:int} of ${m:int}"), Text("3 of 14"), {"$n": "3", "$m": "14"}),
        (Text("${n:int}"), Text("three"), None),
        (Text("${k:/[a-f]{4}\\/x/}"), Text("cafe/x"), {"$k": "cafe/x"}),
        (Text('{"id": "${n:int}"}', json=True), Text('{"id": 17}'), {"$n": 17}),
        (Text('{"id": "${n:int}"}', json=True), Text('{"id": "x"}'), None),
        (Text('{"text": "Hi $name"}', json=True), Text('{"text": "Hi Ada"}'), {"$name": "Ada"}),
        (Accept(None, (("set-cookie", "sid=$sid; Path=/"),)), Accept(None, (("set-cookie", "sid=1; Path=/"),)), {"$sid": "1"}),
        (Accept(None, (("a", "$x"),)), Accept(None, (("b", "1"),)), None),
        (Deny(401, (), b"No $what"), Deny(401, (), b"No entry"), {"$what": "entry"}),
        (Deny(401, (), b"No $what"), Deny(403, (), b"No entry"), None),
        (Close(4000, "$why"), Close(4000, "late"), {"$why": "late"}),
        (Close(4000, "$why"), Close(4001, "late"), None),
        (Text("$a"), Close(4000, "late"), None),
    ],
)  # fmt: skip
def test_a_name_stands_anywhere_in_what_is_seen(
    wanted: Event, seen: Text | Accept | Deny | Close, found: dict[str, object] | None
) -> None:
    known: dict[str, object] = {"$known": "before"}
    bound = transcript.bind(wanted, seen, known)
    assert bound == (wanted if found is not None else None)
    assert known == {"$known": "before", **(found or {})}


@pytest.mark.parametrize(
    ("duration", "seconds"), [("", None), ("2s", 2), ("250ms", 0.25), ("10min", 600), ("1.5h", 5400)]
)
def test_a_wait_may_say_how_long(duration: str, seconds: float | None) -> None:
    script = transcript.parse(OPEN + f"> wait {duration}\n")
    event = script.steps[-1].event
    assert isinstance(event, Wait)
    assert event.seconds == seconds
    assert script.steps[-1].format() == (f"> wait {duration}".rstrip(),)


OPEN = "> connect /\n< accept\n"
ANN = "ann > connect /\nann < accept\n"
BOB = "bob > connect /\n"


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
        (OPEN + "< text ${id:colour}\n", 3, "the form of $id is one of int, number,"),
        (OPEN + "< text ${id:/(/}\n", 3, "the pattern of $id is not a regular expression"),
        (OPEN + "> wait 5\n", 3, "expected `> wait`, or `> wait 2s` (ms, s, min or h)"),
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
        # several clients
        (
            ANN + "bob > text hi\n",
            3,
            "bob is not connected: the first line of a client is `bob > connect PATH`",
        ),
        (ANN + "> text hi\n", 3, "where several clients talk, each line begins with the name of one"),
        (OPEN + "ann > text hi\n", 3, "where one line begins with the name of a client, all do"),
        ("ann < accept\n", 1, "starts with `> connect PATH`"),
        (
            ANN + BOB + "ann > connect /\n",
            4,
            "ann is connected since line 1, and connects again after the end",
        ),
        (
            ANN + BOB + "ann > close\nann > text x\n",
            5,
            "ann's session has ended in line 4, nothing can follow but another `ann > connect PATH`",
        ),
        (ANN + BOB + "bob < text hi\n", 4, "the first thing a client sees is `< accept` or `< deny`"),
        (ANN + BOB + "ann < accept\n", 4, "accepted or denied once"),
        (ANN + BOB + "ann < header a: b\n", 4, "`header` belongs directly below"),
        (ANN + "1st > connect /\n", 3, "in ASCII letters, digits, `-` and `_`"),
        (ANN + "ann> text hi\n", 3, "a line starts with `> `"),
        (ANN + "ann text hi\n", 3, "a line starts with `> `"),
        (ANN + "ann > txt hi\n", 3, "after `>` comes one of connect,"),
    ],
)
def test_a_misspelt_line_is_refused_with_its_place(text: str, line: int, expected: str) -> None:
    with pytest.raises(TranscriptError) as caught:
        transcript.parse(text, "echo.ws")
    assert str(caught.value).startswith(f"echo.ws:{line}: ")
    assert expected in str(caught.value)

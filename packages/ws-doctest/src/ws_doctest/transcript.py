"""The grammar of transcripts: text to steps and back.

A transcript is one WebSocket session as its client sees it. ``>`` is what the client does, ``<``
what it sees. This module knows the grammar and nothing else: no server, no event loop, no
Markdown.

    > connect /chat?room=blue
    > subprotocol chat
    < accept chat
    > json {"hello": "world"}
    < text Message text was: {'hello': 'world'}
    > close 1000

Where several clients talk to one app, each line begins with the name of the client:

    ann > connect /chat
    ann < accept
    bob > connect /chat
    bob < accept
    ann > text hi
    bob < text hi

``$name`` in what is seen (a text, a string in JSON, a header, a body, a reason) stands for a value that
changes on every run. What it stood for is known from there on: it is the same wherever the name stands
again, and is put in where a client sends it or connects. ``${name:uuid}`` says which form it has.

Every step has exactly one canonical text, and `parse` of that text gives the step back. Two
sessions are the same when their canonical texts are the same, which is what a reader would say,
too.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import quote

__all__ = [
    "Accept",
    "Bytes",
    "Close",
    "Connect",
    "Deny",
    "Event",
    "Request",
    "Response",
    "Step",
    "Text",
    "Transcript",
    "TranscriptError",
    "Wait",
    "bind",
    "fill",
    "fit",
    "format_steps",
    "has_names",
    "parse",
]

Headers = tuple[tuple[str, str], ...]

# RFC 6455, section 7.4.1: 1005 and 1006 describe an end without a close frame, or without a code
# in it.
NO_CODE = 1005
DROPPED = 1006

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110, section 5.6.2
_UNITS = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0}
_DURATION = re.compile(r"(?P<number>\d+(?:\.\d+)?)(?P<unit>ms|s|min|h)")
_PATH = re.compile(r"/[!-\"$-~]*")  # printable ASCII without blanks and without `#`, as on a request line


class TranscriptError(ValueError):
    """A line that is not in the grammar; the message names file and line."""

    def __init__(self, name: str, line: int, problem: str) -> None:
        super().__init__(name, line, problem)
        self.name = name
        self.line = line
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.name}:{self.line}: {self.problem}"


@dataclass(frozen=True)
class Connect:
    """The client opens the connection."""

    path: str
    headers: Headers = ()
    subprotocols: tuple[str, ...] = ()


@dataclass(frozen=True)
class Request:
    """A request over HTTP, by a client that has no connection at the time."""

    method: str
    path: str
    headers: Headers = ()
    body: bytes = b""


@dataclass(frozen=True)
class Response:
    """The answer to it; ``headers`` are those that the transcript names."""

    status: int
    headers: Headers = ()
    body: bytes = b""


@dataclass(frozen=True)
class Accept:
    """The server accepts it; ``headers`` are those the app added."""

    subprotocol: str | None = None
    headers: Headers = ()


@dataclass(frozen=True)
class Deny:
    """The server answers with an HTTP response instead."""

    status: int
    headers: Headers = ()
    body: bytes = b""


@dataclass(frozen=True)
class Text:
    """A text frame; with ``json``, ``data`` is the canonical JSON."""

    data: str
    json: bool = False


@dataclass(frozen=True)
class Bytes:
    """A binary frame. With ``json``, ``data`` is canonical JSON in UTF-8."""

    data: bytes
    json: bool = False


@dataclass(frozen=True)
class Close:
    """The end: 1005 is a close frame without a code, 1006 a connection that was simply dropped."""

    code: int = NO_CODE
    reason: str = ""


@dataclass(frozen=True)
class Wait:
    """The client does nothing until it sees something that comes by itself, in the app's own time.

    With a duration such as ``2s``, ``500ms``, ``10min`` or ``1h``, it comes after that time.
    """

    duration: str = ""

    @property
    def seconds(self) -> float | None:
        """The duration, if there is one."""
        found = _DURATION.fullmatch(self.duration)
        return float(found["number"]) * _UNITS[found["unit"]] if found else None


Event = Connect | Accept | Deny | Text | Bytes | Close | Wait | Request | Response

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


@dataclass(frozen=True)
class Step:
    """One thing that one side does, and where it was written (which is not part of what it is)."""

    client: bool
    event: Event
    line: int = field(default=0, compare=False)
    source: tuple[str, ...] = field(default=(), compare=False)
    name: str = ""  # of the client, where there are several

    def format(self) -> tuple[str, ...]:
        """Return the canonical lines of this step."""
        mark = f"{self.name} {'>' if self.client else '<'} ".lstrip()
        return tuple(mark + line for line in _format_event(self.event))

    def __str__(self) -> str:
        return "\n".join(self.format())


@dataclass(frozen=True)
class Transcript:
    """What a file says: its steps, and the comments and blank lines between them."""

    name: str
    items: tuple[Step | str, ...]

    @property
    def steps(self) -> tuple[Step, ...]:
        """The steps without the comments."""
        return tuple(item for item in self.items if isinstance(item, Step))

    @property
    def connect(self) -> Connect:
        """The first step of every transcript."""
        event = self.steps[0].event
        if not isinstance(event, Connect):  # parse() refuses a file that starts otherwise
            raise TypeError(f"a transcript starts with a connect, not with {event!r}")
        return event

    @property
    def paths(self) -> tuple[str, ...]:
        """The paths to which the clients connect first, each once."""
        first: dict[str, str] = {}
        for step in self.steps:
            if isinstance(step.event, Connect):
                first.setdefault(step.name, step.event.path)
        return tuple(dict.fromkeys(first.values()))

    def format(self) -> str:
        """Return the file's text as it was written."""
        lines: list[str] = []
        for item in self.items:
            lines += [item] if isinstance(item, str) else (item.source or item.format())
        return "".join(line + "\n" for line in lines)

    def updated(self, seen: Sequence[Step]) -> str:
        """Return the text that says what was seen; equal steps and comments stay as written."""
        steps = self.steps
        matcher = difflib.SequenceMatcher(
            None,
            [step.format() for step in steps],
            [step.format() for step in seen],
            autojunk=False,
        )
        # Behind the written step i (or before the first, i = -1) come these seen steps.
        inserted: dict[int, list[Step]] = {}
        kept: set[int] = set()
        for tag, start, end, seen_start, seen_end in matcher.get_opcodes():
            if tag == "equal":
                kept.update(range(start, end))
            else:
                inserted[end - 1] = list(seen[seen_start:seen_end])
        lines: list[str] = [line for step in inserted.get(-1, ()) for line in step.format()]
        index = -1
        for item in self.items:
            if isinstance(item, str):
                lines.append(item)
                continue
            index += 1
            if index in kept:
                lines += item.source or item.format()
            lines += [line for step in inserted.get(index, ()) for line in step.format()]
        return "".join(line + "\n" for line in lines)


def parse(text: str, name: str = "<transcript>", *, above: int = 0) -> Transcript:
    """Read a transcript.

    Args:
        text: the file's content.
        name: the file's name, for messages.
        above: the lines before it, where it is a part of a file.

    Raises:
        TranscriptError: a line is not in the grammar, or out of order.
    """
    parser = _Parser(name)
    # Not splitlines(): it also splits at characters which may stand inside a JSON string.
    lines = text.split("\n")
    if lines and lines[-1] == "":
        lines.pop()
    for number, line in enumerate(lines, above + 1):
        parser.feed(number, line.removesuffix("\r"))
    return parser.finish(above + len(lines))


def format_steps(steps: Sequence[Step]) -> str:
    """Return the canonical text of ``steps``."""
    return "".join(line + "\n" for step in steps for line in step.format())


def fit(seen: Text | Bytes, wanted: Event | None = None) -> Text | Bytes:
    """Give a frame the form in which a transcript shows it.

    JSON and its text are two spellings of one frame. The form that the transcript uses is kept;
    where it says nothing, a JSON object or array is shown as JSON and everything else as it is.
    """
    if isinstance(seen, Text):
        as_json = wanted.json if isinstance(wanted, Text) else None
        text: str | None = seen.data
    else:
        as_json = wanted.json if isinstance(wanted, Bytes) else None
        try:
            text = seen.data.decode()
        except UnicodeDecodeError:
            text = None
    if as_json is False or text is None:
        return replace(seen, json=False)
    try:
        value, canonical = _canonical_json(text)
    except ValueError:
        return replace(seen, json=False)
    if as_json is None and not isinstance(value, dict | list):
        return replace(seen, json=False)
    if isinstance(seen, Text):
        return Text(canonical, json=True)
    return Bytes(canonical.encode(), json=True)


def bind(
    wanted: Event | None, seen: Text | Bytes | Accept | Deny | Close | Response, known: dict[str, Any]
) -> Event | None:
    """Return what is wanted if what is seen is the same but for the values that have a name.

    Args:
        wanted: a step of the transcript.
        seen: what came.
        known: the values by name. Those that are new are added, if the two are the same.
    """
    if wanted is None or type(wanted) is not type(seen) or not has_names(wanted):
        return None
    found = dict(known)
    if not _event_binds(wanted, seen, found):
        return None
    known.update(found)
    return wanted


def has_names(event: Event) -> bool:
    """Tell whether a step has a name in it that stands for a value."""
    return any(_NAMED.search(line) for line in _format_event(event))


def fill(event: Event, known: Mapping[str, Any]) -> Event:
    """Put the values that are known in the place of their names."""
    if not known:
        return event
    if isinstance(event, Connect):
        path = _NAMED.sub(
            lambda found: quote(str(known[_name(found)]), safe="") if _name(found) in known else found[0],
            event.path,
        )
        return replace(event, path=path, headers=_filled_headers(event.headers, known))
    if isinstance(event, Request):
        path = fill(Connect(event.path), known).path  # type: ignore[union-attr]  # a connect stays one
        try:
            body = _filled_text(event.body.decode(), known).encode()
        except UnicodeDecodeError:
            body = event.body
        return replace(event, path=path, headers=_filled_headers(event.headers, known), body=body)
    if isinstance(event, Text | Bytes) and event.json:
        _, text = _canonical_json(json.dumps(_filled(json.loads(_text_of(event)), known)))
        return Text(text, json=True) if isinstance(event, Text) else Bytes(text.encode(), json=True)
    if isinstance(event, Text):
        return replace(event, data=_filled_text(event.data, known))
    if isinstance(event, Close):
        return replace(event, reason=_filled_text(event.reason, known))
    return event


# A name, and the form that its value has: `$name`, `${name}`, `${name:uuid}`, `${name:/[0-9]+/}`.
_NAMED = re.compile(
    r"\$(?:(?P<bare>[A-Za-z_][A-Za-z0-9_]*)"
    r"|\{(?P<braced>[A-Za-z_][A-Za-z0-9_]*)(?::(?P<form>[a-z]+|/(?:[^/\\]|\\.)+/))?\})"
)
_FORMS = {
    "int": r"-?\d+",
    "number": r"-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?",
    "hex": r"[0-9a-fA-F]+",
    "uuid": r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}",
    "time": r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|[+-]\d\d:?\d\d)?",
    "word": r"\S+",
}


def _name(found: re.Match[str]) -> str:
    return "$" + (found["bare"] or found["braced"])


def _form(found: re.Match[str]) -> str:
    form = found["form"]
    if form is None:
        return r".+?"
    return form[1:-1].replace("\\/", "/") if form.startswith("/") else _FORMS[form]


def _problem_of_names(text: str) -> str | None:
    """Say what is wrong with the names in a line."""
    for found in _NAMED.finditer(text):
        form = found["form"]
        if form is None:
            continue
        if not form.startswith("/"):
            if form not in _FORMS:
                return f"the form of {_name(found)} is one of {', '.join(_FORMS)} or /PATTERN/, not {form!r}"
            continue
        try:
            re.compile(_form(found))
        except re.error as exc:
            return f"the pattern of {_name(found)} is not a regular expression: {exc}"
    return None


def _text_of(frame: Text | Bytes) -> str:
    return frame.data if isinstance(frame, Text) else frame.data.decode()


def _event_binds(wanted: Event, seen: Event, known: dict[str, Any]) -> bool:
    if isinstance(wanted, Text | Bytes) and isinstance(seen, Text | Bytes):
        if not wanted.json:
            return (
                isinstance(wanted, Text)
                and isinstance(seen, Text)
                and _text_binds(wanted.data, seen.data, known)
            )
        try:
            value = json.loads(_text_of(seen))
        except (ValueError, RecursionError):
            return False
        return _binds(json.loads(_text_of(wanted)), value, known)
    if isinstance(wanted, Accept) and isinstance(seen, Accept):
        return wanted.subprotocol == seen.subprotocol and _headers_bind(wanted.headers, seen.headers, known)
    if isinstance(wanted, Deny | Response) and isinstance(seen, Deny | Response):
        try:
            bodies = wanted.body.decode(), seen.body.decode()
        except UnicodeDecodeError:
            return False
        return (
            wanted.status == seen.status
            and _headers_bind(wanted.headers, seen.headers, known)
            and _text_binds(*bodies, known)
        )
    if isinstance(wanted, Close) and isinstance(seen, Close):
        return wanted.code == seen.code and _text_binds(wanted.reason, seen.reason, known)
    return False


def _headers_bind(wanted: Headers, seen: Headers, known: dict[str, Any]) -> bool:
    return len(wanted) == len(seen) and all(
        name == other and _text_binds(value, came, known)
        for (name, value), (other, came) in zip(wanted, seen, strict=True)
    )


def _text_binds(wanted: str, seen: str, known: dict[str, Any]) -> bool:
    """Match a text, in which names stand for parts."""
    pattern, end = "", 0
    groups: dict[str, str] = {}
    for number, found in enumerate(_NAMED.finditer(wanted)):
        pattern += re.escape(wanted[end : found.start()])
        end, name = found.end(), _name(found)
        if name in known:
            pattern += re.escape(_written(known[name]))
        elif name in groups.values():
            pattern += f"(?P={next(group for group, other in groups.items() if other == name)})"
        else:
            groups[f"ws{number}"] = name
            pattern += f"(?P<ws{number}>{_form(found)})"
    matched = re.fullmatch(pattern + re.escape(wanted[end:]), seen, re.DOTALL)
    if matched is None:
        return False
    known.update({name: matched[group] for group, name in groups.items()})
    return True


def _written(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _binds(wanted: object, seen: object, known: dict[str, Any]) -> bool:
    if isinstance(wanted, str):
        found = _NAMED.fullmatch(wanted)
        if found:
            if isinstance(seen, dict | list):
                return False
            if found["form"] and not re.fullmatch(_form(found), _written(seen)):
                return False
            return bool(known.setdefault(_name(found), seen) == seen)
        if _NAMED.search(wanted):
            return isinstance(seen, str) and _text_binds(wanted, seen, known)
    if type(wanted) is not type(seen):
        return False
    if isinstance(wanted, dict) and isinstance(seen, dict):
        return len(wanted) == len(seen) and all(
            _binds(key, other, known) and _binds(wanted[key], seen[other], known)
            for key, other in zip(wanted, seen, strict=True)
        )
    if isinstance(wanted, list) and isinstance(seen, list):
        return len(wanted) == len(seen) and all(
            _binds(one, other, known) for one, other in zip(wanted, seen, strict=True)
        )
    return wanted == seen


def _filled_text(text: str, known: Mapping[str, Any]) -> str:
    return _NAMED.sub(
        lambda found: _written(known[_name(found)]) if _name(found) in known else found[0], text
    )


def _filled_headers(headers: Headers, known: Mapping[str, Any]) -> Headers:
    return tuple((name, _filled_text(value, known)) for name, value in headers)


def _filled(value: Any, known: Mapping[str, Any]) -> Any:
    if isinstance(value, dict):
        return {_filled(key, known): _filled(inner, known) for key, inner in value.items()}
    if isinstance(value, list):
        return [_filled(inner, known) for inner in value]
    if not isinstance(value, str):
        return value
    found = _NAMED.fullmatch(value)
    return known[_name(found)] if found and _name(found) in known else _filled_text(value, known)


# Writing


def _format_event(event: Event) -> Iterator[str]:
    if isinstance(event, Connect):
        yield f"connect {event.path}"
        for name, value in event.headers:
            yield _format_header(name, value)
        for subprotocol in event.subprotocols:
            yield f"subprotocol {subprotocol}"
    elif isinstance(event, Accept):
        yield "accept" if event.subprotocol is None else f"accept {event.subprotocol}"
        for name, value in event.headers:
            yield _format_header(name, value)
    elif isinstance(event, Request):
        yield f"{event.method} {event.path}"
        for name, value in event.headers:
            yield _format_header(name, value)
        yield from _format_body(event.body)
    elif isinstance(event, Deny | Response):
        yield f"deny {event.status}" if isinstance(event, Deny) else f"{event.status}"
        for name, value in event.headers:
            yield _format_header(name, value)
        yield from _format_body(event.body)
    elif isinstance(event, Text):
        yield f"json {event.data}" if event.json else f"text {_format_text(event.data)}"
    elif isinstance(event, Bytes):
        yield (f"json-binary {event.data.decode()}" if event.json else _format_bytes("bytes", event.data))
    elif isinstance(event, Wait):
        yield f"wait {event.duration}".rstrip()
    elif event.code == NO_CODE and not event.reason:
        yield "close"
    elif event.reason:
        yield f"close {event.code} {_format_text(event.reason)}"
    else:
        yield f"close {event.code}"


def _format_header(name: str, value: str) -> str:
    return f"header {name}: {_format_text(value)}" if value else f"header {name}:"


def _format_body(body: bytes) -> Iterator[str]:
    if not body:
        return
    try:
        text = body.decode()
    except UnicodeDecodeError:
        yield _format_bytes("body-bytes", body)
        return
    for line in text.split("\n"):
        yield f"body {_format_text(line)}"


def _format_text(text: str) -> str:
    # What a reader could not see (line breaks, blanks at the ends, nothing at all) is quoted as in
    # JSON.
    if text and text.isprintable() and text == text.strip() and not text.startswith('"'):
        return text
    return json.dumps(text, ensure_ascii=not text.replace("\n", "").isprintable())


def _format_bytes(word: str, data: bytes) -> str:
    return f"{word} {data.hex(' ')}" if data else word


def _canonical_json(text: str) -> tuple[object, str]:
    def refuse(constant: str) -> object:
        raise ValueError(f"{constant} is not JSON")

    try:
        value = json.loads(text, parse_constant=refuse)
        canonical = json.dumps(value, ensure_ascii=False, allow_nan=False)
        if not canonical.isprintable():  # lone surrogates, and separators that an editor shows as line breaks
            canonical = json.dumps(value)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return value, canonical


# Reading

_CLIENT_WORDS = (
    "connect, header, subprotocol, text, json, json-binary, bytes, wait, close, GET and other methods"
)
_SERVER_WORDS = (
    "accept, header, deny, body, body-bytes, text, json, json-binary, bytes, close, an HTTP status"
)


# The mark, and before it the name of the client, where there are several.
_LINE = re.compile(r"(?:(?P<name>[A-Za-z][A-Za-z0-9_-]*)[ \t]+)?(?P<mark>[<>])(?:[ \t]+(?P<rest>.*))?")


@dataclass
class _Session:
    """How far one client is."""

    name: str
    start: int  # the line of its connect
    opened: bool = False  # an accept was read
    ended: int | None = None  # the line of a close or deny


class _Parser:
    """Reads line by line; continuation lines are folded into the step before them."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.items: list[Step | str] = []
        self.sessions: dict[str, _Session] = {}
        self.names: set[str] = set()
        self.asked: dict[str, Request] = {}  # over HTTP, and not answered yet
        self.number = 0
        # The step that continuation lines may still extend: the one directly above.
        self.open_step: Step | None = None
        self.position = 0  # its place in the items

    def feed(self, number: int, line: str) -> None:
        self.number = number
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            self.items.append(line)
            return
        found = _LINE.fullmatch(stripped)
        if found is None:
            raise self.error(
                "a line starts with `> ` (the client does), `< ` (the client sees) or `#` (a comment); "
                "before the mark may stand the name of a client, in ASCII letters, digits, `-` and `_`",
                line,
            )
        name, client = found["name"] or "", found["mark"] == ">"
        if self.names and bool(name) != ("" not in self.names):
            raise self.error(
                "where one line begins with the name of a client, all do"
                if name
                else "where several clients talk, each line begins with the name of one",
                line,
            )
        word, _, argument = (found["rest"] or "").strip().partition(" ")
        if self.continues(name, client, word, argument.strip(), line):
            return
        problem = _problem_of_names(argument)
        if problem:
            raise self.error(problem, line)
        event = self.event(client, word, argument.strip(), line)
        self.check_order(name, client, event, line)
        self.open_step, self.position = Step(client, event, number, (line,), name), len(self.items)
        self.items.append(self.open_step)

    def finish(self, lines: int) -> Transcript:
        if not self.names:
            self.number = max(lines, 1)
            raise self.error("a transcript starts with `> connect PATH`", "")
        return Transcript(self.name, tuple(self.items))

    def error(self, expected: str, line: str) -> TranscriptError:
        came = f"this line says {line.strip()!r}" if line.strip() else "the file has no steps"
        return TranscriptError(self.name, self.number, f"{expected}; {came}")

    def continues(self, name: str, client: bool, word: str, argument: str, line: str) -> bool:
        """Fold a header, subprotocol or body line into the step it belongs to."""
        if word not in {"header", "subprotocol", "body", "body-bytes"}:
            return False
        event = self.open_step.event if self.open_step and self.open_step.name == name else None
        if not client and word == "subprotocol":
            return False
        if (word == "header" and client and isinstance(event, Connect | Request)) or (
            word == "header" and not client and isinstance(event, Accept | Deny | Response)
        ):
            header = self.header(argument, line)
            if isinstance(event, Connect) and (
                header[0] in ("connection", "upgrade") or header[0].startswith("sec-websocket-")
            ):
                raise self.error("the handshake makes its own headers; `> subprotocol NAME` offers one", line)
            event = replace(event, headers=(*event.headers, header))
        elif word == "subprotocol" and isinstance(event, Connect):
            subprotocol = self.token(argument, "`> subprotocol NAME`", line)
            if subprotocol in event.subprotocols:
                raise self.error("a subprotocol is offered once", line)
            event = replace(event, subprotocols=(*event.subprotocols, subprotocol))
        elif word == "body" and isinstance(event, Request if client else Deny | Response):
            text = self.text(argument, "`< body TEXT`", line)
            mark = ">" if client else "<"
            body_written = self.open_step is not None and any(
                source.partition(mark)[2].split()[0].startswith("body") for source in self.open_step.source
            )
            try:
                event = replace(event, body=event.body + (b"\n" if body_written else b"") + text.encode())
            except UnicodeEncodeError:
                raise self.error("a body is UTF-8 text, or else `< body-bytes HEX`", line) from None
        elif word == "body-bytes" and isinstance(event, Request if client else Deny | Response):
            event = replace(event, body=event.body + self.hex(argument, line))
        else:
            belongs = {
                "header": "`> connect`, `< accept`, `< deny`, a request or its status",
                "subprotocol": "`> connect`",
            }.get(word, "a request such as `> POST /`" if client else "`< deny` or a status")
            raise self.error(f"`{word}` belongs directly below {belongs}", line)
        assert self.open_step is not None  # event was its event
        # Comments between a step and its continuation lines move above the step's later lines:
        # they stay.
        self.open_step = replace(self.open_step, event=event, source=(*self.open_step.source, line))
        self.items[self.position] = self.open_step
        return True

    def event(self, client: bool, word: str, argument: str, line: str) -> Event:
        if word == "text":
            return Text(self.text(argument, '`text TEXT`, an empty one being `text ""`', line))
        if word == "json":
            return Text(self.json(argument, line), json=True)
        if word == "json-binary":
            return Bytes(self.json(argument, line).encode(), json=True)
        if word == "bytes":
            return Bytes(self.hex(argument, line))
        if word == "close":
            return self.close(client, argument, line)
        if client and word == "connect":
            if not _PATH.fullmatch(argument):
                raise self.error(
                    "`> connect PATH` takes the path and query as on a request line, encoded, such as "
                    "`/chat?room=blue`",
                    line,
                )
            return Connect(argument)
        if client and word in METHODS:
            if not _PATH.fullmatch(argument):
                raise self.error(f"`> {word} PATH` takes a path as on a request line", line)
            return Request(word, argument)
        if not client and re.fullmatch(r"[2-5]\d\d", word) and not argument:
            return Response(int(word))
        if client and word == "wait":
            if argument and not _DURATION.fullmatch(argument):
                raise self.error("expected `> wait`, or `> wait 2s` (ms, s, min or h)", line)
            return Wait(argument)
        if not client and word == "accept":
            if not argument:
                return Accept()
            return Accept(self.token(argument, "`< accept [SUBPROTOCOL]`", line))
        if not client and word == "deny":
            if not re.fullmatch(r"[2-5]\d\d", argument):
                raise self.error("`< deny STATUS` takes an HTTP status from 200 to 599", line)
            return Deny(int(argument))
        words = _CLIENT_WORDS if client else _SERVER_WORDS
        raise self.error(f"after `{'>' if client else '<'}` comes one of {words}", line)

    def check_order(self, name: str, client: bool, event: Event, line: str) -> None:
        session = self.sessions.get(name)
        if isinstance(event, Connect | Request):
            self.names.add(name)
        if isinstance(event, Request):
            if session is not None and session.opened and session.ended is None:
                raise self.error("a client asks over HTTP before its connection, or after its end", line)
            self.asked[name] = event
            return
        asked = self.asked.pop(name, None)
        if isinstance(event, Response):
            if asked is None:
                raise self.error("a status is the answer to a request such as `> GET /`", line)
            return
        if isinstance(event, Connect):
            if session is not None and not name:
                raise self.error("a transcript has one `> connect`", line)
            # Before its `<` lines are filled in, a transcript does not show that an app closed.
            if session is not None and session.opened and session.ended is None:
                raise self.error(
                    f"{name} is connected since line {session.start}, and connects again after the end", line
                )
            self.sessions[name] = _Session(name, self.number)
            return
        if session is None:
            raise self.error(
                f"{name} is not connected: the first line of a client is `{name} > connect PATH`"
                if name and self.names
                else "a transcript starts with `> connect PATH`",
                line,
            )
        if session.ended is not None:
            over = f"session has ended in line {session.ended}, nothing can follow"
            raise self.error(
                f"{name}'s {over} but another `{name} > connect PATH`" if name else f"the {over}", line
            )
        if isinstance(event, Accept | Deny):
            if session.opened:
                raise self.error("a connection is accepted or denied once", line)
            session.opened = True
        elif not client and not session.opened:
            raise self.error("the first thing a client sees is `< accept` or `< deny`", line)
        if isinstance(event, Close | Deny):
            session.ended = self.number

    # Arguments

    def text(self, argument: str, expected: str, line: str) -> str:
        if not argument:
            raise self.error(f"expected {expected}", line)
        if not argument.startswith('"'):
            return argument
        try:
            value = json.loads(argument)
        except ValueError as exc:
            raise self.error(f"a text that starts with a quote is a JSON string ({exc})", line) from None
        if not isinstance(
            value, str
        ):  # cannot happen for text that starts with a quote; keeps the type honest
            raise self.error("a text that starts with a quote is a JSON string", line)
        try:
            value.encode()
        except UnicodeEncodeError:
            raise self.error("a text is encodable as UTF-8, without lone surrogates", line) from None
        return value

    def json(self, argument: str, line: str) -> str:
        try:
            return _canonical_json(argument)[1]
        except ValueError as exc:
            raise self.error(f"expected JSON ({exc})", line) from None

    def hex(self, argument: str, line: str) -> bytes:
        try:
            return bytes.fromhex(argument)
        except ValueError as exc:
            raise self.error(f"expected hexadecimal bytes such as `00 ff` ({exc})", line) from None

    def token(self, argument: str, expected: str, line: str) -> str:
        if not _TOKEN.fullmatch(argument):
            raise self.error(f"expected {expected} with a token of RFC 9110", line)
        return argument

    def header(self, argument: str, line: str) -> tuple[str, str]:
        expected = "`header NAME: VALUE`"
        name, colon, value = argument.partition(":")
        if not colon:
            raise self.error(f"expected {expected}", line)
        name = self.token(name.strip(), expected, line).lower()
        value = self.text(value.strip(), expected, line) if value.strip() else ""
        if not all(" " <= char <= "\xff" and char != "\x7f" for char in value) or value != value.strip():
            raise self.error("a header value has no control characters and is latin-1", line)
        return name, value

    def close(self, client: bool, argument: str, line: str) -> Close:
        code_text, _, reason = argument.partition(" ")
        if not code_text:
            return Close()
        expected = "`close [CODE [REASON]]`"
        if not re.fullmatch(r"\d{4}", code_text) or not 1000 <= int(code_text) <= 4999:
            raise self.error(f"expected {expected} with a code from 1000 to 4999", line)
        code = int(code_text)
        # RFC 6455, section 7.4: what an endpoint must not put on the wire.
        if client and not (code in range(1000, 1004) or code in range(1007, 1015) or code >= 3000):
            raise self.error(
                "a client closes with 1000-1003, 1007-1014 or 3000-4999, or with `> close` alone for no code",
                line,
            )
        text = self.text(reason.strip(), expected, line) if reason.strip() else ""
        if text and code in (NO_CODE, DROPPED):
            raise self.error(f"{code} stands for an end without a close code, which has no reason", line)
        if len(text.encode()) > 123:
            raise self.error("a close reason has at most 123 bytes", line)
        return Close(code, text)

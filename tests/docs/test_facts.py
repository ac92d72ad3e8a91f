"""Facts that pages state in tables and in words: codes, limits, defaults, counts.

What is held is the fact, found by the code spans beside it, and not the sentence around it.
"""

# ruff: noqa: RUF001 - pages have dashes between the ends of a range

from __future__ import annotations

import ast
import inspect
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tomlkit
import uvicorn

import lilya.websockets
import lilya.websockets.channels
import lilya.websockets.draining
import lilya.websockets.limits
import lilya.websockets.origins
import lilya.websockets.testing
from lilya.websockets import QueryParam, WebSocket
from lilya.websockets.testing._session import TIMEOUT
from lilya.websockets.types import Message
from lilya.websockets.uvicorn import HTTPProtocol, WebSocketProtocol
from tests.docs.pages import DOCS, PAGES, ROOT, Part, name_of, parts, table_of
from tests.uvicorn_suite.plugin import OTHERWISE
from ws_doctest import transcript
from ws_doctest.transcript import Close

pytestmark = pytest.mark.page("docs/concepts/errors.md", "# ")

WORDS = {5.0: "Five", 10.0: "Ten", 11: "Eleven"}
EXAMPLES = ROOT / "docs_src"


def numbers(text: str) -> list[str]:
    """The numbers in a text, without the marks between thousands."""
    return [number.replace(",", "") for number in re.findall(r"\d[\d,]*(?:\.\d+)?", text)]


def closes(name: str) -> list[int]:
    """The close codes that the clients of a transcript see."""
    script = transcript.parse((EXAMPLES / name).read_text(encoding="utf-8"), name)
    return [step.event.code for step in script.steps if not step.client and isinstance(step.event, Close)]


async def ended_by(*messages: Message) -> WebSocket:
    """A WebSocket to which these messages have come."""
    waiting = [{"type": "websocket.connect"}, *messages]

    async def receive() -> Message:
        return waiting.pop(0)

    async def send(message: Message) -> None:
        pass

    websocket = WebSocket({"type": "websocket", "path": "/", "headers": []}, receive, send)
    await websocket.accept()
    async for _ in websocket.iter_text():
        pass
    return websocket


async def end_of(body: Callable[[WebSocket], Any]) -> tuple[int, str]:
    """The code and the reason that the client of a block sees."""
    sent: list[Message] = []

    async def receive() -> Message:
        if len(sent) == 0:
            return {"type": "websocket.connect"}
        await anyio.sleep_forever()
        raise AssertionError

    async def send(message: Message) -> None:
        sent.append(message)

    import anyio

    websocket = WebSocket({"type": "websocket", "path": "/", "headers": []}, receive, send)
    try:
        with anyio.CancelScope() as scope:
            async with websocket:
                await body(websocket) if body is not _cancelled else scope.cancel()
                await anyio.lowlevel.checkpoint()
    except KeyError:
        pass
    return int(sent[-1]["code"]), str(sent[-1]["reason"])


async def _returns(websocket: WebSocket) -> None:
    return


async def _raises(websocket: WebSocket) -> None:
    raise KeyError("a secret")


async def _cancelled(websocket: WebSocket) -> None:
    return


def missing(page: Path, anchors: list[str], facts: list[str], text: str | None = None) -> list[str]:
    """Where a page speaks of something, and does not state its facts."""
    about = [
        part
        for part in parts(page.resolve(), text)
        if part.kind != "fence" and all(anchor in part.text for anchor in anchors)
    ]
    if not about:
        return [f"{name_of(page.resolve())}:1: nothing speaks of {' and '.join(anchors)} any more"]
    for part in about:
        found = numbers(part.text)
        if all(fact in found or (not fact[0].isdigit() and fact in part.text) for fact in facts):
            return []
    return [f"{about[0].place}: of {' and '.join(anchors)} it is {', '.join(facts)}"]


def sendable() -> list[str]:
    """The ends of the ranges of close codes that may be sent."""
    from lilya.websockets import WebSocketClose

    allowed = []
    for code in range(990, 5010):
        try:
            WebSocketClose(code)
        except ValueError:
            continue
        allowed.append(code)
    edges = [code for code in allowed if code - 1 not in allowed or code + 1 not in allowed]
    return [str(code) for code in edges]


def longest_reason() -> int:
    from lilya.websockets import WebSocketClose

    size = 0
    while True:
        try:
            WebSocketClose(1000, "x" * (size + 1))
        except ValueError:
            return size
        size += 1


def statuses() -> list[str]:
    from lilya.websockets._messages import checked_status

    allowed = []
    for status in range(90, 700):
        try:
            allowed.append(checked_status(status))
        except ValueError:
            continue
    return [str(allowed[0]), str(allowed[-1])]


def constants(file: Path) -> list[object]:
    """The constants in a file of Python."""
    return [
        node.value for node in ast.walk(ast.parse(file.read_text("utf-8"))) if isinstance(node, ast.Constant)
    ]


def autobahn() -> tuple[int, int, int]:
    """How many cases Autobahn has, how many are answered too late, and how many it only reports."""
    # Read, and not imported: its runner is installed by `nox -s conformance` only.
    tree = ast.parse((ROOT / "tests/lilya_websockets/test_uvicorn_autobahn.py").read_text("utf-8"))
    names = ("GROUPS", "COMPRESSED", "COUNTS", "TOO_LATE", "REPORTED")
    kept: list[ast.stmt] = [
        node
        for node in tree.body
        if isinstance(node, ast.Assign | ast.AugAssign)
        and ast.unparse(node.targets[0] if isinstance(node, ast.Assign) else node.target) in names
    ]
    values: dict[str, Any] = {}
    exec(compile(ast.Module(kept, []), "autobahn", "exec"), values)
    return sum(values["COUNTS"].values()), len(values["TOO_LATE"]), len(values["REPORTED"])


def cookie_of(header: str) -> str:
    """The value of the cookie `a` in a request."""
    scope = {"type": "websocket", "path": "/", "headers": [(b"cookie", header.encode())]}
    return WebSocket(scope, _never, _never).cookies["a"]


async def _never(*arguments: Any) -> Any:
    raise AssertionError("nobody asks for anything")


def facts() -> Iterator[tuple[str, list[str], list[str]]]:
    """The page, the words that say what it is about, and what it states about that."""
    of_two = QueryParam("a=first&a=last")
    assert of_two["a"] == of_two.get("a")
    yield "websockets.md", ["`[]` and `get` give"], [f"give the {of_two['a']} value"]
    yield "websockets.md", ["two cookies"], [f"the {cookie_of('a=first; a=last')} counts"]
    yield "websockets.md", ["a reason of at most"], [*sendable(), str(longest_reason())]
    yield (
        "concepts/errors.md",
        ["A close code that must not be sent"],
        [str(longest_reason()), "`ValueError`"],
    )
    yield "concepts/errors.md", ["status of a denial"], statuses()
    yield "guides/open.md", ["max_message_size"], [str(closes("guides/open/limits.ws")[-1])]
    yield "guides/open.md", ["max_messages_per_second"], [str(closes("guides/open/limits.rate.ws")[-1])]
    yield "guides/open.md", ["heartbeat_timeout"], [str(closes("guides/open/heartbeat.ws")[-1])]
    yield "guides/uvicorn.md", ["`close_timeout`"], [f"{WebSocketProtocol.close_timeout:g}"]
    yield "guides/uvicorn.md", ["`compression_level`"], [f"{WebSocketProtocol.compression_level}"]
    yield "guides/uvicorn.md", ["`head_timeout`"], [f"{HTTPProtocol.head_timeout:g}"]
    yield "guides/uvicorn.md", ["| 408"], [f"{HTTPProtocol.head_timeout:g}"]
    yield "guides/uvicorn.md", ["| 431"], ["64", "414"]
    folder = Path(lilya.websockets.channels.__file__).parent
    full = {value for file in folder.glob("*.py") for value in constants(file) if value in (1008, 1013)}
    yield "guides/channels.md", ['`"close"`, the default'], [str(value) for value in full]
    code = inspect.signature(lilya.websockets.draining.close_all).parameters["code"].default
    yield "guides/draining.md", ["`closed_by`"], [str(code)]
    yield "guides/draining.md", ["Retry-After"], ["503"]
    yield "guides/testing.md", ["`timeout`", "`None` waits"], [WORDS[TIMEOUT]]
    yield "guides/testing.md", ["a silent app"], [f"after {TIMEOUT:g} s"]
    total, late, reported = autobahn()
    yield "project/conformance.md", ["cases fails"], [str(total)]
    yield "project/conformance.md", ["*non-strict*"], [str(total - late - reported), str(late), str(reported)]
    yield "project/conformance.md", ["are expected to fail"], [WORDS[len(OTHERWISE)]]
    client = (folder / "client.js").read_text(encoding="utf-8")
    final = [code for code in numbers(client[client.index("FINAL = ") :].split(";")[0]) if code == "1008"]
    yield "guides/chat.md", ["It does not try again", "closes"], final
    yield "guides/browser.md", ["not allowed to connect"], final
    options = {
        name: int(value.replace("_", ""))
        for name, value in re.findall(r"^  (\w+): \[([\d_]+), ", client, re.MULTILINE)
    }
    for name, value in options.items():
        yield "guides/browser.md", [f"| `{name}`" if name != "longestWait" else "`longestWait`"], [f"{value}"]
    chat = (EXAMPLES / "guides" / "chat" / "chat.html").read_text(encoding="utf-8")
    longest = re.search(r"longestWait: ([\d_]+),", chat)
    assert longest is not None
    waits = [options["firstWait"], int(longest[1].replace("_", ""))]
    yield "guides/chat.md", ["It connects again"], [f"{wait / 1000:g}" for wait in waits]
    project = tomlkit.parse((ROOT / "packages/lilya-websockets/pyproject.toml").read_text("utf-8")).unwrap()[
        "project"
    ]
    python = project["requires-python"].lstrip(">=")
    on_new_pythons = [each for each in project["dependencies"] if "python_version <" not in each]
    needed = " and ".join(re.split(r"[<>=]", each)[0] for each in on_new_pythons).replace("anyio", "AnyIO")
    for page in ("index.md", "../README.md", "../packages/lilya-websockets/README.md"):
        yield page, ["needs Python"], [python, f"{needed}."]
    yield from reasons()


def reasons() -> Iterator[tuple[str, list[str], list[str]]]:
    """What the first page, and the README, say of what was measured."""
    servers, redis, wire = (
        json.loads((DOCS / file).read_text(encoding="utf-8"))
        for file in (
            "concepts/servers.json",
            "project/performance/redis.json",
            "project/performance/wire.json",
        )
    )
    by_hand, in_block = (
        {row["seen"][server][0] for row in servers[way]["The handler"][:1] for server in row["seen"]}
        for way in ("by hand", "groups")
    )
    (code,) = in_block  # the same on every server
    yield (
        "index.md",
        ["a handler that returns"],
        [str(len(by_hand)), str(len(servers["servers"])), f"close code {code.removeprefix('close ')}"],
    )
    restarts = redis["restarts"]
    of_all = [
        max(process[what] for process in restarts["processes"])
        for what in ("received", "lost", "doubled", "out of order")
    ]
    assert of_all[0] == sum(process["acknowledged"] for process in restarts["processes"])
    assert of_all[1:] == [0, 0, 0]
    yield "index.md", ["Redis was killed"], [str(restarts["cycles"]), str(of_all[0]), "0"]
    ratios = [
        wire["cases"][case]["rows"]["lilya.websockets.uvicorn"]["ratio"]
        for case in ("echo", "echo-256", "echo-64k", "deflate")
    ]
    yield "index.md", ["an echo takes"], [f"{ratios[0]:.2f}"]
    yield "../README.md", ["of the server's time"], [f"{min(ratios):.1f}", f"{max(ratios):.1f}"]


@pytest.mark.parametrize(("page", "anchors", "stated"), list(facts()), ids=lambda value: str(value)[:40])
def test_a_fact_in_words_or_a_row(page: str, anchors: list[str], stated: list[str]) -> None:
    assert missing(DOCS / page, anchors, stated) == []


@pytest.mark.parametrize(
    ("page", "old", "new"),
    [
        ("websockets.md", "1007–1014", "1007–1015"),
        ("websockets.md", "at most 123 bytes", "at most 125 bytes"),
        ("websockets.md", "give the first value", "give the last value"),
        ("websockets.md", "the last counts", "the first counts"),
        ("concepts/errors.md", "below 200 or above 599", "below 200 or above 499"),
        ("guides/open.md", "closes with 1009. The", "closes with 1008. The"),
        ("guides/uvicorn.md", "`close_timeout`, 10 seconds", "`close_timeout`, 5 seconds"),
        ("guides/channels.md", "closed with 1013, its", "closed with 1008, its"),
        ("guides/draining.md", "with 503 and", "with 500 and"),
        ("guides/testing.md", "Five seconds", "Ten seconds"),
        ("guides/chat.md", "0.5 seconds, 1, 2, up to 15", "0.5 seconds, 1, 2, up to 30"),
        ("guides/chat.md", "closes with 1008,", "closes with 1003,"),
        ("guides/browser.md", "| 1008 | The client is", "| 1003 | The client is"),
        ("guides/browser.md", "| 25,000 |", "| 30,000 |"),
        ("index.md", "Python 3.10 or", "Python 3.8 or"),
        ("index.md", "in **5 different ways** on 7", "in **5 different ways** on 8"),
        ("index.md", "**20 times**", "**25 times**"),
        ("index.md", "all 7,348 messages", "all 7,384 messages"),
        ("index.md", "**0.45**", "**0.44**"),
        ("../README.md", "takes 0.4 to 0.7 of", "takes 0.3 to 0.7 of"),
        ("guides/testing.md", "after 5 s |", "after 6 s |"),
        ("project/conformance.md", "its 517 cases", "its 571 cases"),
        ("project/conformance.md", "504 OK", "505 OK"),
        ("project/conformance.md", "Eleven of them", "Ten of them"),
        ("../README.md", "AnyIO and multidict.", "AnyIO and yarl."),
        ("../packages/lilya-websockets/README.md", "AnyIO and multidict.", "multidict."),
    ],
)
def test_planted_fact(page: str, old: str, new: str) -> None:
    text = (DOCS / page).read_text(encoding="utf-8")
    assert old in text
    planted = text.replace(old, new, 1)
    found = [
        problem
        for name, anchors, stated in facts()
        if name == page
        for problem in missing(DOCS / page, anchors, stated, planted)
    ]
    assert found
    place = re.escape(name_of((DOCS / page).resolve()))
    assert all(re.match(rf"{place}:\d+: ", problem) for problem in found)


@pytest.mark.parametrize(("row", "old", "new"), [("| 408", "10", "30"), ("| 431", "64", "32")])
@pytest.mark.page("docs/guides/uvicorn.md", "| 408")
def test_planted_row(row: str, old: str, new: str) -> None:
    page = DOCS / "guides" / "uvicorn.md"
    lines = page.read_text(encoding="utf-8").split("\n")
    (number,) = [number for number, line in enumerate(lines) if row in line]
    assert old in lines[number]
    lines[number] = lines[number].replace(old, new)
    found = [
        problem
        for name, anchors, stated in facts()
        if name == "guides/uvicorn.md"
        for problem in missing(page, anchors, stated, "\n".join(lines))
    ]
    assert found == [
        f"docs/guides/uvicorn.md:{number + 1}: of {row} it is " + found[0].partition(" it is ")[2]
    ]


# Tables


def wrong_rows(rows: list[Part], column: int, expected: list[str]) -> list[str]:
    """The rows that do not say in a cell what is so."""
    if len(rows) != len(expected):
        return [f"{rows[0].place}: the table has {len(rows)} rows, expected {len(expected)}"]
    return [
        f"{row.place}: expected {wanted!r}, the cell says {row.cells[column]!r}"
        for row, wanted in zip(rows, expected, strict=True)
        if wanted not in row.cells[column] or (not wanted and row.cells[column])
    ]


ERRORS = {
    ("what was tried", "raises"): [(1, ["`WebSocketRuntimeError`"] * 9)],
    ("argument", "raises"): [(1, ["`TypeError`", *["`ValueError`"] * 8, "`TypeError`", "`ValueError`"])],
    ("how it left", "what `receive_*` and `send_*` raise"): [
        (1, ["`WebSocketDisconnect`", "(1005)", "(1006)", "(1006)", *["`WebSocketDisconnect`"] * 2])
    ],
}


@pytest.mark.page("docs/concepts/errors.md", "| what was tried |")
def test_the_tables_of_errors() -> None:
    for head, columns in ERRORS.items():
        for column, expected in columns:
            assert wrong_rows(table_of(DOCS / "concepts" / "errors.md", *head), column, expected) == []


@pytest.mark.anyio
@pytest.mark.page("docs/guides/open.md", "| what happens in the block")
async def test_the_table_of_how_a_block_ends() -> None:
    rows = table_of(DOCS / "guides" / "open.md", "what happens in the block")
    shown = {row.cells[0]: row for row in rows}
    for body, what in (
        (_returns, "It ends"),
        (_raises, "It raises."),
        (_cancelled, "The task is cancelled, or"),
    ):
        row = next((row for cell, row in shown.items() if cell.startswith(what)), None)
        assert row is not None, f"{rows[0].place}: no row begins with {what!r}"
        code, reason = await end_of(body)
        assert str(code) in row.cells[1], f"{row.place}: the client sees {code}"
        # An exception's text stays here.
        assert (body is _raises) == ("without a reason" in row.cells[1]), (
            f"{row.place}: the reason is {reason!r}"
        )
        assert reason == ""


@pytest.mark.anyio
@pytest.mark.page("docs/guides/open.md", "| `closed_by`")
async def test_the_tables_of_who_closed() -> None:
    codes = {"(1002)": 1002, "UTF-8 (1007)": 1007, "(1009)": 1009}
    rows = {row.cells[0]: row for row in table_of(DOCS / "guides" / "open.md", "`closed_by`")}
    for words, code in codes.items():
        websocket = await ended_by({"type": "websocket.disconnect", "code": code})
        row = rows[f'`"{websocket.closed_by}"`']
        assert words in row.text, f"{row.place}: {words} is not there"
    ends: list[Message] = [{"code": 4000}, {}, {"code": 1002}, {"code": 1006}, {"code": 1012}]
    found = [await ended_by({"type": "websocket.disconnect", **end}) for end in ends]
    rows_of_ends = table_of(
        DOCS / "concepts" / "lifecycle.md", "what happened", "`close_code`", "`closed_by`"
    )
    said = [(str(each.close_code), f'`"{each.closed_by}"`') for each in found]
    # The app's own close and a denial are in the transcripts.
    wanted = [("", '`"server"`'), ("1005", said[0][1]), said[2], said[3], said[4], ("`None`", '`"server"`')]
    for row, (end, who) in zip(rows_of_ends, wanted, strict=True):
        assert end in row.cells[1], f"{row.place}: expected {end}"
        assert who == row.cells[2], f"{row.place}: expected {who}"


@pytest.mark.page("docs/guides/uvicorn.md", "| option |")
def test_the_settings_of_the_protocol() -> None:
    defaults = inspect.signature(uvicorn.Config.__init__).parameters
    for row in table_of(DOCS / "guides" / "uvicorn.md", "option", "here"):
        option, _, shown = row.cells[0].partition(" ")
        name = option.strip("`").removeprefix("--").replace("-", "_")
        if name == "log_level":
            continue
        default = defaults[name].default
        real = (
            str(default).lower()
            if isinstance(default, bool)
            else f"{default:g}"
            if default < 1e6
            else str(default)
        )
        assert shown == real, f"{row.place}: the default of {option} is {real}"


@pytest.mark.page("docs/reference/channels.md", "| option of `Channels`")
def test_the_options_of_channels() -> None:
    channels = lilya.websockets.channels.Channels
    tables: dict[str, list[Callable[..., Any]]] = {
        "option of `Channels`": [channels],
        "option of `subscribe` and `join`": [channels.subscribe, channels.join],
    }
    for head, functions in tables.items():
        for row in table_of(DOCS / "reference" / "channels.md", head, "default", "meaning"):
            name = row.cells[0].strip("`")
            if not name.isidentifier():
                continue
            for function in functions:
                parameter = inspect.signature(function).parameters.get(name)
                if parameter is None or row.cells[1] in ("none", "the data of events"):
                    continue
                default = parameter.default
                real = repr(default).replace("'", '"') if isinstance(default, str | bool) else f"{default:g}"
                shown = row.cells[1].strip("`").replace(",", "")
                if isinstance(default, int) and not isinstance(default, bool):
                    real = str(default)
                assert shown == real, f"{row.place}: the default of {name} is {real}"


@pytest.mark.page("docs/guides/access.md", "| option | default |")
def test_the_options_of_the_guard_of_origins() -> None:
    parameters = inspect.signature(lilya.websockets.origins.OriginGuard).parameters
    rows = table_of(DOCS / "guides" / "access.md", "option", "default", "meaning")
    assert {row.cells[0].strip("`") for row in rows} == {
        name for name, each in parameters.items() if each.kind is each.KEYWORD_ONLY
    }, f"{rows[0].place}: the table has other options than the class"
    words = {"none": (), "any": None, "the server's": None}
    for row in rows:
        name, shown = row.cells[0].strip("`"), row.cells[1]
        default = parameters[name].default
        real = words[shown] if shown in words else ast.literal_eval(shown.strip("`"))
        same = real == default or (not real and not default and not isinstance(default, bool))
        assert same, f"{row.place}: the default of {name} is {default!r}"


@pytest.mark.page("docs/guides/limits.md", "| option | limits |")
def test_what_is_beyond_the_limits() -> None:
    code = inspect.signature(lilya.websockets.limits.LimitGuard).parameters["code"].default
    rows = table_of(DOCS / "guides" / "limits.md", "option", "limits", "beyond it")
    wanted = {"connections": "503", "messages_per_second": str(code), "bytes_per_second": str(code)}
    for row in rows:
        name = row.cells[0].strip("`")
        assert name in inspect.signature(lilya.websockets.limits.LimitGuard).parameters, row.place
        assert wanted.get(name, "429") in row.cells[2], f"{row.place}: it is {wanted.get(name, '429')}"


@pytest.mark.page("docs/reference/channels.md", "| what happened | error |")
def test_the_errors_of_channels() -> None:
    rows = table_of(DOCS / "reference" / "channels.md", "what happened", "error")
    errors = ["`ValueError`", "`ImportError`", "`WebSocketRuntimeError`", "`BrokerError`", "`OutboxFull`", ""]
    assert wrong_rows(rows[:-1], 1, errors[:-1]) == []
    for name in ("BrokerError", "OutboxFull"):
        assert issubclass(getattr(lilya.websockets.channels, name), lilya.websockets.channels.ChannelsError)


@pytest.mark.page("docs/guides/testing.md", "| a silent app |")
def test_what_a_silent_app_is_for_each_client() -> None:
    rows = table_of(DOCS / "guides" / "testing.md", "", "here", "Starlette, Lilya")
    (row,) = [row for row in rows if row.cells[0] == "a silent app"]
    error = lilya.websockets.testing.WebSocketTimeout
    assert row.cells[1] == f"`{error.__name__}` after {TIMEOUT:g} s", f"{row.place}: {error.__name__}"


# Values in code style

SOURCES = [
    *(ROOT / "packages").rglob("src/**/*.py"), *EXAMPLES.rglob("*.py"), ROOT / "noxfile.py",
    *(path for path in Path(uvicorn.__file__).parent.rglob("*.py")),
]  # fmt: skip
# What others define, or the reader does.
OF_OTHERS = {"SECRET_KEY", "CONN_MAX_AGE", "CONFORMANCE_PROTOCOL"}


def strings_of_the_code() -> tuple[set[str], str]:
    """The string constants of all the code that pages speak of, and the text of it."""
    texts = [path.read_text(encoding="utf-8", errors="replace") for path in SOURCES]
    found = {
        node.value
        for text in texts
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    return found, "\n".join(texts)


def unknown_values(path: Path, text: str, known: set[str], code: str) -> list[str]:
    """Strings and names of variables in code spans that are in no code."""
    found = []
    for part in parts(path, text):
        for span in part.spans if part.kind != "fence" else ():
            literal = re.fullmatch(r'"([a-z_]+)"', span)
            variable = re.match(r"([A-Z][A-Z\d]*_[A-Z\d_]+)(?:=|$)", span)
            if literal and literal[1] not in known:
                found.append(f"{part.place}: `{span}` is no value in the code")
            if variable and variable[1] not in OF_OTHERS and not re.search(rf"\b{variable[1]}\b", code):
                found.append(f"{part.place}: `{span}`: no code reads {variable[1]}")
    return found


@pytest.mark.page("docs/guides/channels.md", '`"client"`')
def test_values_in_code_style() -> None:
    known, code = strings_of_the_code()
    assert [
        problem
        for page in PAGES
        for problem in unknown_values(page, page.read_text(encoding="utf-8"), known, code)
    ] == []


@pytest.mark.parametrize(
    ("page", "old", "new"),
    [
        ("guides/channels.md", '`"client"`, `"closed"`', '`"peer"`, `"closed"`'),
        ("guides/deploying.md", "| `FORWARDED_ALLOW_IPS` |", "| `FORWARDED_ALLOWED_IPS` |"),
        ("guides/deploying.md", "| `CHANNELS_URL` |", "| `CHANNEL_URL` |"),
        ("guides/access.md", '| `"allow"` |', '| `"allowed_all"` |'),
    ],
)
def test_planted_value(page: str, old: str, new: str) -> None:
    text = (DOCS / page).read_text(encoding="utf-8")
    assert old in text
    known, code = strings_of_the_code()
    (found,) = unknown_values(DOCS / page, text.replace(old, new, 1), known, code)
    assert re.match(rf"docs/{page}:\d+: ", found)


# Options in words

# Chosen values, which are meant not to be the defaults.
CHOSEN = {
    "code=1013", "on_error=\"answer\"",
    "appendonly=yes", "batch=20", "buffer_messages=0", "cancel_on_disconnect=True", "extensions={}",
    "history=10", "history=50", "history=n", "mode=\"binary\"", "presence=True", "since=id", "within=4",
    "heartbeat=20", "max_messages_per_second=50",
    "latest=True", "max_keys=10_000", "member=info", "presence=\"keys\"", "timeout=0",
}  # fmt: skip


def option_problems(text: str, page: Path) -> list[str]:
    """The options in code spans whose value is neither the default nor known to be chosen."""
    defaults: dict[str, set[str]] = {}
    for module in (
        lilya.websockets,
        lilya.websockets.channels,
        lilya.websockets.draining,
        lilya.websockets.limits,
        lilya.websockets.testing,
    ):
        for name in module.__all__:
            found = getattr(module, name)
            functions = [found]
            if inspect.isclass(found):
                functions += [
                    member for key, member in vars(found).items() if key[0] != "_" and callable(member)
                ]
            for function in functions:
                try:
                    parameters = inspect.signature(function).parameters.values()
                except (TypeError, ValueError):
                    continue
                for parameter in parameters:
                    if parameter.default is not parameter.empty:
                        defaults.setdefault(parameter.name, set()).add(spelt(parameter.default))
    problems = []
    for part in parts(page, text):
        for span in part.spans if part.kind != "fence" else ():
            option = re.fullmatch(r"([a-z_]\w*)=([^=]+)", span)
            if option is None or option[1] not in defaults or span in CHOSEN:
                continue
            try:
                value = spelt(ast.literal_eval(option[2]))
            except (ValueError, SyntaxError):
                continue
            if value not in defaults[option[1]]:
                problems.append(
                    f"{part.place}: `{span}`: the default is {' or '.join(sorted(defaults[option[1]]))}; "
                    "a value that is chosen stands in CHOSEN of this test"
                )
    return problems


def spelt(value: object) -> str:
    return f"{value:g}" if isinstance(value, int | float) and not isinstance(value, bool) else repr(value)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(DOCS).as_posix())
def test_options_in_words_have_their_defaults(page: Path) -> None:
    assert option_problems(page.read_text(encoding="utf-8"), page) == []


@pytest.mark.parametrize(
    ("page", "old", "new"),
    [
        ("guides/open.md", "`buffer_messages=64`", "`buffer_messages=32`"),
        ("guides/open.md", "`idle_code=1001`", "`idle_code=1000`"),
        ("guides/draining.md", "`batch=100`", "`batch=50`"),
        ("guides/draining.md", "`within=10`", "`within=20`"),
    ],
)
def test_planted_option(page: str, old: str, new: str) -> None:
    text = (DOCS / page).read_text(encoding="utf-8")
    assert old in text
    assert re.match(rf"docs/{page}:\d+: ", option_problems(text.replace(old, new), DOCS / page)[0])

"""Docstrings are pages, too: the names in them exist, and their examples run, each line of them.

And each public method of the class has its signature on a page.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import inspect
import re
import sys
import textwrap
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, Literal

import anyio
import anyio.lowlevel
import pytest
from prometheus_client import REGISTRY
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket as StarletteWebSocket

import lilya.websockets
from lilya.websockets import WebSocket
from lilya.websockets.channels import Channels
from lilya.websockets.channels.backends import Backend, Id, presence_event, presence_of
from lilya.websockets.origins import OriginGuard
from lilya.websockets.testing import AsyncTestClient, TestClient, connect, unguarded_routes
from lilya.websockets.types import Receive, Scope, Send
from tests.docs.pages import PAGES, ROOT, at, named_docstrings
from tests.docs.test_facts import longest_reason, sendable, statuses
from tests.docs.test_scope import configuration
from ws_doctest._names import Names
from ws_doctest._pages import read_page
from ws_doctest._watch import FLAGS, Reach

pytestmark = pytest.mark.page("docs/reference/index.md", "# Reference")

SOURCE = ROOT / "packages" / "lilya-websockets" / "src" / "lilya" / "websockets"
# Modules of which users read the docstrings, in an editor and on the page *Reference*.
FILES = sorted(path for path in SOURCE.rglob("*.py"))
# Shown in words and examples, and not as an item of a list.
ELSEWHERE = {"open", "is_secure", "path_for", "url_path_for", "set_session", "clear_session", "wrap"}
# On the page of typed messages, in examples.
ELSEWHERE |= {"call", "iter_messages", "receive_message", "send_message"}


def names() -> Names:
    options = configuration()
    return Names(
        list(options["ws_doctest_names"]), {"websocket": WebSocket}, set(options["ws_doctest_words"])
    )


def docstrings(source: str) -> Iterator[tuple[int, str]]:
    """The docstrings of a file, each with its first line."""
    for _, start, text in named_docstrings(source):
        yield start, text


def problems(file: Path, source: str) -> list[str]:
    """What is wrong in the docstrings of a file."""
    known = names()
    # Names of the file itself are no slips.
    own = {
        getattr(node, "id", None)
        or getattr(node, "attr", None)
        or getattr(node, "name", None)
        or getattr(node, "arg", "")
        for node in ast.walk(ast.parse(source))
    }
    found = []
    for start, text in docstrings(source):
        for number, line in enumerate(text.split("\n"), start):
            for span in re.findall(r"(?<!`)`([^`]+)`(?!`)", line):
                if span in own:
                    continue
                problem = known.problem(span)
                if problem:
                    found.append(f"{file.relative_to(ROOT).as_posix()}:{number}: {problem}")
        returns = re.search(r"^ *Returns:\n((?: +\S.*\n)+)", text, re.MULTILINE)
        if returns and ":" in returns[1]:
            number = start + text[: returns.start()].count("\n")
            place = f"{file.relative_to(ROOT).as_posix()}:{number}"
            found.append(f"{place}: the page takes what is before a colon for a type")
    return found


# The examples


@dataclass(frozen=True)
class Example:
    """A block of code in a docstring."""

    file: Path
    line: int
    code: str

    @property
    def lines(self) -> range:
        return range(self.line, self.line + self.code.count("\n") + 1)

    def __str__(self) -> str:
        return f"{self.file.relative_to(ROOT).as_posix()}:{self.line}"


def examples(file: Path, source: str) -> Iterator[Example]:
    """The blocks of docstrings that are code: indented below an empty line."""
    for start, text in docstrings(source):
        block: list[str] = []
        above, first = "", 0
        for number, line in enumerate([*inspect.cleandoc(text).split("\n"), "end"], start):
            if line.startswith("    ") and (block or not above):
                first = first if block else number
                block.append(line)
            elif block and not line:
                block.append(line)
            else:
                code = textwrap.dedent("\n".join(block))
                if re.search(r"^(?:from|import|async|await|with|def|for) ", code, re.MULTILINE):
                    yield Example(file, first, code)
                block = []
            above = line


@dataclass
class Say:
    text: str
    type: Literal["say"] = "say"


@dataclass
class Leave:
    type: Literal["leave"] = "leave"


@dataclass
class Said:
    text: str


ORIGIN = {"origin": "https://app.example.com"}


async def echo(other: StarletteWebSocket) -> None:
    async with WebSocket.wrap(other) as websocket:
        async for text in websocket.iter_text():
            await websocket.send_text(f"You said: {text}")


async def typed(scope: Scope, receive: Receive, send: Send) -> None:
    async with WebSocket[Say | Leave, Said](scope, receive, send) as websocket:
        async for message in websocket.iter_messages():
            await websocket.send_message(Said(message.text if isinstance(message, Say) else "bye"))


def unbound(code: str) -> set[str]:
    """The names that an example takes for known."""
    nodes = list(ast.walk(ast.parse(code)))
    bound = {
        alias.asname or alias.name
        for node in nodes
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    bound |= {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    return {node.id for node in nodes if isinstance(node, ast.Name)} - bound


async def run(example: Example) -> str | None:
    """Run an example as its docstring means it; what went wrong, with its place."""
    module = ModuleType("docstring_example")  # Litestar and Quart look it up
    module.__file__ = str(example.file)
    names = vars(module)
    routes = [WebSocketRoute(path, echo) for path in ("/", "/chat")]
    names["app"] = app = OriginGuard(Starlette(routes=routes), origins=[ORIGIN["origin"]])
    for each in (AsyncTestClient, TestClient, connect, unguarded_routes, Say, Leave, Said, WebSocket):
        names[each.__name__] = each
    reach = Reach({example.file})
    sys.modules[module.__name__] = module
    try:
        code = compile(
            "\n" * (example.line - 1) + example.code, str(example.file), "exec", FLAGS, dont_inherit=True
        )
        with reach.watching():
            await play(code, unbound(example.code), names)
            for test in [value for name, value in names.items() if name.startswith("test_")]:
                if inspect.isawaitable(result := test()):
                    await result
            if names["app"] is not app:
                path = "/echo" if "/echo" in example.code else "/"
                async with connect(names["app"], path, headers=ORIGIN) as session:
                    await session.send_text("hello")
                    assert (await session.receive_text()).removeprefix("You said: ") == "hello"
    except Exception as error:
        line = example.line
        trace = error.__traceback__
        while trace is not None:
            if trace.tb_frame.f_code.co_filename == str(example.file) and trace.tb_lineno in example.lines:
                line = trace.tb_lineno
            trace = trace.tb_next
        line = (error.lineno or line) if isinstance(error, SyntaxError) else line
        return f"{example.file.relative_to(ROOT).as_posix()}:{line}: {error!r}"
    finally:
        del sys.modules[module.__name__]
    unreached = reach.unreached(example.code, example.file, example.line - 1)
    return (
        f"{example.file.relative_to(ROOT).as_posix()}:{unreached[0]}: nothing reaches this"
        if unreached
        else None
    )


async def play(code: CodeType, unknown: set[str], names: dict[str, Any]) -> None:
    """Run the code with the objects that it takes for known, such as `websocket`."""

    async def body() -> None:
        if inspect.isawaitable(result := eval(code, names)):
            await result

    async def handler(scope: Scope, receive: Receive, send: Send) -> None:
        async with WebSocket(scope, receive, send) as names["websocket"]:
            await body()

    async with contextlib.AsyncExitStack() as stack:
        if "channels" in unknown:
            names["channels"] = await stack.enter_async_context(Channels())
        if "session" in unknown:
            names["session"] = await stack.enter_async_context(connect(typed))
        if "websocket" in unknown:
            headers = {"authorization": "Bearer abc"}
            async with connect(handler, headers=headers) as session:
                if "channels" in unknown:
                    await session.send_text("hello")
                    assert await session.receive_text() == "hello"
        elif "channels" in unknown:  # it receives until somebody ends it
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(body)
                await anyio.wait_all_tasks_blocked()
                await names["channels"].publish("room:1", "hello")
                await anyio.wait_all_tasks_blocked()
                tasks.cancel_scope.cancel()
        else:
            await body()


ASYNCIO = {"quart.py": "Quart", "redis.py": "the client of Redis"}
EXAMPLES = [example for file in FILES for example in examples(file, file.read_text(encoding="utf-8"))]


@pytest.mark.anyio
@pytest.mark.parametrize("example", EXAMPLES, ids=str)
async def test_an_example_runs(example: Example, anyio_backend_name: str) -> None:
    if anyio_backend_name == "trio" and example.file.name in ASYNCIO:
        pytest.skip(f"{ASYNCIO[example.file.name]} runs on asyncio only")
    metrics = set(REGISTRY._collector_to_names)
    try:
        assert await run(example) is None
    finally:
        for metric in set(REGISTRY._collector_to_names) - metrics:
            REGISTRY.unregister(metric)  # it takes each name once


def test_no_example_is_passed_over() -> None:
    assert len(EXAMPLES) >= 16


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("name", "old", "new", "said"),
    [
        ("testing/__init__.py", "import connect\n", "import conect\n", "ImportError"),
        ("testing/__init__.py", "async with connect(", "async wth connect(", "SyntaxError"),
        ("testing/__init__.py", '== "You said: hello"', '== "I said: hello"', "AssertionError"),
        ("draining.py", "within=10)", "within_=10)", "TypeError"),
        ("starlette.py", "send_text(text)", "send_txt(text)", "AttributeError"),
        ("channels/_channels.py", 'publish("room:1", text)', 'publish("room:1", txt)', "NameError"),
        ("channels/_channels.py", "subscription: ...", "subscription.items(): ...", "AttributeError"),
        ("testing/_session.py", "Say(text=", "Say(txt=", "TypeError"),
        (
            "fastapi.py",
            '@app.websocket("/echo")\n    async def echo',
            "async def echo",
            "WebSocketDenialResponse",
        ),
    ],
)
async def test_planted_example(name: str, old: str, new: str, said: str) -> None:
    text = (SOURCE / name).read_text(encoding="utf-8")
    assert old in text
    found = [await run(example) for example in examples(SOURCE / name, text.replace(old, new, 1))]
    problems = [problem for problem in found if problem]
    assert problems
    assert re.match(r"packages/lilya-websockets/src/lilya/websockets/[\w/]+\.py:\d+: ", problems[0])
    assert said in problems[0]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(SOURCE).as_posix())
def test_docstrings(file: Path) -> None:
    assert problems(file, file.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("_websocket.py", "`close_reason`", "`close_raeson`"),
        ("limits.py", "`RateLimit`", "`RateLimt`"),
        ("draining.py", "The app to serve. Let", "The app to serve: let"),
    ],
)
def test_planted_docstring(name: str, old: str, new: str) -> None:
    text = (SOURCE / name).read_text(encoding="utf-8")
    assert old in text
    found = problems(SOURCE / name, text.replace(old, new, 1))
    assert found
    assert re.match(r"packages/lilya-websockets/src/lilya/websockets/[\w/]+\.py:\d+: ", found[0])


# Arguments: their names, their defaults, and the limits that many of them share


def named(module: ModuleType, name: str) -> Any:
    """What a module defines under a name, such as `Channels.join`; `None` if it is not to be found."""
    found: Any = module
    for part in name.split("."):
        found = inspect.getattr_static(found, part, None)
        found = getattr(found, "__func__", found)
    return found


def arguments(docstring: str) -> Iterator[tuple[int, str, str]]:
    """The entries below `Args:`, each with its line from the first of the docstring, and its text."""
    lines = docstring.split("\n")
    head = next((number for number, line in enumerate(lines) if line.strip() == "Args:"), None)
    if head is None:
        return
    indent = len(lines[head]) - len(lines[head].lstrip()) + 4
    entry: tuple[int, str, str] | None = None
    for number, line in enumerate([*lines[head + 1 :], "end"], head + 1):
        found = re.match(rf" {{{indent}}}(\*{{0,2}}\w+): (.*)", line)
        if entry is not None and (found or not line.startswith(" " * (indent + 1))):
            yield entry
            entry = None
        if found:
            entry = number, found[1].lstrip("*"), found[2]
        elif entry is not None:
            entry = *entry[:2], f"{entry[2]} {line.strip()}"
        elif line.strip() and not line.startswith(" " * indent):
            return


DEFAULT = re.compile(r"Default: `?(\"[^\"]*\"|-?\d[\d_,]*(?:\.\d+)?|True|False)(?=`|,|\.(?:\s|$)|$)")


def argument_problems(name: str, target: Any, docstring: str) -> Iterator[tuple[int, str]]:
    """The arguments that there are not, and the defaults that are others."""
    try:
        parameters = inspect.signature(target).parameters
    except (TypeError, ValueError):
        return
    for number, argument, text in arguments(docstring):
        parameter = parameters.get(argument)
        if parameter is None:
            yield number, f"{name} has no argument {argument}; it has {', '.join(parameters)}"
            continue
        said = re.search(
            r"Default: `?(\"[^\"]*\"|-?\d[\d_,]*(?:\.\d+)?|True|False)(?=`|,|\.(?:\s|$)|$)", text
        )
        if said and ast.literal_eval(said[1].replace(",", "")) != parameter.default:
            yield number, f"the default of {argument} is {parameter.default!r}, not {said[1]}"


SENDABLE = ", ".join("-".join(pair) for pair in zip(sendable()[::2], sendable()[1::2], strict=True))
# Who says one of these numbers, and what it is.
SHARED = {
    r"\d+-\d+(?:, \d+-\d+)*, \d{4}-4999": SENDABLE,
    r"(?<=At most )\d+(?= bytes of UTF-8)": str(longest_reason()),
    r"(?<=longer than )\d+(?= bytes)": str(longest_reason()),
    r"(?<=The status, )\d+-\d+": "-".join(statuses()),
    r"(?<=status from )\d+ to \d+": " to ".join(statuses()),
}


def shared_problems(docstring: str) -> Iterator[tuple[int, str]]:
    """The numbers that are others than those of the code."""
    for number, line in enumerate(docstring.split("\n")):
        for pattern, wanted in SHARED.items():
            for found in re.finditer(pattern, line):
                if found[0] != wanted:
                    yield number, f"expected {wanted}, it says {found[0]}"


def said_of_arguments(file: Path, source: str) -> list[str]:
    """What is wrong with arguments and numbers in the docstrings of a file."""
    name = file.relative_to(SOURCE.parents[1]).with_suffix("").as_posix().replace("/", ".")
    module = importlib.import_module(name.removesuffix(".__init__"))
    found = []
    for name, start, text in named_docstrings(source):
        problems = list(shared_problems(text))
        problems += argument_problems(name, named(module, name), text)
        found += [
            f"{file.relative_to(ROOT).as_posix()}:{start + number}: {problem}" for number, problem in problems
        ]
    return found


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(SOURCE).as_posix())
def test_arguments_in_docstrings(file: Path) -> None:
    assert said_of_arguments(file, file.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("name", "old", "new", "said"),
    [
        ("_websocket.py", "1000-1003, 1007-1014, 3000", "1000-1003, 1007-1015, 3000", "1007-1014"),
        ("_websocket.py", "reason: At most 123 bytes", "reason: At most 125 bytes", "expected 123"),
        ("_websocket.py", "status: The status, 200-599", "status: The status, 100-599", "expected 200-599"),
        ("_websocket.py", "buffer_bytes: Bytes", "buffer_size: Bytes", "no argument buffer_size"),
        ("limits.py", "Default: 1008.", "Default: 1013.", "default of code is 1008"),
        ("draining.py", "Default: 1012, the", "Default: 1001, the", "default of code is 1012"),
        ("redis.py", '`"lilya:limits"`', '`"lilya:limit"`', "default of prefix is"),
    ],
)
def test_planted_argument(name: str, old: str, new: str, said: str) -> None:
    text = (SOURCE / name).read_text(encoding="utf-8")
    assert old in text
    found = said_of_arguments(SOURCE / name, text.replace(old, new, 1))
    assert len(found) == 1
    assert re.match(r"packages/lilya-websockets/src/lilya/websockets/[\w/]+\.py:\d+: ", found[0])
    assert said in found[0]


def shown() -> set[str]:
    """The methods whose signatures stand in lists."""
    return {
        bullet.method
        for path in PAGES
        for bullet in read_page(path, ROOT).bullets
        if bullet.receiver == "websocket"
    }


def mention(name: str) -> str:
    """The first place of the guides that speaks of a method."""
    for path in sorted(PAGES, key=lambda path: "guides" not in path.parts):
        text = path.read_text(encoding="utf-8")
        if f"`{name}(" in text or f"websocket.{name}(" in text:
            return at(path, f"{name}(", text)
    return "docs/websockets.md:1"


@pytest.mark.page("docs/websockets.md", "* `await websocket.")
def test_each_method_has_its_signature_on_a_page() -> None:
    public = {
        name
        for cls in WebSocket.__mro__
        if cls.__module__.startswith("lilya.websockets")
        for name, member in vars(cls).items()
        if name[0] != "_"
        and inspect.isfunction(inspect.unwrap(getattr(WebSocket, name)))
        and inspect.isfunction(member)
    }
    assert [f"{mention(name)}: no list shows its signature" for name in public - shown() - ELSEWHERE] == []
    assert public - shown() == public & ELSEWHERE, "what a list shows is not elsewhere"


def test_every_public_name_is_known() -> None:
    assert set(lilya.websockets.__all__) <= names().known


# What the Reference shows of each class of channels, besides what it inherits from Python's own: what users
# and authors of backends call, and no machinery.
SHOWN = {
    "BrokerError": set[str](),
    "Channels": {
        *("backend", "close", "count", "drain", "join", "members", "publish", "publish_from_thread"),
        *("publish_json", "publish_message", "ready", "subscribe"),
    },
    "ChannelsError": set[str](),
    "Dropped": {"count"},
    "Event": {"channel", "data", "exclude", "id", "idempotency_key", "json"},
    "Gap": {"channel", "id", "since"},
    "Grant": {"member", "presence", "publish"},
    "Member": {"channel", "id", "info", "json", "key"},
    "Membership": {"dropped", "ended", "id", "members", "pending", "positions", "sent", "websocket"},
    "OutboxFull": {"positions"},
    "Presence": {"channel", "member", "of_person", "sockets", "type"},
    "Publisher": {"close", "publish", "publish_json"},
    "Refused": {"code", "message"},
    "Subscription": {"dropped", "id", "pending", "positions", "sent"},
    # of `channels.backends`
    "Backend": {
        *("appear", "count", "history", "members", "names", "order_in_time", "order_of", "publish", "read"),
        *("ready", "reap", "start", "status", "stop", "unwatch", "vanish", "wake", "watch"),
    },
    "History": {"complete", "events", "lasting", "position"},
    "Id": {"epoch", "ms", "parse", "seq"},
    "Status": {
        *("age", "behind", "bytes", "channel", "events", "lag", "lags", "listeners", "members", "newest"),
        "silent",
    },
    "Wishes": {"exclude", "history", "idempotency_key", "max_age"},
}


def of_channels(name: str) -> Any:
    """A public name of channels, or of what an author of a backend needs."""
    for module in ("lilya.websockets.channels", "lilya.websockets.channels.backends"):
        if name in importlib.import_module(module).__all__:
            return getattr(importlib.import_module(module), name)
    return None


def public(cls: type) -> set[str]:
    """The public names of a class, those that its instances get included. Each is described."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]
    assert isinstance(tree, ast.ClassDef)
    described = {name for _, name, _ in arguments(ast.get_docstring(tree, clean=False) or "")}
    names = set()
    for node, following in zip(tree.body, [*tree.body[1:], None], strict=True):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            assert node.name.startswith("_") or ast.get_docstring(node), f"{cls.__name__}.{node.name}"
            names.add(node.name)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            name = node.target.id
            assert name in described or isinstance(following, ast.Expr), (
                f"{cls.__name__}.{name}: no docstring"
            )
            names.add(name)
    names |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and _is_set(node)}
    return {name for name in names if not name.startswith("_")}


def _is_set(node: ast.Attribute) -> bool:
    return isinstance(node.ctx, ast.Store) and isinstance(node.value, ast.Name) and node.value.id == "self"


@pytest.mark.parametrize("name", SHOWN)
def test_channels_show_what_users_call(name: str) -> None:
    cls = of_channels(name)
    assert cls.__doc__
    assert public(cls) == SHOWN[name]
    bases = [base for base in cls.__mro__[1:] if base.__module__.startswith("lilya.")]
    inherited = {name for base in bases for name in vars(base) if not name.startswith("_")}
    assert inherited == set(), "machinery of a base is shown under public names"


def test_each_class_of_channels_is_among_these() -> None:
    names = {
        name
        for module in ("lilya.websockets.channels", "lilya.websockets.channels.backends")
        for name in importlib.import_module(module).__all__
    }
    assert {name for name in names if inspect.isclass(of_channels(name))} == set(SHOWN)


def classes_in(target: Any) -> set[type]:
    """The classes of channels in the annotations of a function, or of a class and its methods."""
    found: set[type] = set()
    left = [target]
    while left:
        each = left.pop()
        if inspect.isclass(each) and each.__module__.startswith("lilya.websockets.channels"):
            if each not in found:
                found.add(each)
                left += [member for name, member in vars(each).items() if not name.startswith("_")]
                left += typing.get_type_hints(each).values()
        elif isinstance(each, property):
            left.append(each.fget)
        elif inspect.isfunction(each):
            left += typing.get_type_hints(each).values()
        else:
            left += typing.get_args(each)
    return found


@pytest.mark.parametrize("name", ["Backend", "Channels", "Publisher", "presence_event", "serve"])
def test_each_name_in_the_interface_is_public(name: str) -> None:
    """So that nobody has to import a private module to write an annotation, or a backend."""
    met = classes_in(of_channels(name))
    assert [cls.__name__ for cls in met if cls is not of_channels(cls.__name__)] == []


def test_what_a_backend_names() -> None:
    met = {cls.__name__ for cls in classes_in(Backend)}
    assert met == {"Backend", "Event", "Gap", "History", "Member", "Status", "Wishes"}


# What one engine has, and another does not.
OF_REDIS = re.compile(
    r"\b(?:redis\w*|valkey|lua|scripts?|streams?|slots?|clusters?|sentinels?|hash|pub/sub|replicas?)\b",
    re.IGNORECASE,
)


def said_of_redis(*docstrings: str | None) -> list[str]:
    return [found for text in docstrings for found in OF_REDIS.findall(text or "")]


def test_the_interface_of_a_backend_is_free_of_redis() -> None:
    module = importlib.import_module(Backend.__module__)
    texts = [module.__doc__, presence_of.__doc__, presence_event.__doc__]
    for cls in classes_in(Backend) | {Id}:
        texts += [
            cls.__doc__,
            *(inspect.getdoc(getattr(cls, name)) for name in public(cls) if name != "ready"),
        ]
    assert len(texts) > 40
    assert said_of_redis(*texts) == []
    assert said_of_redis("Append to the stream of a channel, in its slot.") == ["stream", "slot"]
    # An argument is as good as a word: a `slot`, say.
    arguments = {
        argument
        for name in public(Backend) - {"ready"}
        for argument in inspect.signature(getattr(Backend, name)).parameters
    }
    assert arguments == {
        *(
            "self",
            "channel",
            "channels",
            "data",
            "id",
            "keys",
            "last",
            "members",
            "positions",
            "since",
            "ttl",
        ),
        *("wishes", "within"),
    }


class Planted:
    """What a class with machinery looks like."""

    def __init__(self) -> None:
        self.machinery = 1

    def settle(self) -> None:
        """Not for users."""


def test_planted_machinery_is_seen() -> None:
    assert public(Planted) == {"machinery", "settle"}

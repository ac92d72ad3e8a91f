"""The examples: which file is an app, what its transcripts are, how to load it, where it waits."""

from __future__ import annotations

import ast
import asyncio
import importlib.util
import linecache
import shlex
import sys
import traceback
import types
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import anyio

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup

from ws_doctest._asgi import FOLDER, ASGIApp, LifespanError, WebSocketTimeout
from ws_doctest._tests import is_test


def has_app(path: Path) -> bool:
    """Tell whether a file defines ``app`` at its top level, without running it. A test file has none."""
    if is_test(path):
        return False
    return defines_app(path.read_text(encoding="utf-8"))


@cache
def defines_app(source: str) -> bool:
    """Tell whether code defines ``app`` at its top level, without running it."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return False  # the lint item reports the syntax error, with its place
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            if node.name == "app":
                return True
        elif isinstance(node, ast.Import | ast.ImportFrom):
            if any((alias.asname or alias.name) == "app" for alias in node.names):
                return True
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = {name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)}
            if "app" in names:
                return True
    return False


def transcripts_of(example: Path) -> list[Path]:
    """Return the transcripts beside an example: ``echo.ws`` first, then ``echo.NAME.ws``, by name."""
    found = [path for path in example.parent.glob(f"{example.stem}*.ws") if example_of(path) == example]
    return sorted(found, key=lambda path: (path.name.count("."), path.name))


def example_of(transcript: Path) -> Path:
    """Return the example that a transcript belongs to, whether it exists or not."""
    return transcript.parent / (transcript.name.partition(".")[0] + ".py")


def module_name(root: Path, example: Path) -> str:
    """Return the dotted name under which ``uvicorn`` finds an example from the root."""
    return ".".join(example.relative_to(root).with_suffix("").parts)


def client_command(url: str) -> str:
    """Return the command that talks to a WebSocket; a shell would split it at the `&` of a query."""
    return f"python -m websockets {shlex.quote(url)}"


@dataclass(frozen=True)
class Code:
    """An app in a page itself.

    Args:
        path: the page.
        source: the code.
        above: the lines of the page before it.
    """

    path: Path
    source: str
    above: int

    def load_app(self, root: Path) -> ASGIApp:
        """Return the ``app``, freshly made; its traceback shows the lines of the page."""
        make_importable(root)
        name = f"{self.path.stem}_{self.above}"
        module = types.ModuleType(name)
        sys.modules[name] = module  # dataclasses and annotations look the module up while it runs
        linecache.checkcache(str(self.path))
        code = compile("\n" * self.above + self.source, str(self.path), "exec", dont_inherit=True)
        exec(code, module.__dict__)
        app: ASGIApp = module.__dict__["app"]
        return app


def imports_of(examples: Iterable[Path | Code], root: Path) -> list[str]:
    """Return the modules that examples import, but for those of the project itself."""
    found: dict[str, None] = {}
    for example in examples:
        try:
            source = example.source if isinstance(example, Code) else example.read_text(encoding="utf-8")
            tree = ast.parse(source)
        except (OSError, SyntaxError, ValueError):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                found |= dict.fromkeys(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found[node.module] = None
    return [name for name in found if not (root / name.partition(".")[0]).exists()]


def make_importable(root: Path) -> None:
    """Let examples import one another as `docs_src.…`, as under uvicorn."""
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))


def load(root: Path, example: Path) -> types.ModuleType:
    """Run an example's file as a fresh module.

    Fresh, because the same transcript is replayed several times and an app may keep state in its
    module.
    """
    make_importable(root)
    name = module_name(root, example)
    spec = importlib.util.spec_from_file_location(name, example)
    if spec is None or spec.loader is None:
        raise ImportError(f"{example} cannot be imported: it is not a Python file")
    module = importlib.util.module_from_spec(spec)
    previous = sys.modules.get(name)
    sys.modules[name] = module  # dataclasses and annotations look the module up while it runs
    linecache.checkcache(str(example))
    try:
        spec.loader.exec_module(module)
    except BaseException:
        if previous is None:
            del sys.modules[name]
        else:
            sys.modules[name] = previous
        raise
    return module


def load_app(root: Path, example: Path | Code) -> ASGIApp:
    """Return the ``app`` of an example, freshly loaded."""
    if isinstance(example, Code):
        return example.load_app(root)
    app: ASGIApp = load(root, example).app
    return app


def describe_error(error: BaseException, root: Path) -> str:
    """Return the traceback of an app's exception, from the first line of the app on."""
    tb = error.__traceback__
    inside = (Path(__file__).parent, FOLDER)
    while tb is not None:
        file = tb.tb_frame.f_code.co_filename
        if Path(file).parent not in inside and not file.startswith("<frozen importlib"):
            break
        tb = tb.tb_next
    text = "".join(traceback.format_exception(type(error), error, tb))
    return text.replace(f'"{root}/', '"').rstrip()


def describe_lifespan_error(error: BaseException, root: Path) -> str:
    """Return what went wrong when an app was started up or shut down."""
    if isinstance(error, LifespanError | WebSocketTimeout):
        return str(error)
    return "the app raised an exception in its lifespan:\n" + describe_error(error, root)


# Frameworks in which a handler that receives until its client leaves ends by an exception.
_BY_EXCEPTION = {"fastapi", "lilya", "litestar", "starlette"}
_DISCONNECTS = {"WebSocketDisconnect", "ClientDisconnected"}


def may_end_by_disconnect(app: object, setting: str) -> bool:
    """Tell whether the exception of a client's disconnect is a normal end of this app's handlers.

    Args:
        app: the app.
        setting: ``normal``, ``error``, or ``framework``: where that is the framework's own way.
    """
    if setting != "framework":
        return setting == "normal"
    modules = {cls.__module__.partition(".")[0] for cls in type(app).__mro__}
    return bool(modules & _BY_EXCEPTION)


def is_disconnect(error: BaseException) -> bool:
    """Tell whether an exception says that the client has left, whichever framework's it is."""
    if isinstance(error, BaseExceptionGroup):
        return all(is_disconnect(each) for each in error.exceptions)
    names = {cls.__name__ for cls in type(error).__mro__}
    return bool(names & _DISCONNECTS) and "WebSocketClosed" not in names


async def at_rest() -> None:
    """Wait until every other task of this event loop waits for something that is not there yet."""
    try:
        this = asyncio.current_task()
    except RuntimeError:  # trio, which knows
        await anyio.wait_all_tasks_blocked()
        return
    # AnyIO's own function sleeps a tenth of a second between two looks, and there is a look for every line
    # of a transcript. Two looks in a row: between them run the callbacks that were due at the first.
    quiet = 0
    while quiet < 2:
        await asyncio.sleep(0)
        busy = any(_can_go_on(task) for task in asyncio.all_tasks() if task is not this)
        quiet = 0 if busy else quiet + 1


def _can_go_on(task: asyncio.Task[object]) -> bool:
    # What a task waits for: an attribute that is not documented, and the only way to know.
    waiter: asyncio.Future[object] | None = getattr(task, "_fut_waiter", None)
    return waiter is None or waiter.done()

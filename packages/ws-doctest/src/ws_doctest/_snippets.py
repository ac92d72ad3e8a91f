"""Inline snippets: Python that stands in the page itself, run on a real connection.

A snippet has `scope`, `receive` and `send` of a connection and may `await` at its top level. The
value of each bare expression is compared with an expectation in a file beside the examples,
because the page shows the expression alone. docs/NAME.md has its expectations in
docs_src/NAME/snippets.toml:

    [connection]                        # of every snippet of the page
    path = "/chat/ada?search=asgi"
    path_params = { username = "ada" }

    [snippets."URL".values]             # the heading above the snippet
    "websocket.url.port" = "8000"       # expression = repr of its value
"""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
from collections.abc import Iterable, Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import anyio
import tomlkit
import tomlkit.exceptions
from tomlkit.items import KeyType, SingleKey, Table

from ws_doctest import _apps, _memory, transcript
from ws_doctest._asgi import Receive, Scope, Send
from ws_doctest._pages import PYTHON, PYTHON_CONSOLE, Fence, Page, PageError
from ws_doctest._watch import Reach
from ws_doctest.transcript import Bytes, Close, Connect, Text

SIDECAR = "snippets.toml"

_CONNECTION_KEYS: dict[str, Any] = {
    "path": str,
    "headers": (dict, list),
    "subprotocols": list,
    "client": list,
    "path_params": dict,
    "scope": dict,
}


class SnippetError(PageError):
    """A snippet or its expectations are wrong; the message names page or file, and line."""


@dataclass(frozen=True)
class Value:
    """What a bare expression came to."""

    line: int  # of the page
    expression: str
    shown: str  # its repr
    optional: bool  # a call that returned None is a statement in effect


@dataclass
class Snippet:
    """A fence of Python on a page."""

    page: str
    path: Path
    fence: Fence
    key: str
    values: list[Value] = field(default_factory=list)

    async def run(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the snippet as the handler of a connection, and note the values of its expressions."""
        self.values.clear()
        await self.execute({"scope": scope, "receive": receive, "send": send})

    async def execute(self, names: dict[str, Any]) -> None:
        """Run the snippet with these names defined."""
        code = self.compile()
        names = {"__name__": "__ws_doctest__", _NOTE: self.note, **names}
        result = eval(code, names)
        if inspect.iscoroutine(result):
            await result

    def compile(self) -> Any:
        """Compile with the lines of the page, so that a traceback shows the page's own source."""
        try:
            tree = ast.parse(self.fence.source, str(self.path))
        except SyntaxError as exc:
            line = self.fence.line + (exc.lineno or 0)
            raise SnippetError(f"{self.page}:{line}: {exc.msg}") from None
        ast.increment_lineno(tree, self.fence.line)
        tree.body = [self.noting(node) if _is_bare(node) else node for node in tree.body]
        flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        return compile(ast.fix_missing_locations(tree), str(self.path), "exec", flags, dont_inherit=True)

    def noting(self, statement: ast.stmt) -> ast.stmt:
        """Return a statement that does the same and notes the value."""
        assert isinstance(statement, ast.Expr)  # _is_bare said so
        source = ast.get_source_segment(
            "\n" * self.fence.line + self.fence.source, statement.value
        ) or ast.unparse(statement.value)
        called = statement.value.value if isinstance(statement.value, ast.Await) else statement.value
        arguments = [
            ast.Constant(statement.lineno),
            ast.Constant(" ".join(source.split())),
            ast.Constant(isinstance(called, ast.Call)),
            statement.value,
        ]
        call = ast.Call(ast.Name(_NOTE, ast.Load()), list[ast.expr](arguments), [])
        return ast.copy_location(ast.Expr(ast.copy_location(call, statement)), statement)

    def note(self, line: int, expression: str, is_call: bool, value: object) -> None:
        """Keep a value, as the repr that it has now."""
        self.values.append(Value(line, expression, repr(value), is_call and value is None))


_NOTE = "__ws_doctest_note__"


def _is_bare(statement: ast.stmt) -> bool:
    # A docstring or an ellipsis shows nothing but itself.
    return isinstance(statement, ast.Expr) and not (
        isinstance(statement.value, ast.Constant) and isinstance(statement.value.value, str | type(...))
    )


def snippets_of(page: Page, path: Path) -> list[Snippet]:
    """Return the snippets of a page, keyed by the headings above them."""
    counts: dict[str, int] = {}
    snippets = []
    for fence in page.fences:
        if fence.language not in PYTHON or fence.includes or fence.skip is not None:
            continue
        if _apps.defines_app(fence.source):  # the transcript below it runs it
            continue
        counts[fence.heading] = counts.get(fence.heading, 0) + 1
        number = counts[fence.heading]
        snippets.append(
            Snippet(page.name, path, fence, fence.heading + (f" ({number})" if number > 1 else ""))
        )
    return snippets


def consoles_of(page: Page) -> list[Fence]:
    """Return the fences that show the Python prompt."""
    return [fence for fence in page.fences if fence.language in PYTHON_CONSOLE and fence.skip is None]


def run_console(fence: Fence, path: Path, name: str) -> str | None:
    """Run a fence that shows the Python prompt, as doctest does; return the failure."""
    examples = doctest.DocTestParser().get_doctest(fence.expanded(), {}, name, str(path), fence.line)
    if not examples.examples:
        return f"{name}:{fence.line}: a fence of type {fence.language} shows no prompt `>>>`"
    report: list[str] = []
    doctest.DocTestRunner(verbose=False).run(examples, out=report.append)
    return "".join(report).strip() or None


class Sidecar:
    """The expectations of one page."""

    def __init__(self, path: Path, root: Path) -> None:
        self.path = path
        self.name = path.relative_to(root).as_posix()
        self.text = path.read_text(encoding="utf-8") if path.is_file() else ""
        try:
            self.content = _content_of(self.text)
        except tomlkit.exceptions.ParseError as exc:
            raise SnippetError(f"{self.name}:{exc.line}: {exc}") from None
        self.check()

    def check(self) -> None:
        """Refuse what is misspelt: an expectation that nobody reads cannot fail."""
        content = self.content
        self._known(content, {"connection": dict, "snippets": dict}, "the file")
        self._known(content.get("connection", {}), _CONNECTION_KEYS, "[connection]")
        for key, section in content.get("snippets", {}).items():
            place = f'[snippets."{key}"]'
            self._known({key: section}, {key: dict}, "[snippets]")
            self._known(section, {"connection": dict, "values": dict}, place)
            self._known(section.get("connection", {}), _CONNECTION_KEYS, place + " connection")
            for expression, shown in section.get("values", {}).items():
                if not (isinstance(shown, str) or (isinstance(shown, list) and shown)):
                    raise SnippetError(
                        f"{self.name}: {place}: {expression!r} is its repr as a string, or a list "
                        f"of them for an expression that stands there several times; not {shown!r}"
                    )

    def _known(self, table: Mapping[str, Any], known: Mapping[str, Any], place: str) -> None:
        for key, value in table.items():
            if key not in known:
                raise SnippetError(f"{self.name}: {place} has one of {', '.join(known)}, not {key!r}")
            if not isinstance(value, known[key]):
                kinds = known[key] if isinstance(known[key], tuple) else (known[key],)
                wanted = " or a ".join(kind.__name__ for kind in kinds)
                raise SnippetError(f"{self.name}: {place}: {key!r} is a {wanted}, not {value!r}")

    @property
    def keys(self) -> set[str]:
        """The headings for which there are expectations or connections."""
        return set(self.content.get("snippets", {}))

    def connection(self, key: str) -> dict[str, Any]:
        """Return the connection of a snippet: the page's, with what its own section says instead."""
        content = self.content
        own: dict[str, Any] = content.get("snippets", {}).get(key, {}).get("connection", {})
        return {**content.get("connection", {}), **own}

    def expected(self, key: str) -> list[tuple[str, str]]:
        """Return the expectations of a snippet, as expression and repr, in the file's order."""
        values = self.content.get("snippets", {}).get(key, {}).get("values", {})
        return [
            (expression, shown)
            for expression, written in values.items()
            for shown in ([written] if isinstance(written, str) else written)
        ]

    def compare(self, snippet: Snippet) -> str | None:
        """Return how values and expectations differ, or ``None``."""
        expected: dict[str, list[str]] = {}
        for expression, shown in self.expected(snippet.key):
            expected.setdefault(expression, []).append(shown)
        problems = []
        for value in snippet.values:
            wanted = expected.get(value.expression)
            if wanted:
                shown = wanted.pop(0)
                if shown != value.shown:
                    problems.append(
                        f"{snippet.page}:{value.line}: {value.expression} is {value.shown}; "
                        f"{self.name} expects {shown}"
                    )
            elif not value.optional:
                problems.append(
                    f"{snippet.page}:{value.line}: {value.expression} is {value.shown}; "
                    f"{self.name} expects nothing: "
                    f'add it to [snippets."{snippet.key}".values], or run with --ws-update'
                )
        for expression, left in expected.items():
            problems += [
                f'{self.name}: [snippets."{snippet.key}".values] expects {shown} of {expression}, '
                f"which the snippet at {snippet.page}:{snippet.fence.line} does not show"
                for shown in left
            ]
        return "\n".join(problems) or None

    def update(self, snippet: Snippet) -> None:
        """Write the values of a snippet as its expectations."""
        values: dict[str, list[str]] = {}
        for value in snippet.values:
            if not value.optional:
                values.setdefault(value.expression, []).append(value.shown)
        new = {expression: shown[0] if len(shown) == 1 else shown for expression, shown in values.items()}
        if new == self.content.get("snippets", {}).get(snippet.key, {}).get("values", {}):
            return
        document = tomlkit.parse(self.text)  # with its comments
        snippets = document.setdefault("snippets", tomlkit.table(is_super_table=True))
        section = snippets.setdefault(snippet.key, tomlkit.table(is_super_table=True))
        assert isinstance(section, Table)  # check() refuses a file in which it is something else
        section.pop("values", None)
        if new:
            table = tomlkit.table()
            for expression, reprs in new.items():
                table.append(_literal_key(expression), _literal(reprs))
            section["values"] = table
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(tomlkit.dumps(document), encoding="utf-8")


@cache
def _content_of(text: str) -> dict[str, Any]:
    """Return what a file says. Each snippet of a page asks for the same, and nobody changes it."""
    return tomlkit.parse(text).unwrap()


def sidecar_path(page: Path, pages: Path, examples: Path) -> Path:
    """Return where a page's expectations are: docs/NAME.md has docs_src/NAME/snippets.toml."""
    return examples / page.relative_to(pages).with_suffix("") / SIDECAR


def run_in_memory(
    snippet: Snippet,
    connection: Mapping[str, Any],
    root: Path,
    *,
    backend: str,
    limit: float,
    reach: Reach | None = None,
) -> str | None:
    """Run a snippet on a connection in memory.

    Args:
        snippet: the snippet, which notes its values.
        connection: what its sidecar says of the connection.
        root: the project's root.
        backend: ``asyncio`` or ``trio``.
        limit: seconds that it may take.
        reach: where to note what of the code is run.

    Returns:
        What went wrong, or ``None``.
    """
    headers = connection.get("headers", {})  # pairs where a name comes twice
    pairs = headers.items() if isinstance(headers, dict) else headers
    request = Connect(
        connection.get("path", "/"),
        tuple((name.lower(), value) for name, value in pairs),
        tuple(connection.get("subprotocols", ())),
    )
    extra = dict(connection.get("scope", {}))
    if "path_params" in connection:
        extra["path_params"] = connection["path_params"]
    scope = _memory.websocket_scope(request, extra)
    lines = [f"> {line}" for line in connection.get("client", ())]
    script = transcript.parse(
        "\n".join([f"> connect {request.path}", *lines]), f"the connection of {snippet.key!r}"
    )

    # A framework may take longer to import than the snippet may run.
    fence = snippet.fence
    for name in _apps.imports_of([_apps.Code(snippet.path, fence.source, fence.line)], root):
        with suppress(Exception):  # the snippet says so itself
            importlib.import_module(name)

    async def main() -> str | None:
        with reach.watching() if reach else nullcontext():
            return await play()

    async def play() -> str | None:
        async with _memory.connect(snippet.run, scope, root, snippet.path, must_open=False) as session:
            for step in script.steps[1:]:
                await (
                    _apps.at_rest()
                )  # a client says something when it has been let in, and one thing at a time
                if isinstance(step.event, Text | Bytes):
                    await session.send(step.event.data)
                elif isinstance(step.event, Close):
                    await session.close(step.event.code, step.event.reason)
            try:
                with anyio.fail_after(limit):
                    return await session.ended()
            except TimeoutError:
                return f"timed out after {limit:g} s; the snippet was waiting in {await session.where()}"

    result: str | None = _memory.run_in_thread(main, backend, limit + 2, root, snippet.path)
    return result


def _literal_key(text: str) -> SingleKey:
    """Return a key as one would write it: without escapes, if that is possible."""
    return SingleKey(text, KeyType.Literal if "'" not in text else KeyType.Basic)


def _literal(value: str | list[str]) -> Any:
    if isinstance(value, list):
        array = tomlkit.array()
        for item in value:
            array.append(_literal(item))
        return array
    literal = "'" not in value and value.isprintable() and ('"' in value or "\\" in value)
    return tomlkit.string(value, literal=literal)


def unknown_keys(sidecar: Sidecar, snippets: Iterable[Snippet]) -> list[str]:
    """Return the expectations for snippets that the page does not have."""
    known = {snippet.key for snippet in snippets}
    return [
        f'{sidecar.name}: [snippets."{key}"] is for a snippet that the page does not have; it has '
        + (", ".join(repr(name) for name in sorted(known)) or "none")
        for key in sorted(sidecar.keys - known)
    ]

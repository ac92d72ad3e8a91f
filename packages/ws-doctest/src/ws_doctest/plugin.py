"""The pytest plugin: ``pytest docs`` is the gate.

    [tool.pytest.ini_options]
    ws_doctest_pages = ["docs"]
    ws_doctest_examples = ["docs_src"]
    ws_doctest_receivers = ["websocket=lilya.websockets:WebSocket"]

Without ``ws_doctest_pages`` it does nothing. Everything but pytest is imported when a page is
collected, so that a project's other tests do not pay for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from ws_doctest._pages import Bullet
    from ws_doctest._project import Project
    from ws_doctest._snippets import Snippet
    from ws_doctest._wire import UvicornProcess

SERVERS = ("websockets-sansio", "wsproto", "websockets")
BACKENDS = ("asyncio", "trio")


class GateFailure(Exception):
    """What a page promises is not so; the message is shown alone, without a traceback."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the option and the ini keys."""
    group = parser.getgroup("ws-doctest", "doctest for WebSockets")
    group.addoption(
        "--ws-update",
        action="store_true",
        help="rewrite transcripts and the expectations of inline snippets to what is seen now",
    )
    parser.addini("ws_doctest_pages", "folders of Markdown pages, and single pages", type="args", default=[])
    parser.addini(
        "ws_doctest_examples", "folders of the included examples", type="args", default=["docs_src"]
    )
    parser.addini(
        "ws_doctest_receivers",
        "NAME=module:Class for each name on which signature bullets show a call",
        type="linelist",
        default=[],
    )
    parser.addini(
        "ws_doctest_elsewhere",
        "FOLDER: WHERE AND WHY for each folder of examples that another environment runs",
        type="linelist",
        default=[],
    )
    parser.addini(
        "ws_doctest_asyncio",
        "FOLDER: WHY for each folder of examples that is replayed on asyncio only",
        type="linelist",
        default=[],
    )
    parser.addini("ws_doctest_time_limit", "seconds that one step of a replay may take", default="5")
    parser.addini(
        "ws_doctest_servers",
        "implementations of WebSockets in uvicorn over which transcripts are replayed",
        type="args",
        default=list(SERVERS),
    )
    parser.addini(
        "ws_doctest_line_length", "line length of examples; default: ruff's configuration", default=""
    )


def pytest_configure(config: pytest.Config) -> None:
    """Set the gate up, if there is something to guard."""
    if config.getini("ws_doctest_pages"):
        gate = Gate(config)
        config.stash[_GATE] = gate
        config.pluginmanager.register(gate, "ws-doctest-gate")


def _reason(folders: dict[Path, str], path: Path) -> str | None:
    return next((reason for folder, reason in folders.items() if folder in path.parents), None)


class Gate:
    """The gate of one pytest run: its configuration, its servers, its account."""

    def __init__(self, config: pytest.Config) -> None:
        from ws_doctest._project import Project

        self.config = config
        root = config.rootpath.resolve()
        self.project: Project = Project(
            root,
            [(root / path).resolve() for path in config.getini("ws_doctest_pages")],
            [(root / path).resolve() for path in config.getini("ws_doctest_examples")],
        )
        self.update: bool = config.getoption("ws_update")
        self.limit = self._number("ws_doctest_time_limit", float)
        length = config.getini("ws_doctest_line_length")
        self.line_length = self._number("ws_doctest_line_length", int) if length else None
        self.receivers: dict[str, str] = {}
        for line in config.getini("ws_doctest_receivers"):
            name, equals, target = line.partition("=")
            if not equals:
                raise pytest.UsageError(f"ws_doctest_receivers: expected NAME=module:Class, came {line!r}")
            self.receivers[name.strip()] = target.strip()
        self.elsewhere = self._folders("ws_doctest_elsewhere", root)
        self.asyncio_only = self._folders("ws_doctest_asyncio", root)
        self.implementations: list[str] = config.getini("ws_doctest_servers")
        self.servers: dict[str, UvicornProcess | str] = {}
        self.counts: dict[str, int] = {}
        self.skipped: list[str] = []

    def _number(self, key: str, kind: Callable[[str], Any]) -> Any:
        text = self.config.getini(key)
        try:
            number = kind(text)
        except ValueError:
            number = 0
        if not number > 0:
            raise pytest.UsageError(f"{key}: expected a number above 0, came {text!r}")
        return number

    def _folders(self, key: str, root: Path) -> dict[Path, str]:
        """Return the folders that are named with a reason."""
        found: dict[Path, str] = {}
        for line in self.config.getini(key):
            folder, _, reason = (part.strip() for part in line.partition(":"))
            if not reason or not (root / folder).is_dir():
                raise pytest.UsageError(f"{key}: expected FOLDER: REASON, came {line!r}")
            found[(root / folder).resolve()] = reason
        return found

    def server(self, implementation: str) -> UvicornProcess:
        """Return the running server with this implementation; it is started once per run."""
        from ws_doctest._wire import ServerError, UvicornProcess

        found = self.servers.get(implementation)
        if found is None:
            try:
                found = UvicornProcess(implementation, self.project.root)
            except ServerError as exc:
                found = str(exc)  # kept: what does not start once is not waited for again
            self.servers[implementation] = found
        if isinstance(found, str):
            raise GateFailure(found)
        return found

    def reason_not_to_run(self, path: Path) -> str | None:
        """Return where else an example is run and why, or ``None`` if it is run here."""
        return _reason(self.elsewhere, path)

    def reason_not_on(self, backend: str, path: Path) -> str | None:
        """Return why an example is not replayed on this event loop, or ``None`` if it is."""
        return None if backend == "asyncio" else _reason(self.asyncio_only, path)

    def discard(self, implementation: str) -> None:
        """Stop a server in which a handler hangs; the next replay gets a new one."""
        found = self.servers.pop(implementation, None)
        if found is not None and not isinstance(found, str):
            found.stop()

    # Hooks

    @pytest.hookimpl(tryfirst=True)
    def pytest_collect_directory(self, path: Path, parent: pytest.Collector) -> pytest.Collector | None:
        """Collect the first folder of pages together with the check of the whole."""
        if path.resolve() == self.project.pages[0]:
            collector: pytest.Collector = PagesDir.from_parent(parent, path=path)
            return collector
        return None

    def pytest_collect_file(self, file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
        """Collect a page."""
        if file_path.suffix == ".md" and any(
            file_path.resolve().is_relative_to(pages) for pages in self.project.pages
        ):
            collector: pytest.Collector = DocPage.from_parent(parent, path=file_path)
            return collector
        return None

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep account."""
        kind = dict(report.user_properties).get("ws_doctest")
        if isinstance(kind, str) and report.when == "call":
            if report.skipped and isinstance(report.longrepr, tuple):
                reason = report.longrepr[2].removeprefix("Skipped: ")
                self.skipped.append(f"{report.location[0]}:{(report.location[1] or 0) + 1}: {reason}")
            else:
                self.counts[kind] = self.counts.get(kind, 0) + 1

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say what was checked, and what was not and why."""
        if not self.counts and not self.skipped:
            return
        counted = ", ".join(f"{number} {kind}" for kind, number in sorted(self.counts.items()))
        terminalreporter.write_sep("-", "ws-doctest")
        terminalreporter.write_line(f"checked: {counted or 'nothing'}; skipped: {len(self.skipped)}")
        for line in self.skipped:
            terminalreporter.write_line(f"skipped {line}")

    def pytest_unconfigure(self) -> None:
        """Leave no server behind, also when the run was interrupted."""
        for implementation in list(self.servers):
            self.discard(implementation)


_GATE = pytest.StashKey[Gate]()


class GateItem(pytest.Item):
    """One check. ``check`` returns the failure as text, or ``None``."""

    def __init__(
        self, *, kind: str, line: int, check: Callable[[], str | None], skip: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.check = check
        self.line = line
        self.skip = skip
        self.user_properties.append(("ws_doctest", kind))

    def runtest(self) -> None:
        """Run the check."""
        if self.skip is not None:
            raise pytest.skip.Exception(self.skip, _use_item_location=True)
        from ws_doctest._pages import PageError

        try:
            failure = self.check()
        except PageError as exc:
            failure = str(exc)
        if failure:
            raise GateFailure(failure)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """Show the message alone; a traceback only of the gate's own faults."""
        if isinstance(excinfo.value, GateFailure):
            return str(excinfo.value)
        return super().repr_failure(excinfo)

    def reportinfo(self) -> tuple[Path, int, str]:
        """Say where on the page this is."""
        # Not the bare name: pytest would show the dots in it as `::`.
        return self.path, self.line - 1, f"{self.parent.name if self.parent else ''}: {self.name}"


def _gate(node: pytest.Collector) -> Gate:
    return node.config.stash[_GATE]


def _whole(parent: pytest.Collector) -> GateItem:
    """Return the check of the repository as a whole."""
    project = _gate(parent).project
    item: GateItem = GateItem.from_parent(
        parent,
        name="complete",
        kind="repository",
        line=1,
        check=lambda: "\n".join(project.problems()) or None,
    )
    return item


class PagesDir(pytest.Directory):
    """A folder of pages."""

    def collect(self) -> Iterable[pytest.Item | pytest.Collector]:
        """Yield the check of the whole, then the pages."""
        yield _whole(self)
        for path in sorted(self.path.iterdir()):  # as pytest.Dir, which is final, does
            if self.ihook.pytest_ignore_collect(collection_path=path, config=self.config):
                continue
            if path.is_dir():
                collector = self.ihook.pytest_collect_directory(path=path, parent=self)
                if collector is not None:
                    yield collector
            elif path.is_file():
                yield from self.ihook.pytest_collect_file(file_path=path, parent=self)


class DocPage(pytest.File):
    """A page."""

    def collect(self) -> Iterator[GateItem]:
        """Yield everything that is to be checked on the page."""
        from ws_doctest import _snippets

        gate = _gate(self)
        path = self.path.resolve()
        page = gate.project.page(path)
        if path == gate.project.pages[0]:  # a single page, of which there is no folder
            yield _whole(self)
        yield self.item("page", "page", 1, lambda: "\n".join(gate.project.page_problems(path)) or None)
        for fence in page.fences:
            if fence.skip is not None:
                yield self.item(f"fence:{fence.line}", "skipped", fence.line, lambda: None, fence.skip)
        for bullet in page.bullets:
            name = f"signature:{bullet.line} {bullet.receiver}.{bullet.method}"
            yield self.item(name, "signatures", bullet.line, partial(self.signature, bullet), bullet.skip)
        seen: set[Path] = set()
        for include in page.includes:
            if include.path not in seen:
                seen.add(include.path)
                yield from self.included(include.path, include.line)
        snippets = _snippets.snippets_of(page, path)
        for snippet in snippets:
            yield from self.snippet(snippet)
        for fence in _snippets.consoles_of(page):
            yield self.item(
                f"console:{fence.line}",
                "consoles",
                fence.line,
                partial(_snippets.run_console, fence, path, page.name),
            )
        sidecar = gate.project.sidecar(path)
        if sidecar is not None and sidecar.is_file():
            yield self.item(
                "expectations",
                "expectation files",
                1,
                lambda: (
                    "\n".join(_snippets.unknown_keys(_snippets.Sidecar(sidecar, gate.project.root), snippets))
                    or None
                ),
            )

    def item(
        self, name: str, kind: str, line: int, check: Callable[[], str | None], skip: str | None = None
    ) -> GateItem:
        """Return one check of this page."""
        item: GateItem = GateItem.from_parent(self, name=name, kind=kind, line=line, check=check, skip=skip)
        return item

    def signature(self, bullet: Bullet) -> str | None:
        """Compare a bullet with the code."""
        from ws_doctest import _signatures

        gate = _gate(self)
        problem = _signatures.check(bullet, gate.receivers)
        return f"{gate.project.name(self.path)}:{bullet.line}: {problem}" if problem else None

    # Included files

    def included(self, path: Path, line: int) -> Iterator[GateItem]:
        """Yield the checks of an included file."""
        from ws_doctest import _apps
        from ws_doctest._tests import is_test

        gate = _gate(self)
        name = gate.project.name(path)
        elsewhere = gate.reason_not_to_run(path)
        if path.suffix == ".py":
            for check, kind in ((self.lint, "linted"), (self.check_format, "format-checked")):
                yield self.item(
                    f"{name}[{'lint' if kind == 'linted' else 'format'}]",
                    kind,
                    line,
                    partial(check, path.read_text(encoding="utf-8"), path, 0),
                )
            if is_test(path):
                yield self.item(
                    f"{name}[pytest]", "test files", line, lambda: self.run_tests(path), elsewhere
                )
            elif not _apps.has_app(path) or "#>" in path.read_text(encoding="utf-8"):
                yield self.item(f"{name}[run]", "files run", line, lambda: self.run_file(path), elsewhere)
        elif path.suffix == ".ws" and elsewhere is not None:
            yield self.item(f"{name}[replay]", "replays", line, lambda: None, elsewhere)
        elif path.suffix == ".ws":
            for backend in BACKENDS:
                yield self.item(
                    f"{name}[memory-{backend}]",
                    "replays",
                    line,
                    partial(self.replay_in_memory, path, backend),
                    gate.reason_not_on(backend, path),
                )
            for implementation in gate.implementations:
                yield self.item(
                    f"{name}[uvicorn-{implementation}]",
                    "replays",
                    line,
                    partial(self.replay_over_wire, path, implementation),
                )

    def replay_in_memory(self, path: Path, backend: str) -> str | None:
        """Replay a transcript in memory; with --ws-update, rewrite it first."""
        from ws_doctest import _apps, _memory
        from ws_doctest._replay import verdict

        gate = _gate(self)
        root, example = gate.project.root, _apps.example_of(path)
        script = self.transcript(path)
        if gate.update and backend == BACKENDS[0]:
            outcome = _memory.run_replay(
                lambda: _apps.load_app(root, example),
                script,
                root,
                example,
                backend="trio",  # knows exactly when everybody waits; asyncio is asked at intervals
                limit=gate.limit,
                update=True,
            )
            if outcome.problem:
                return f"{outcome.problem}\n({script.name} is left as it was)"
            path.write_text(script.updated(outcome.steps), encoding="utf-8", newline="\n")
            script = self.transcript(path)
        outcome = _memory.run_replay(
            lambda: _apps.load_app(root, example), script, root, example, backend=backend, limit=gate.limit
        )
        return verdict(script, outcome, f"memory-{backend}", gate.project.shown.get(path, ()))

    def replay_over_wire(self, path: Path, implementation: str) -> str | None:
        """Replay a transcript over uvicorn."""
        from ws_doctest import _apps, _wire
        from ws_doctest._replay import verdict

        gate = _gate(self)
        script = self.transcript(path)
        server = gate.server(implementation)
        outcome = _wire.run_replay(server, script, _apps.example_of(path), limit=gate.limit)
        if outcome.broken_off:
            gate.discard(implementation)
        return verdict(script, outcome, f"uvicorn-{implementation}", gate.project.shown.get(path, ()))

    def transcript(self, path: Path) -> Any:
        """Read a transcript."""
        from ws_doctest import _apps, transcript

        gate = _gate(self)
        example = _apps.example_of(path)
        if not example.is_file():
            raise GateFailure(f"{gate.project.name(path)}: a transcript without its app {example.name}")
        try:
            return transcript.parse(path.read_text(encoding="utf-8"), gate.project.name(path))
        except transcript.TranscriptError as exc:
            raise GateFailure(str(exc)) from None

    def run_file(self, path: Path) -> str | None:
        """Run an example that is no app, and check its ``#>`` comments."""
        from ws_doctest import _apps, _style

        root = _gate(self).project.root
        try:
            with _style.prints(_style.example(path.read_text(encoding="utf-8"), path), root) as printed:
                _apps.load(root, path)
        except Exception as exc:
            return f"{_gate(self).project.name(path)} raised an exception:\n" + _apps.describe_error(
                exc, root
            )
        return printed.problem

    def run_tests(self, path: Path) -> str | None:
        """Run a test file with pytest."""
        from ws_doctest import _tests

        gate = _gate(self)
        return _tests.run(path, gate.project.root, update=gate.update)

    # Inline snippets

    def snippet(self, snippet: Snippet) -> Iterator[GateItem]:
        """Yield the checks of an inline snippet."""
        fence = snippet.fence
        for check, kind in ((self.lint, "linted"), (self.check_format, "format-checked")):
            yield self.item(
                f"{'lint' if kind == 'linted' else 'format'}:{fence.line}",
                kind,
                fence.line,
                partial(check, fence.source, snippet.path, fence.line),
            )
        for backend in BACKENDS:
            yield self.item(
                f"snippet:{fence.line} {snippet.key}[{backend}]",
                "snippet runs",
                fence.line,
                partial(self.run_snippet, snippet, backend),
            )

    def run_snippet(self, snippet: Snippet, backend: str) -> str | None:
        """Run a snippet and compare its values."""
        from ws_doctest import _snippets, _style
        from ws_doctest.transcript import TranscriptError

        gate = _gate(self)
        path = gate.project.sidecar(snippet.path)
        if path is None:
            return "there is no folder for the expectations: configure ws_doctest_examples"
        try:
            snippet.compile()
            sidecar = _snippets.Sidecar(path, gate.project.root)
            code = _style.example(snippet.fence.source, snippet.path, snippet.fence.line)
            with _style.prints(code, gate.project.root) as printed:
                problem = _snippets.run_in_memory(
                    snippet,
                    sidecar.connection(snippet.key),
                    gate.project.root,
                    backend=backend,
                    limit=gate.limit,
                )
        except TranscriptError as exc:
            return f"{sidecar.name}: {exc}"
        if problem:
            return f"{snippet.page}:{snippet.fence.line}: {problem}"
        if gate.update and backend == BACKENDS[0]:
            sidecar.update(snippet)
            sidecar = _snippets.Sidecar(path, gate.project.root)
        return "\n".join(filter(None, [sidecar.compare(snippet), printed.problem])) or None

    # Style

    def lint(self, source: str, path: Path, line: int) -> str | None:
        """Lint a snippet or file."""
        from ws_doctest import _style

        gate = _gate(self)
        return _style.lint(_style.example(source, path, line), gate.project.root, gate.line_length)

    def check_format(self, source: str, path: Path, line: int) -> str | None:
        """Check the format of a snippet or file."""
        from ws_doctest import _style

        gate = _gate(self)
        return _style.check_format(_style.example(source, path, line), gate.project.root, gate.line_length)

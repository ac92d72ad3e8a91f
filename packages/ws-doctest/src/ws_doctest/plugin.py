"""The pytest plugin: ``pytest docs`` is the gate.

    [tool.pytest.ini_options]
    ws_doctest_pages = ["docs"]
    ws_doctest_examples = ["docs_src"]
    ws_doctest_receivers = ["websocket=lilya.websockets:WebSocket"]

Without ``ws_doctest_pages`` it does nothing. Everything but pytest is imported when a page is
collected, so that a project's other tests do not pay for it.
"""

from __future__ import annotations

import gc
import importlib.util
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

if TYPE_CHECKING:
    from ws_doctest._apps import Code
    from ws_doctest._commands import Commands
    from ws_doctest._names import Names
    from ws_doctest._pages import Bullet, Fence, Page
    from ws_doctest._preload import Helper
    from ws_doctest._project import Project
    from ws_doctest._replay import Outcome
    from ws_doctest._sessions import Session
    from ws_doctest._snippets import Snippet
    from ws_doctest._style import Source, Style
    from ws_doctest._watch import Reach
    from ws_doctest._wire import Replayer
    from ws_doctest.transcript import Transcript


__all__ = ["SETTINGS", "GateFailure"]

T = TypeVar("T")

SERVERS = ("websockets-sansio", "wsproto", "websockets")
BACKENDS = ("asyncio", "trio")
FEW = 20  # replays in memory, for which another process is not worth its start
SETTINGS = (
    "ws_doctest_pages",
    "ws_doctest_examples",
    "ws_doctest_receivers",
    "ws_doctest_names",
    "ws_doctest_words",
    "ws_doctest_elsewhere",
    "ws_doctest_asyncio",
    "ws_doctest_time_limit",
    "ws_doctest_servers",
    "ws_doctest_backends",
    "ws_doctest_disconnect",
    "ws_doctest_unread",
    "ws_doctest_line_length",
)
DISCONNECTS = ("framework", "normal", "error")


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
    group.addoption(
        "--ws-pages", action="store_true", help="check the pages of ws_doctest_pages, and run nothing else"
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
        "ws_doctest_names",
        "modules whose public names the pages document: names in code spans are looked up there",
        type="args",
        default=[],
    )
    parser.addini(
        "ws_doctest_words", "names in code spans that only look like one of those", type="args", default=[]
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
        "ws_doctest_backends",
        "event loops for what runs in memory: asyncio, trio or both; the first one records",
        type="args",
        default=list(BACKENDS),
    )
    parser.addini(
        "ws_doctest_disconnect",
        "whether a handler may end by the exception of its client's disconnect: normal, error, or framework "
        "(normal where that is the framework's own way)",
        default="framework",
    )
    parser.addini(
        "ws_doctest_unread",
        "FILE: REASON for each page in a form that is not read",
        type="linelist",
        default=[],
    )
    parser.addini(
        "ws_doctest_line_length", "line length of examples; default: ruff's configuration", default=""
    )


def pytest_configure(config: pytest.Config) -> None:
    """Set the gate up, if there is something to guard."""
    pages = config.getini("ws_doctest_pages")
    if config.getoption("ws_pages"):
        if not pages:
            raise pytest.UsageError("--ws-pages: ws_doctest_pages names no pages")
        config.args[:] = [str(config.rootpath / page) for page in pages]
    if pages:
        gate = Gate(config)
        config.stash[_GATE] = gate
        # What is added first is done last: pytest has looked through everything by then.
        config.add_cleanup(gc.unfreeze)
        config.pluginmanager.register(gate, "ws-doctest-gate")


def _passing() -> Callable[[list[Path], Path], set[Path]]:
    from ws_doctest import _tests

    return _tests.passing


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
        for line in config.getini("ws_doctest_unread"):
            file, _, reason = (part.strip() for part in line.partition(":"))
            if not reason or not (root / file).is_file():
                raise pytest.UsageError(f"ws_doctest_unread: expected FILE: REASON, came {line!r}")
            self.project.unread[(root / file).resolve()] = reason
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
        self.backends: list[str] = config.getini("ws_doctest_backends")
        if not self.backends or not set(self.backends) <= set(BACKENDS):
            raise pytest.UsageError(
                f"ws_doctest_backends: expected {' or '.join(BACKENDS)}, or both; came {self.backends}"
            )
        self.disconnect: str = config.getini("ws_doctest_disconnect")
        if self.disconnect not in DISCONNECTS:
            raise pytest.UsageError(
                f"ws_doctest_disconnect: expected {', '.join(DISCONNECTS)}; came {self.disconnect!r}"
            )
        self.modules: list[str] = config.getini("ws_doctest_names")
        self.implementations: list[str] = config.getini("ws_doctest_servers")
        self.replayers: dict[str, Replayer | str] = {}
        self.memory: Helper | None = None  # a process that replays in memory
        self.begun: dict[pytest.Item, Future[str | None]] = {}  # before their turn
        self.passed: Future[set[Path]] | None = None  # the test files that passed in one run
        self.parsed: Future[set[str]] | None = None  # the JavaScript that one process of Node has read
        self.alone = False  # whether the run has no other tests
        self.counts: dict[str, int] = {}
        self.skipped: list[str] = []
        self.unreached: list[str] = []
        self.traced: set[Session] = set()
        self.values: dict[tuple[Path, int | None], dict[str, list[Any]]] = {}
        self.in_others: set[Session] = set()  # replayed in other processes, too

    @cached_property
    def names(self) -> Names:
        """The public names of what the pages document."""
        from ws_doctest import _names, _signatures

        receivers = {}
        for name, target in self.receivers.items():
            with suppress(_signatures.ReceiverError):  # the bullets say so
                receivers[name] = _signatures.load_receiver(target)
        return _names.Names(self.modules, receivers, set(self.config.getini("ws_doctest_words")))

    @cached_property
    def commands(self) -> Commands:
        """What the commands on pages may be."""
        from ws_doctest._commands import Commands

        folders = [path.name for path in self.project.examples]
        return Commands(self.project.root, folders, self.config._parser)

    @cached_property
    def style(self) -> Style:
        """What ruff says of all that is shown."""
        from ws_doctest._style import Style

        return Style(self.project.root, self.line_length)

    @cached_property
    def reach(self) -> Reach:
        """What of the code that is shown has been run."""
        from ws_doctest._watch import Reach

        return Reach({*self.project.page_files, *self.project.shown})

    def replay(self, session: Session, script: Transcript, backend: str, *, update: bool = False) -> Outcome:
        """Replay a transcript in memory, and note what it reaches."""
        from ws_doctest import _apps, _memory

        root = self.project.root
        traces = backend == self.backends[0] and not update
        outcome = _memory.run_replay(
            lambda: _apps.load_app(root, session.example),
            script,
            root,
            session.app,
            backend=backend,
            limit=self.limit,
            update=update,
            reach=self.reach if traces else None,
            disconnect=self.disconnect,
        )
        if traces:
            self.traced.add(session)
        self.note_values(session, outcome)
        return outcome

    def replay_elsewhere(self, session: Session, backend: str) -> str | None:
        """Replay a transcript in memory, in another process, and note what it reaches; return the failure."""
        from ws_doctest import _preload
        from ws_doctest._replay import verdict

        if self.memory is None:
            files = {*self.project.page_files, *self.project.shown}
            self.memory = _preload.Helper(_preload.replay_in_memory, self.project.root, files)
        script, traces = session.read(), backend == self.backends[0]
        try:
            outcome, lines, called = self.memory.ask(
                script, session.example, backend, self.limit, self.disconnect, traces
            )
        except (EOFError, OSError) as exc:
            return f"the process that replays in memory has ended: {exc!r}"
        if outcome.broken_off:
            self.memory.stop()
            self.memory = None
        if traces:
            self.reach.add(lines, called)
            self.traced.add(session)
        self.note_values(session, outcome)
        return verdict(script, outcome, f"memory-{backend}", session.shown_at)

    def note_values(self, session: Session, outcome: Outcome) -> None:
        """Keep what names stood for, to see whether they are others each time."""
        values = self.values.setdefault((session.path, session.fence), {})
        for name, value in outcome.values.items():
            values.setdefault(name, []).append(value)

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

    def replayer(self, implementation: str) -> Replayer:
        """Return the process that replays over this implementation; it is started once per run."""
        try:
            from ws_doctest._wire import Replayer
        except ModuleNotFoundError as exc:
            raise GateFailure(
                f"replays over uvicorn need {exc.name}: install ws-doctest[wire], or set "
                "ws_doctest_servers = []"
            ) from None

        found = self.replayers.get(implementation)
        if found is None:
            found = self.replayers[implementation] = Replayer(implementation, self.project.root)
        if isinstance(found, str):
            raise GateFailure(found)
        return found

    def lacks(self, module: str) -> str | None:
        """Say that a module is not installed without which something cannot be checked."""
        if module == "asyncio" or importlib.util.find_spec(module) is not None:
            return None
        return f"{module} is not installed: it comes with ws-doctest[{module}]"

    def reason_not_to_run(self, path: Path) -> str | None:
        """Return where else an example is run and why, or ``None`` if it is run here."""
        return _reason(self.elsewhere, path)

    def reason_not_on(self, backend: str, path: Path) -> str | None:
        """Return why an example is not replayed on this event loop, or ``None`` if it is."""
        return None if backend == "asyncio" else _reason(self.asyncio_only, path)

    def discard(self, implementation: str, reason: str | None = None) -> None:
        """Stop a process whose server hangs; the next replay gets a new one, unless it could not start."""
        found = self.replayers.pop(implementation, None)
        if reason is not None:
            self.replayers[implementation] = reason  # what does not start once is not waited for again
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
        if file_path.suffix in (".md", ".markdown", ".mdx") and any(
            file_path.resolve().is_relative_to(pages) for pages in self.project.pages
        ):
            collector: pytest.Collector = DocPage.from_parent(parent, path=file_path)
            return collector
        return None

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection(self) -> None:
        """Have other processes import what the examples import, while this one reads the pages."""
        options, start = self.config.option, self.config.invocation_params.dir
        named = {(start / arg).resolve() for arg in self.config.args}
        # With pytest-xdist, the workers collect.
        if self.update or options.collectonly or self.config.pluginmanager.has_plugin("dsession"):
            return
        if not options.keyword and any(pages in named for pages in self.project.pages if pages.is_dir()):
            files = [path for folder in self.project.examples for path in sorted(folder.rglob("*.py"))]
            self.preload([path for path in files if self.reason_not_to_run(path) is None])

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Begin what other processes run: this one has other things to do meanwhile."""
        # A worker of pytest-xdist has collected what others run; an update writes one file at a time.
        if self.update or self.config.getoption("collectonly") or hasattr(self.config, "workerinput"):
            return
        ours = [item for item in session.items if isinstance(item, GateItem)]
        self.alone = len(ours) == len(session.items)
        hypothesis = self.config.pluginmanager.get_plugin("hypothesispytest")
        if hypothesis is not None and self.alone:
            # At the end of a run it imports Hypothesis, for a second, whether a test has used it or not.
            self.config.pluginmanager.unregister(hypothesis)
        scripts = dict.fromkeys(item.script for item in ours if item.script is not None)
        if len(scripts) > 1:
            from ws_doctest import _commands

            self.parsed = self.start(_commands.scripts_that_parse, scripts)
        elsewhere: dict[str, list[GateItem]] = {}  # by what runs them, one after the other
        for item in ours:
            if item.runs_in and not (item.runs_in == _MEMORY and self.watched):
                elsewhere.setdefault(item.runs_in, []).append(item)
        if len(elsewhere.get(_MEMORY, ())) < FEW:  # done before the process has started
            elsewhere.pop(_MEMORY, None)
        if sum(map(len, elsewhere.values())) < 2:  # nothing would be done meanwhile
            return
        wire = not elsewhere.keys() <= {_PROCESS, _MEMORY}
        examples = [item.example for items in elsewhere.values() for item in items]
        self.preload([example for example in examples if example is not None], wire=wire)
        files = [item.file for item in elsewhere.get(_PROCESS, ()) if item.file is not None]
        for runs_in, items in elsewhere.items():
            pool = ThreadPoolExecutor(1, thread_name_prefix="ws-doctest")
            if runs_in == _PROCESS and len(files) > 1:
                self.passed = pool.submit(_passing(), files, self.project.root)
            for item in items:
                self.begun[item] = pool.submit(item.outcome_elsewhere)
            pool.shutdown(wait=False)

    @property
    def watched(self) -> bool:
        """Whether somebody watches the examples in this process: a person, or `coverage`."""
        option, coverage = self.config.option, sys.modules.get("coverage")
        return (
            option.capture == "no"
            or option.usepdb
            or option.trace
            or (coverage is not None and coverage.Coverage.current() is not None)
        )

    def preload(self, examples: Iterable[Path | Code], *, wire: bool = True) -> None:
        """Have what the examples import be imported, once for all processes; the first call counts.

        Args:
            examples: those that other processes run.
            wire: whether some are replayed over a server.
        """
        from ws_doctest import _apps, _preload

        both_ends = ["ws_doctest._server", "ws_doctest._wire"] if wire and self.implementations else []
        imports = _apps.imports_of(dict.fromkeys(examples), self.project.root)
        _preload.preload(["ws_doctest._memory", *both_ends, *imports])

    def start(self, function: Callable[..., T], *arguments: Any) -> Future[T]:
        """Begin something in a thread of its own; return what is to come."""
        pool = ThreadPoolExecutor(1, thread_name_prefix="ws-doctest")
        try:
            return pool.submit(function, *arguments)
        finally:
            pool.shutdown(wait=False)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep account."""
        kind = dict(report.user_properties).get("ws_doctest")
        if isinstance(kind, str) and report.when == "call":
            if report.skipped and isinstance(report.longrepr, tuple):
                reason = report.longrepr[2].removeprefix("Skipped: ")
                self.skipped.append(f"{report.location[0]}:{(report.location[1] or 0) + 1}: {reason}")
            else:
                self.counts[kind] = self.counts.get(kind, 0) + 1

    def pytest_sessionfinish(self) -> None:
        """Leave little to do at the end, when pytest looks several times for what is not used any more."""
        if self.alone:
            gc.freeze()

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say what was checked, and what was not and why."""
        if not self.counts and not self.skipped:
            return
        counted = ", ".join(f"{number} {kind}" for kind, number in sorted(self.counts.items()))
        terminalreporter.write_sep("-", "ws-doctest")
        terminalreporter.write_line(f"checked: {counted or 'nothing'}; skipped: {len(self.skipped)}")
        for line in self.skipped:
            terminalreporter.write_line(f"skipped {line}")
        for line in dict.fromkeys(self.unreached):
            terminalreporter.write_line(f"not reached {line}")

    def pytest_unconfigure(self) -> None:
        """Leave no process behind, also when the run was interrupted."""
        for run in self.begun.values():
            run.cancel()
        for implementation in list(self.replayers):
            self.discard(implementation)
        if self.memory is not None:
            self.memory.stop()


_GATE = pytest.StashKey[Gate]()
_PROCESS = "a process"  # of its own
_MEMORY = "memory"  # a process that replays in memory


class GateItem(pytest.Item):
    """One check. ``check`` returns the failure as text, or ``None``."""

    def __init__(
        self, *, kind: str, line: int, check: Callable[[], str | None], skip: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.check = check
        self.runs_in = ""  # another process, and so it can begin before its turn
        self.early: Callable[[], str | None] | None = None  # the same check in another process
        self.file: Path | None = None  # of a test file
        self.script: str | None = None  # JavaScript
        self.example: Path | Code | None = None  # that another process runs
        self.line = line
        self.skip = skip
        self.user_properties.append(("ws_doctest", kind))

    def runtest(self) -> None:
        """Run the check."""
        if self.skip is not None:
            raise pytest.skip.Exception(self.skip, _use_item_location=True)
        begun = _gate(self).begun.pop(self, None)
        failure = begun.result() if begun else self.outcome()
        if failure and begun and self.early:
            # In this process it shows what the app prints. If it only fails at times, that is a failure, too.
            failure = self.outcome() or failure
        if failure:
            raise GateFailure(failure)

    def outcome(self) -> str | None:
        """Check; return the failure."""
        return self._failure(self.check)

    def outcome_elsewhere(self) -> str | None:
        """Check in another process; return the failure."""
        return self._failure(self.early or self.check)

    def _failure(self, check: Callable[[], str | None]) -> str | None:
        from ws_doctest._pages import PageError

        try:
            return check()
        except PageError as exc:
            return str(exc)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """Show the message alone; a traceback only of the gate's own faults."""
        if isinstance(excinfo.value, GateFailure):
            return str(excinfo.value)
        return super().repr_failure(excinfo)

    def reportinfo(self) -> tuple[Path, int, str]:
        """Say where on the page this is."""
        # Not the bare name: pytest would show the dots in it as `::`.
        return self.path, self.line - 1, f"{self.parent.name if self.parent else ''}: {self.name}"


def _gate(node: pytest.Item | pytest.Collector) -> Gate:
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
        from ws_doctest import _consoles, _snippets

        gate = _gate(self)
        path = self.path.resolve()
        page = gate.project.page(path)
        if path == gate.project.pages[0]:  # a single page, of which there is no folder
            yield _whole(self)
        yield self.item("page", "page", 1, lambda: "\n".join(gate.project.page_problems(path)) or None)
        for fence in page.fences:
            if fence.skip is not None:
                yield self.item(f"fence:{fence.line}", "skipped", fence.line, lambda: None, fence.skip)
        yield from self.commands(page)
        if gate.modules:
            yield self.item("names", "pages with names", 1, partial(self.check_names, page))
        for bullet in page.bullets:
            if not bullet.receiver and bullet.skip is None and bullet.method not in gate.names.objects:
                continue
            name = f"signature:{bullet.line} {f'{bullet.receiver}.{bullet.method}'.lstrip('.')}"
            yield self.item(name, "signatures", bullet.line, partial(self.signature, bullet), bullet.skip)
        seen: set[Path] = set()
        for include in page.includes:
            if include.path not in seen:
                seen.add(include.path)
                yield from self.included(include.path, include.line)
        yield from self.sessions(page, path)
        snippets = _snippets.snippets_of(page, path)
        for snippet in snippets:
            yield from self.snippet(snippet)
        for fence in _snippets.consoles_of(page):
            yield self.item(
                f"prompt:{fence.line}",
                "Python prompts",
                fence.line,
                partial(_snippets.run_console, fence, path, page.name),
            )
        for fence in _consoles.consoles_of(page):
            console = self.item(
                f"console:{fence.line}",
                "consoles",
                fence.line,
                partial(_consoles.run, fence, page, gate.project.root),
            )
            console.runs_in = _PROCESS
            yield console
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

    def commands(self, page: Page) -> Iterator[GateItem]:
        """Yield the checks of commands and data."""
        from ws_doctest import _commands

        if any(_commands.commands_of(page)) or any(_commands.requirement_spans(page)):
            yield self.item("commands", "pages with commands", 1, partial(self.check_commands, page))
        for fence in page.fences:
            if fence.skip is None and fence.language in _commands.DATA:
                data = self.item(
                    f"data:{fence.line}", "data", fence.line, partial(self.check_data, fence, page.name)
                )
                data.script = fence.expanded() if fence.language in _commands.SCRIPTS else None
                yield data

    def check_names(self, page: Page) -> str | None:
        """Tell which names in the text of a page are none."""
        from ws_doctest._names import calls_in, defined_in

        gate = _gate(self)
        own = defined_in(page, gate.modules)
        problems = [
            f"{page.name}:{number}: {problem}"
            for number, code in [*page.spans, *calls_in(page)]
            if code.partition("(")[0] not in own and (problem := self.problem_of_span(gate, code)) is not None
        ]
        return "\n".join(problems) or None

    def problem_of_span(self, gate: Gate, code: str) -> str | None:
        """Tell what is wrong with a name, or an option, in a code span."""
        if not re.match(r"--[a-z]", code):
            return gate.names.problem(code)
        option = code.partition(" ")[0].partition("=")[0]
        return None if option in gate.names.words else gate.commands.option_problem(code)

    def check_commands(self, page: Page) -> str | None:
        """Tell which commands of a page cannot be run."""
        from ws_doctest import _commands

        known = _gate(self).commands
        problems = []
        for number, command in _commands.commands_of(page):
            problem = known.problem(command)
            if problem:
                problems.append(f"{page.name}:{number}: {problem}")
        for number, requirement in _commands.requirement_spans(page):
            problem = known.requirement(requirement)
            if problem:
                problems.append(f"{page.name}:{number}: `{requirement}`: {problem}")
        return "\n".join(problems) or None

    def check_data(self, fence: Fence, name: str) -> str | None:
        """Tell what is wrong with a fence of data."""
        from ws_doctest import _commands

        parsed = _gate(self).parsed
        if parsed is not None and fence.language in _commands.SCRIPTS and fence.expanded() in parsed.result():
            return None
        problems = [] if (found := _commands.data_problem(fence)) is None else [found]
        if fence.language == "toml":
            problems += _commands.unknown_settings(fence, set(SETTINGS))
        return "\n".join(f"{name}:{number}: {problem}" for number, problem in problems) or None

    def sessions(self, page: Page, path: Path) -> Iterator[GateItem]:
        """Yield the checks of the transcripts in the page itself, and of what all transcripts reach."""
        from ws_doctest import _apps, _sessions
        from ws_doctest._pages import PYTHON

        gate = _gate(self)
        inline = _sessions.in_page(gate.project, path)
        everywhere: dict[object, list[Session]] = {}
        for session in inline:
            line = page.fences[session.fence or 0].line
            yield from self.replays(session, line)
            everywhere.setdefault(session.example, []).append(session)
        files = {include.path: include.line for include in page.includes if include.path.suffix == ".ws"}
        for file, line in files.items():
            if gate.reason_not_to_run(file) is None:
                session = _sessions.in_file(gate.project, file)
                everywhere.setdefault(session.example, []).append(session)
                if "$" in file.read_text(encoding="utf-8"):
                    yield self.item(f"{session.name}[names]", "names", line, partial(self.values, session))
        for session in inline:
            fence = page.fences[session.fence or 0]
            if "$" in fence.source:
                yield self.item(f"{session.name}[names]", "names", fence.line, partial(self.values, session))
        for fence in page.fences:
            if fence.language not in PYTHON or fence.skip is not None:
                continue
            included = fence.includes[0].path if fence.includes else None
            if included is not None and gate.reason_not_to_run(included) is None:
                if included.is_file() and _apps.has_app(included):
                    source = included.read_text(encoding="utf-8")
                    check = partial(self.reached, source, included, fence, 0, everywhere.get(included, []))
                    yield self.item(f"{gate.project.name(included)}[reached]", "reached", fence.line, check)
            elif included is None and _apps.defines_app(fence.source):
                code = _apps.Code(path, fence.source, fence.line)
                check = partial(self.reached, code.source, path, fence, fence.line, everywhere.get(code, []))
                yield from self.fence_style(fence, path)
                yield self.item(f"app:{fence.line}[reached]", "reached", fence.line, check)

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
        problem = _signatures.check(bullet, gate.receivers, gate.names.objects)
        return f"{gate.project.name(self.path)}:{bullet.line}: {problem}" if problem else None

    # Style

    def style(self, source: Source, lint: str, check_format: str, line: int) -> Iterator[GateItem]:
        """Yield the checks of the style of code."""
        gate = _gate(self)
        gate.style.add(source)
        lacks = gate.lacks("ruff")
        yield self.item(lint, "linted", line, partial(gate.style.lint, source), lacks)
        yield self.item(check_format, "format-checked", line, partial(gate.style.check_format, source), lacks)

    def fence_style(self, fence: Fence, path: Path) -> Iterator[GateItem]:
        """Yield the checks of the style of code in the page itself."""
        from ws_doctest._style import Source

        source = Source(fence.source, path, fence.line, inline=True)
        yield from self.style(source, f"lint:{fence.line}", f"format:{fence.line}", fence.line)

    # Included files

    def included(self, path: Path, line: int) -> Iterator[GateItem]:
        """Yield the checks of an included file."""
        from ws_doctest import _apps
        from ws_doctest._tests import is_test

        gate = _gate(self)
        name = gate.project.name(path)
        elsewhere = gate.reason_not_to_run(path)
        if path.suffix == ".py":
            from ws_doctest._style import Source

            style = Source(path.read_text(encoding="utf-8"), path)
            yield from self.style(style, f"{name}[lint]", f"{name}[format]", line)
            if is_test(path):
                tests = self.item(
                    f"{name}[pytest]", "test files", line, lambda: self.run_tests(path), elsewhere
                )
                tests.runs_in = "" if elsewhere else _PROCESS
                tests.file = tests.example = None if elsewhere else path
                yield tests
            elif not _apps.has_app(path) or "#>" in path.read_text(encoding="utf-8"):
                yield self.item(f"{name}[run]", "files run", line, lambda: self.run_file(path), elsewhere)
        elif path.suffix == ".ws" and elsewhere is not None:
            yield self.item(f"{name}[replay]", "replays", line, lambda: None, elsewhere)
        elif path.suffix == ".ws":
            from ws_doctest import _sessions

            yield from self.replays(_sessions.in_file(gate.project, path), line)

    # Transcripts

    def replays(self, session: Session, line: int) -> Iterator[GateItem]:
        """Yield the replays of a transcript."""
        gate = _gate(self)
        for backend in gate.backends:
            item = self.item(
                f"{session.name}[memory-{backend}]",
                "replays",
                line,
                partial(self.replay_in_memory, session, backend),
                gate.lacks(backend) or gate.reason_not_on(backend, session.app),
            )
            if item.skip is None:
                item.runs_in = _MEMORY
                item.early = partial(gate.replay_elsewhere, session, backend)
                item.example = session.example
            yield item
        for implementation in gate.implementations:
            item = self.item(
                f"{session.name}[uvicorn-{implementation}]",
                "replays",
                line,
                partial(self.replay_over_wire, session, implementation),
            )
            item.runs_in = implementation
            item.example = session.example
            yield item

    def replay_in_memory(self, session: Session, backend: str) -> str | None:
        """Replay a transcript in memory; with --ws-update, rewrite it first."""
        from ws_doctest._replay import verdict

        gate = _gate(self)
        script = session.read()
        if gate.update and backend == gate.backends[0]:
            outcome = gate.replay(session, script, backend, update=True)
            if outcome.problem:
                return f"{outcome.problem}\n({script.name} is left as it was)"
            session.write(script.updated(outcome.steps))
            script = session.read()
        outcome = gate.replay(session, script, backend)
        return self.hint(verdict(script, outcome, f"memory-{backend}", session.shown_at))

    def replay_over_wire(self, session: Session, implementation: str) -> str | None:
        """Replay a transcript over uvicorn."""
        from ws_doctest._replay import verdict

        gate = _gate(self)
        script = session.read()
        replayer = gate.replayer(implementation)
        from ws_doctest._wire import ServerError  # it is there: the replayer says so

        try:
            outcome = replayer.replay(script, session.example, limit=gate.limit, disconnect=gate.disconnect)
        except ServerError as exc:
            gate.discard(implementation, str(exc))
            return str(exc)
        gate.note_values(session, outcome)
        gate.in_others.add(session)
        if outcome.broken_off:
            gate.discard(implementation)
        return self.hint(verdict(script, outcome, f"uvicorn-{implementation}", session.shown_at))

    def hint(self, failure: str | None) -> str | None:
        """Add to a failure what can be done about it."""
        if failure is None or _gate(self).update:
            return failure
        command = f"pytest {self.nodeid} --ws-update"
        return f"{failure}\n(if what was seen is right: {command}, and read what it writes)"

    def reached(self, code: str, path: Path, fence: Fence, above: int, sessions: list[Session]) -> str | None:
        """Tell which lines of an app no transcript reaches."""
        gate = _gate(self)
        reach = gate.reach
        for session in sessions:
            if session not in gate.traced:  # this run has left the replay out, or another process had it
                gate.replay(session, session.read(), gate.backends[0])
        missing = reach.unreached(code, path, above)
        return self.unreached(missing, fence, code, path, above, "no transcript reaches")

    def unreached(
        self, missing: list[int], fence: Fence, code: str, path: Path, above: int, what: str
    ) -> str | None:
        """Compare the lines that nothing runs with what the page says of them."""
        gate = _gate(self)
        expected, reason = fence.unreached
        place = f"{gate.project.name(self.path)}:{fence.line}"
        if len(missing) == expected:
            if missing:
                gate.unreached.append(f"{place}: {reason}")
            return None
        lines = code.split("\n")
        shown = "\n".join(f"{gate.project.name(path)}:{line}: {lines[line - above - 1]}" for line in missing)
        return (
            f"{place}: {what} {len(missing)} lines of this code; the page says {expected}. "
            f"Show a session that does, or write above it "
            f"`<!-- ws-doctest: unreached {len(missing)}: REASON -->`\n{shown}"
        ).rstrip()

    def values(self, session: Session) -> str | None:
        """Tell which names stand for what is the same each time."""
        gate = _gate(self)
        script = session.read()
        if session not in gate.in_others:  # what differs from process to process is the same in this one
            return None
        constant = {
            name: values[0]
            for name, values in gate.values.get((session.path, session.fence), {}).items()
            if len(values) > 1 and all(value == values[0] for value in values)
        }
        for step in script.steps:
            for name, value in constant.items():
                if not step.client and any(name in line for line in step.format()):
                    return f"{script.name}:{step.line}: {name} is {value!r} each time: write that"
        return None

    def run_file(self, path: Path) -> str | None:
        """Run an example that is no app, and check its ``#>`` comments."""
        from ws_doctest import _apps, _style

        root = _gate(self).project.root
        try:
            with _style.prints(_style.Source(path.read_text(encoding="utf-8"), path), root) as printed:
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
        if gate.passed is not None and path in gate.passed.result():
            return None
        return _tests.run(path, gate.project.root, update=gate.update)

    # Inline snippets

    def snippet(self, snippet: Snippet) -> Iterator[GateItem]:
        """Yield the checks of an inline snippet."""
        fence = snippet.fence
        yield from self.fence_style(fence, snippet.path)
        for backend in _gate(self).backends:
            yield self.item(
                f"snippet:{fence.line} {snippet.key}[{backend}]",
                "snippet runs",
                fence.line,
                partial(self.run_snippet, snippet, backend),
                _gate(self).lacks(backend),
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
            code = _style.Source(snippet.fence.source, snippet.path, snippet.fence.line, inline=True)
            with _style.prints(code, gate.project.root) as printed:
                problem = _snippets.run_in_memory(
                    snippet,
                    sidecar.connection(snippet.key),
                    gate.project.root,
                    backend=backend,
                    limit=gate.limit,
                    reach=gate.reach if backend == gate.backends[0] else None,
                )
        except TranscriptError as exc:
            return f"{sidecar.name}: {exc}"
        if problem:
            return f"{snippet.page}:{snippet.fence.line}: {problem}"
        if gate.update and backend == gate.backends[0]:
            sidecar.update(snippet)
            sidecar = _snippets.Sidecar(path, gate.project.root)
        unreached = None
        if backend == gate.backends[0]:
            fence = snippet.fence
            missing = gate.reach.unreached(fence.source, snippet.path, fence.line)
            unreached = self.unreached(
                missing, fence, fence.source, snippet.path, fence.line, "nothing calls"
            )
        return "\n".join(filter(None, [sidecar.compare(snippet), printed.problem, unreached])) or None

"""What runs in the reader's browser: the replay of an example, and then the reader's own lines.

It is the Python side of ``buttons/worker.js``, on Pyodide in a web worker, where there are no sockets, no
threads and no processes. A replay is the gate's own, `_memory.play`, on an event loop that skips the time for
which an app waits, as the gate's does. The reader's own lines are done on the browser's loop, in real time.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import logging
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from importlib.util import cache_from_source
from logging.handlers import QueueHandler, QueueListener
from pathlib import Path
from typing import Any

import anyio

from ws_doctest import _apps, transcript
from ws_doctest._asgi import Lifespan
from ws_doctest._memory import MemorySession, MemoryStage, play
from ws_doctest._replay import Cookies, Outcome, shown_denial, verdict
from ws_doctest.transcript import (
    Accept,
    Bytes,
    Close,
    Connect,
    Deny,
    Event,
    Request,
    Step,
    Text,
    Transcript,
    TranscriptError,
)

LIMIT = 5.0  # seconds, as in the gate
LONGEST = 20_000  # characters of what is said about a problem
REST = 1.0  # seconds that an app has for its answer before the reader's next line is done
Tell = Callable[[str, str], None]  # takes a kind, and JSON

_MARKED = re.compile(r"\s*(?:[A-Za-z][\w-]*[ \t]+)?[<>](?:[ \t]|$)|\s*#|\s*$")


class Loop(asyncio.BaseEventLoop):
    """An event loop for coroutines and timers. It skips the time for which it would wait."""

    def __init__(self) -> None:
        super().__init__()
        self.skipped = 0.0
        self._selector = self  # the base class asks it what has happened

    def time(self) -> float:
        """Return the loop's time, with what was skipped."""
        return time.monotonic() + self.skipped

    def select(self, timeout: float | None = None) -> list[Any]:
        """Skip the time until the next timer: nothing else can happen."""
        if timeout is None:
            raise RuntimeError("every task waits for something that nothing here can bring about")
        self.skipped += timeout
        return []

    def close(self) -> None:
        """Close it, once: it is its own selector."""
        if not self.is_closed():
            super().close()

    def _process_events(self, events: list[Any]) -> None:
        pass

    def _write_to_self(self) -> None:
        """Wake the loop from another thread, of which there is none."""


class Example:
    """An example that the reader has opened.

    Args:
        root: the folder of the project.
        file: the example, relative to it.
        tell: is called with the kind and the JSON of what is to be shown.
        disconnect: whether the exception of a disconnect is a normal end; see `may_end_by_disconnect`.
    """

    def __init__(self, root: str, file: str, tell: Tell, disconnect: str = "framework") -> None:
        self.root = Path(root)
        self.path = self.root / file
        self.disconnect = disconnect
        self._tell = tell
        self.talk: Talk | None = None
        _forget_namespaces()

    def tell(self, kind: str, **values: Any) -> None:
        """Have something shown."""
        self._tell(kind, json.dumps({"type": kind, **values}))

    def scripts(self) -> list[Transcript]:
        """Return its transcripts."""
        return [
            transcript.parse(file.read_text(encoding="utf-8"), file.name)
            for file in _apps.transcripts_of(self.path)
        ]

    def opened(self) -> str:
        """Return its code, and what the clients of its first transcript say, as JSON."""
        said = [str(step) for step in self.scripts()[0].steps if step.client]
        return json.dumps({"source": self.path.read_text(encoding="utf-8"), "said": said})

    def run(self, source: str) -> str:
        """Replay every transcript with this code in the place of the example's own; return JSON."""
        self.change(source)
        lines = 0
        problems = []
        for script in self.scripts():
            self.tell("script", name=script.name)
            outcome = Outcome(steps=_Steps(script, self.tell))
            with _without_a_loop():
                problem = _shortened(self.replay(script, outcome))
            self.tell("verdict", problem=problem or "")
            lines += len(outcome.steps)
            problems += [problem] if problem else []
        return json.dumps({"problems": problems, "lines": lines})

    def replay(self, script: Transcript, outcome: Outcome) -> str | None:
        """Replay a transcript; return what is wrong, or ``None``."""

        async def main() -> None:
            await play(
                lambda: _apps.load_app(self.root, self.path),
                script,
                self.root,
                self.path,
                limit=LIMIT,
                outcome=outcome,
                disconnect=self.disconnect,
            )

        anyio.run(main, backend="asyncio", backend_options={"loop_factory": Loop})
        return verdict(script, outcome, "in your browser")

    def change(self, source: str) -> bool:
        """Put other code in the place of the example's; return whether it is another."""
        if source == self.path.read_text(encoding="utf-8"):
            return False
        self.path.write_text(source, encoding="utf-8", newline="\n")
        # Bytecode counts as current if the file has the same size and was changed in the same second.
        Path(cache_from_source(str(self.path))).unlink(missing_ok=True)
        return True

    async def say(self, source: str, lines: str) -> str:
        """Do what the reader's lines say, with this code; return JSON."""
        try:
            if self.change(source):
                await self.end()
            if self.talk is None:
                self.talk = Talk(self)
                await self.talk.start()
            await self.talk.say(lines)
        except TranscriptError as error:
            return json.dumps({"problem": error.problem})
        except _Refused as refused:
            return json.dumps({"problem": _shortened(str(refused))})
        return json.dumps({"problem": ""})

    async def end(self) -> None:
        """End what the reader has begun."""
        talk, self.talk = self.talk, None
        if talk is not None:
            await talk.end()


def _shortened(problem: str | None) -> str | None:
    """Leave out the middle of what is too long for a page."""
    if problem is None or len(problem) <= LONGEST:
        return problem
    return f"{problem[: LONGEST // 2]}\n…\n{problem[-LONGEST // 2 :]}"


def _forget_namespaces() -> None:
    """Forget packages that were without an ``__init__.py``, and have one since more was unpacked."""
    for name, module in list(sys.modules.items()):
        if getattr(module, "__file__", None) is None:
            places = [Path(place) / "__init__.py" for place in getattr(module, "__path__", ())]
            if any(place.is_file() for place in places):
                del sys.modules[name]
    importlib.invalidate_caches()


def log_without_threads() -> None:
    """Have logs that hand their records to a thread write them at once: no thread can be started here."""

    def enqueue(handler: QueueHandler, record: logging.LogRecord) -> None:
        listener = getattr(handler, "listener", None)
        if listener is not None:
            listener.handle(record)

    setattr(QueueHandler, "enqueue", enqueue)  # noqa: B010 - which is another function to mypy
    for name in ("start", "stop"):
        setattr(QueueListener, name, lambda listener: None)


class _Steps(list[Step]):
    """What was seen in a replay. Each step is told as soon as it is seen."""

    def __init__(self, script: Transcript, tell: Callable[..., None]) -> None:
        super().__init__()
        self.script = script
        self.tell = tell

    def append(self, step: Step) -> None:
        """Note a step, and tell it with whether it is what the transcript says at this place."""
        wanted = self.script.steps[len(self)] if len(self) < len(self.script.steps) else None
        super().append(step)
        same = step == wanted
        lines = wanted.source if same and wanted is not None else step.format()
        self.tell("step", lines=list(lines), client=step.client, same=same)


@contextmanager
def _without_a_loop() -> Iterator[None]:
    """Let an event loop run inside of the browser's, which is always running."""
    running = asyncio._get_running_loop()
    asyncio._set_running_loop(None)
    try:
        yield
    finally:
        asyncio._set_running_loop(running)


class _Refused(Exception):
    """The reader's lines cannot be done; the message says why."""


class Talk:
    """An app that runs, and the connections that the reader has made.

    Args:
        example: the example.
    """

    def __init__(self, example: Example) -> None:
        self.example = example
        self.promised = [step.event for script in example.scripts() for step in script.steps]
        self.history = ""  # what was said and seen, of which the next lines are a continuation
        self.known: dict[str, Any] = {}  # values that have a name in the transcripts
        self.cookies = Cookies()
        self.clients: dict[str, MemorySession] = {}
        self.managers: list[AbstractAsyncContextManager[MemorySession]] = []
        self.tasks: set[asyncio.Task[None]] = set()
        self.leaving = asyncio.Event()
        self.stage: MemoryStage
        self.started: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.lifespan: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Load the app and start it up."""
        self.lifespan = asyncio.create_task(self._live())
        await self.started

    async def _live(self) -> None:
        """Be there from startup to shutdown."""
        example = self.example
        try:
            app = _apps.load_app(example.root, example.path)
        except Exception as exc:
            self.started.set_exception(_Refused(_apps.describe_error(exc, example.root)))
            return
        lifespan = Lifespan(app, LIMIT)
        try:
            started = await lifespan.start()
        except Exception as exc:
            self.started.set_exception(_Refused(_apps.describe_lifespan_error(exc, example.root)))
            return
        self.stage = MemoryStage(app, lifespan.state, example.root, example.path, example.disconnect)
        self.started.set_result(None)
        await self.leaving.wait()
        if started:
            try:
                await lifespan.stop(None)
            except Exception as exc:
                self.tell_problem(_apps.describe_lifespan_error(exc, example.root))

    async def end(self) -> None:
        """End every connection and the app."""
        for manager in self.managers:
            await manager.__aexit__(None, None, None)
        for task in self.tasks:
            task.cancel()
        self.leaving.set()
        if self.lifespan is not None:
            await self.lifespan

    def tell_problem(self, problem: str) -> None:
        """Show what went wrong in the app."""
        self.example.tell("problem", text=problem)

    async def say(self, text: str) -> None:
        """Do what these lines say."""
        marked = "\n".join(line if _MARKED.match(line) else f"> {line}" for line in text.split("\n"))
        if not self.clients:  # all have left
            self.history = ""
        before = self.history.count("\n")
        script = transcript.parse(self.history + marked, "your lines")
        for step in script.steps:
            if step.line <= before:
                continue
            if not step.client:
                raise _Refused("lines with `>` are yours; what comes back is shown when it comes")
            await self.act(step)
            with anyio.move_on_after(REST):  # what the app answers comes before the next line
                await _apps.at_rest()

    async def act(self, step: Step) -> None:
        """Do one thing as a client."""
        event = self.cookies.added(step.name, transcript.fill(step.event, self.known))
        self.note(step)
        if isinstance(event, Connect):
            await self.connect(step.name, event)
        elif isinstance(event, Request):
            response, problem = await self.stage.ask(event, LIMIT)
            self.cookies.keep(step.name, response.headers)
            self.note(self.bound(Step(False, response, name=step.name)))
            if problem:
                self.tell_problem(problem)
        elif isinstance(event, Text | Bytes):
            await self.clients[step.name].send(event.data)
        elif isinstance(event, Close):
            code = None if event.code == transcript.NO_CODE else event.code
            await self.clients[step.name].close(code, event.reason)

    async def connect(self, name: str, request: Connect) -> None:
        """Open a connection, and show from now on what it sees."""
        manager = self.stage.connect(request)
        session = await manager.__aenter__()
        self.managers.append(manager)
        self.clients[name] = session
        task = asyncio.create_task(self.listen(name, session))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def listen(self, name: str, session: MemorySession) -> None:
        """Show what a connection sees, until its end."""
        over = False
        while not over:
            seen = await session.receive()
            over = seen is None or isinstance(seen, Close | Deny)
            if isinstance(seen, Accept | Deny):
                self.cookies.keep(name, seen.headers)
            if isinstance(seen, Deny):
                seen = shown_denial(seen, None)
            if over and self.clients.get(name) is session:
                del self.clients[name]
            if seen is not None:
                self.note(self.bound(Step(False, seen, name=name)))
        problem = await session.ended()
        if problem:
            self.tell_problem(problem)

    def bound(self, step: Step) -> Step:
        """Give values that have a name in a transcript that name, and JSON its form."""
        event: Any = step.event
        for wanted in self.promised:
            if transcript.bind(wanted, event, self.known):
                break
        shown: Event = transcript.fit(event) if isinstance(event, Text | Bytes) else event
        return Step(False, shown, name=step.name)

    def note(self, step: Step) -> None:
        """Show a step, and keep it."""
        lines = step.format()
        self.history += "".join(f"{line}\n" for line in lines)
        self.example.tell("line", lines=list(lines), client=step.client)

"""Replay: drive the client's side of a transcript, note what was really seen, compare.

This module knows no server. A `Session` is one connection as its client sees it; `_memory` and
`_wire` make them. Whatever the transport, the verdict is the same: the two texts are equal, and
the handler has ended without an exception.

Where several clients talk to one app, each sees its own lines in their order. Between clients the
order is made here, not looked at: what a client does, it does when everything above that line has
been seen and the app is at rest; and what several then see, they see in any order.
"""

from __future__ import annotations

import difflib
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, field, replace
from typing import Any, Generic, NamedTuple, Protocol, TypeVar, cast

import anyio

from ws_doctest import transcript
from ws_doctest.transcript import (
    Accept,
    Bytes,
    Close,
    Connect,
    Deny,
    Event,
    Headers,
    Request,
    Response,
    Step,
    Text,
    Transcript,
    Wait,
)

Seen = Accept | Deny | Text | Bytes | Close


class SessionError(Exception):
    """The session cannot go on, for a reason that is no event of the protocol."""


class Session(Protocol):
    """One connection, as its client sees it."""

    limit: float  # seconds in which something must be seen

    def time(self) -> float:
        """Return the app's time, in seconds, with what was skipped of it."""

    async def send(self, data: str | bytes) -> None:
        """Send one frame."""

    async def close(self, code: int | None, reason: str) -> None:
        """Start the closing handshake, without a code if ``code`` is ``None``."""

    async def receive(self) -> Seen | None:
        """Return the next thing to see.

        A `Close` or `Deny` is the last one; so is ``None``, which is the answer to the client's
        own close.
        """

    async def ended(self) -> str | None:
        """Wait for the handler's end; return what went wrong in it, or ``None``."""

    async def where(self) -> str:
        """Say where the handler is waiting now."""


class RecordingSession(Session, Protocol):
    """A connection that knows when there is no more to see: a transcript can be written of it."""

    async def settled(self) -> list[Seen | None]:
        """Wait until the handler waits for the client or has ended; return what is to be seen."""


@dataclass
class Outcome:
    """What was seen of a session, and what went wrong apart from that."""

    steps: list[Step] = field(default_factory=list)
    problem: str | None = None
    values: dict[str, Any] = field(default_factory=dict)  # what names stood for
    broken_off: bool = False  # a time-out or the like: what would have come after it is unknown


SessionT_co = TypeVar("SessionT_co", bound=Session, covariant=True)


class Stage(Protocol[SessionT_co]):
    """An app that runs, and what clients connect to."""

    def connect(self, request: Connect) -> AbstractAsyncContextManager[SessionT_co]:
        """Open a connection."""

    async def at_rest(self) -> None:
        """Wait until the app can do nothing more of itself."""

    async def ask(self, request: Request, limit: float) -> tuple[Response, str | None]:
        """Make a request over HTTP; return the whole response, and what went wrong in the app."""


async def replay(
    stage: Stage[Session], script: Transcript, *, limit: float, outcome: Outcome | None = None
) -> Outcome:
    """Drive the clients' steps of a transcript, waiting where it says that something is seen.

    Args:
        stage: the app.
        script: the transcript.
        limit: seconds that one step may take.
        outcome: where to note what is seen, for somebody who watches.
    """
    player = _Player(stage, script, limit, outcome)
    await player.run(player.replay)
    return player.outcome


async def record(
    stage: Stage[RecordingSession], script: Transcript, *, limit: float, outcome: Outcome | None = None
) -> Outcome:
    """Drive the clients' steps of a transcript and note all that is seen, whatever it says.

    Args:
        stage: the app.
        script: the transcript, of which the ``<`` lines are ignored but for their form, and for the
            order of what several clients see at a time.
        limit: seconds that one step may take.
        outcome: where to note what is seen, for somebody who watches.
    """
    player = _Recorder(stage, script, limit, outcome)
    await player.run(player.record)
    return player.outcome


SessionT = TypeVar("SessionT", bound=Session)


class _Waiting(NamedTuple):
    """What a line that says how long something takes is compared with."""

    step: Step
    seconds: float
    began: float  # in the app's time
    really: float  # in real time
    before: float  # real seconds since the client did something last


class _Client(Generic[SessionT]):
    """One client, until a close or a denial is seen or its own close answered."""

    def __init__(self, session: SessionT, step: Step, promised: list[Event]) -> None:
        self.session = session
        self.step = step  # its last one
        self.promised = promised
        self.waiting: list[Seen | None] = []  # what came before a line asked for it
        self.opened = False
        self.over = False
        self.ended = False  # the handler has
        self.acted = time.monotonic()  # when it did something last
        self.waits: _Waiting | None = None

    @property
    def name(self) -> str:
        return self.step.name

    async def receive(self) -> Seen | None:
        return self.waiting.pop(0) if self.waiting else await self.session.receive()


class Cookies:
    """The cookies of each client."""

    def __init__(self) -> None:
        self.jars: dict[str, dict[str, str]] = {}

    def added(self, name: str, event: Event) -> Event:
        """Add the cookies that a client has been given."""
        cookies = self.jars.get(name)
        if not cookies or not isinstance(event, Connect | Request):
            return event
        if any(header == "cookie" for header, _ in event.headers):
            return event
        value = "; ".join(f"{key}={text}" for key, text in cookies.items())
        return replace(event, headers=(*event.headers, ("cookie", value)))

    def keep(self, name: str, headers: Headers) -> None:
        """Keep what a response gives a client, or takes from it."""
        jar = self.jars.setdefault(name, {})
        for header, value in headers:
            if header == "set-cookie":
                pair, _, attributes = value.partition(";")
                key, _, text = pair.strip().partition("=")
                if "max-age=0" in attributes.lower().replace(" ", ""):
                    jar.pop(key, None)
                else:
                    jar[key] = text


class _Player(Generic[SessionT]):
    """The clients of one transcript."""

    def __init__(
        self, stage: Stage[SessionT], script: Transcript, limit: float, outcome: Outcome | None
    ) -> None:
        self.stage = stage
        self.script = script
        self.limit = limit
        self.step = script.steps[0]
        self.outcome = outcome or Outcome()
        self.stack = AsyncExitStack()
        self.clients: dict[str, _Client[SessionT]] = {}
        self.handlers: list[_Client[SessionT]] = []  # those of all connections, in their order
        self.known = self.outcome.values  # values that have a name in the transcript
        self.doing = "the server to answer"
        self.cookies = Cookies()

    async def run(self, play: Callable[[], Awaitable[None]]) -> None:
        try:
            async with self.stack:
                try:
                    await play()
                    await self.ends()
                except TimeoutError:
                    await self.explain_timeout()
                except SessionError as exc:  # caught here, too: a task group would wrap it on its way out
                    self.break_off(str(exc))
        except SessionError as exc:  # the connection could not even be started
            self.break_off(str(exc))

    def break_off(self, problem: str) -> None:
        self.outcome.broken_off = True
        self.complain(f"{self.script.name}:{self.step.line}: {problem}")

    def complain(self, problem: str) -> None:
        before = [self.outcome.problem] if self.outcome.problem else []
        self.outcome.problem = "\n".join([*before, problem])

    async def replay(self) -> None:
        for step in self.script.steps:
            self.step = step
            if isinstance(step.event, Connect):
                await self.connect(step, step.event)
                continue
            if isinstance(step.event, Request):
                await self.ask(step, step.event)
                continue
            if isinstance(step.event, Response):  # noted with its request
                continue
            client = self.clients[step.name]
            if not step.client:
                if not client.over:
                    client.step = step
                    await self.see(client, step.event)
                if step.name and client.over and not isinstance(step.event, Close | Deny):
                    await self.too_early(client)
                continue
            await self.rest()
            client.step = step
            if not client.opened:  # the transcript forgot to say so; the diff will
                await self.see(client, None)
            if client.over:
                if not step.name:
                    return
                await self.too_early(client)
            await self.act(client, step)
            if step.name and isinstance(step.event, Close):
                await self.see_the_end(client)
        # Whatever comes after the last line was not promised by the transcript.
        for client in self.clients.values():
            self.step = client.step
            await self.see_the_end(client)

    async def too_early(self, client: _Client[SessionT]) -> None:
        """Do not wait for what the others might see without this client."""
        await self.ends()  # what went wrong in the handler says more
        raise SessionError(f"{client.name}'s session had ended before `{self.step}`")

    async def see_the_end(self, client: _Client[SessionT]) -> None:
        self.doing = f"{_of(client.name)} connection to end"
        if not isinstance(client.step.event, Close):
            mark = f"{client.name} > close".lstrip()
            self.doing += f" (if the client ends it, `{mark}` is missing)"
        while not client.over:
            await self.see(client, None)

    async def connect(self, step: Step, request: Connect) -> None:
        await self.rest()
        before = self.clients.get(step.name)
        if before is not None and not before.over:
            raise SessionError(f"{step.name}'s session had not ended before `{step}`")
        self.outcome.steps.append(step)
        promised = [other.event for other in self.session_of(step) if not other.client]
        filled = self.cookies.added(step.name, transcript.fill(request, self.known))
        assert isinstance(filled, Connect)  # as it was
        session = await self.stack.enter_async_context(self.stage.connect(filled))
        client = _Client(session, step, promised)
        self.clients[step.name] = client
        self.handlers.append(client)
        if step.name:
            # As on a wire, where nothing can be done before the server has answered.
            self.doing = f"`{step.name} < accept` or `{step.name} < deny`"
            with anyio.fail_after(self.limit):
                client.waiting.append(await session.receive())

    async def ask(self, step: Step, request: Request) -> None:
        """Make a request over HTTP, and note the answer."""
        await self.rest()
        self.doing = f"the answer to `{step}`"
        filled = self.cookies.added(step.name, transcript.fill(request, self.known))
        assert isinstance(filled, Request)  # as it was
        self.outcome.steps.append(step)
        with anyio.fail_after(self.limit * 2):
            response, problem = await self.stage.ask(filled, self.limit)
        if problem:
            self.complain(problem)
        self.cookies.keep(step.name, response.headers)
        steps = self.script.steps
        after = steps[steps.index(step) + 1 :] if step in steps else ()
        wanted = next((other.event for other in after if other.name == step.name), None)
        names = {name for name, _ in wanted.headers} if isinstance(wanted, Response) else set()
        shown = Response(
            response.status, tuple(pair for pair in response.headers if pair[0] in names), response.body
        )
        if isinstance(wanted, Response) and not wanted.body:
            shown = Response(shown.status, shown.headers)  # a page may be long: it is shown if it is written
        bound = transcript.bind(wanted, shown, self.known)
        self.outcome.steps.append(Step(False, bound or shown, name=step.name))

    def session_of(self, connect: Step) -> Iterator[Step]:
        """Yield the steps of one connection; a client may have several, one after the other."""
        started = False
        for step in self.script.steps:
            if started and step.name == connect.name and isinstance(step.event, Connect):
                return
            started = started or step is connect
            if started and step.name == connect.name:
                yield step

    async def rest(self) -> None:
        """Before a client does something: let the app do all that it can, where others could see it."""
        if not self.step.name:
            return
        await self.ends()
        self.doing = f"the app to come to rest before `{self.step}`"
        with anyio.fail_after(self.limit):
            await self.stage.at_rest()

    async def ends(self) -> None:
        """Wait for the handlers of all connections that have ended."""
        for client in self.handlers:
            if client.over and not client.ended:
                self.doing = f"the handler{_to(client.name)} to end, after the connection's end"
                with anyio.fail_after(self.limit):
                    problem = await client.session.ended()
                client.ended = True
                if problem:
                    self.complain(f"{client.name}: {problem}" if client.name else problem)

    async def act(self, client: _Client[SessionT], step: Step) -> None:
        self.doing = f"`{step}` to be taken"
        now = time.monotonic()
        if not isinstance(step.event, Wait):
            client.acted = now
        elif step.event.seconds is not None:
            client.waits = _Waiting(step, step.event.seconds, client.session.time(), now, now - client.acted)
        event = transcript.fill(step.event, self.known)
        with anyio.fail_after(self.limit):
            if isinstance(event, Text | Bytes):
                await client.session.send(event.data)
            elif isinstance(event, Close):
                code = None if event.code == transcript.NO_CODE else event.code
                await client.session.close(code, event.reason)
        self.outcome.steps.append(step)

    async def see(self, client: _Client[SessionT], wanted: Event | None) -> None:
        if wanted is not None:
            self.doing = f"`{Step(False, wanted, name=client.name)}`"
        waits, client.waits = client.waits, None
        limit = self.limit + (waits.seconds if waits else 0.0)
        client.session.limit = limit
        with anyio.fail_after(limit):
            seen = await client.receive()
        if waits:
            passed = client.session.time() - waits.began
            # A busy machine is late: nobody knows how much of the real time the app has waited. What it
            # waits for may have begun with what the client did last.
            real = time.monotonic() - waits.really
            least, most = waits.seconds * 0.98 - 0.05, waits.seconds * 1.02 + 0.05
            if passed + waits.before < least or passed - real > most + real:
                self.complain(
                    f"{self.script.name}:{waits.step.line}: `{waits.step}`, but it came after {passed:.3g} s"
                )
        self.note(client, seen, wanted)

    def note(self, client: _Client[SessionT], seen: Seen | None, wanted: Event | None) -> None:
        promised = client.promised
        client.opened = True
        if isinstance(seen, Accept | Deny):
            self.cookies.keep(client.name, seen.headers)
        client.over = client.over or seen is None or isinstance(seen, Close | Deny)
        if isinstance(seen, Deny):
            seen = shown_denial(seen, promised[0] if promised else None)
        if seen is not None and seen not in promised:
            for event in (wanted, *promised):
                bound = transcript.bind(event, seen, self.known)
                if bound is not None:
                    seen = cast(Seen, bound)
                    break
        if isinstance(seen, Text | Bytes) and seen not in promised:
            # Out of step, after an extra or a missing message, the form of any line will do that
            # says the same.
            forms = [transcript.fit(seen, event) for event in (wanted, *promised)]
            seen = next((form for form in forms if form in promised), transcript.fit(seen))
        if seen is not None:
            self.outcome.steps.append(Step(False, seen, name=client.name))

    async def explain_timeout(self) -> None:
        places = []
        for client in self.handlers:
            if not client.ended:
                with anyio.CancelScope(shield=True):
                    where = await client.session.where()
                places.append(f"\nthe handler{_to(client.name)} was waiting in {where}")
        self.break_off(f"timed out after {self.limit:g} s, waiting for {self.doing}" + "".join(places))


class _Recorder(_Player[RecordingSession]):
    """The clients of a transcript that is being written."""

    acted = ""  # who did something last

    async def record(self) -> None:
        promised: list[Step] = []  # the `<` lines since the last `>` line
        for step in self.script.steps:
            if not step.client:
                promised.append(step)
                continue
            self.step = step
            await self.note_all(promised)
            promised = []
            self.acted = step.name
            if isinstance(step.event, Connect):
                await self.connect(step, step.event)
                continue
            if isinstance(step.event, Request):
                await self.ask(step, step.event)
                continue
            client = self.clients[step.name]
            if client.over:
                raise SessionError(f"{_of(step.name)} session had ended before `{step}`")
            await self.rest()
            client.step = step
            await self.act(client, step)
            if isinstance(step.event, Wait):  # in a replay the line behind it says for what
                self.doing = "something to see"
                await self.see(client, None)
                if client.over and not step.name:
                    return
            elif step.name and isinstance(step.event, Close):
                while not client.over:
                    await self.note_all([])
        while not all(client.over for client in self.clients.values()):
            await self.note_all(promised)
            for client in self.clients.values():
                if not client.over and not isinstance(client.step.event, Close):
                    self.step = client.step
                    mark = f"{client.name} > close".lstrip()
                    raise SessionError(
                        f"the handler{_to(client.name)} waits for more after the last line: "
                        f"end the transcript with `{mark}`"
                    )

    async def note_all(self, promised: Sequence[Step]) -> None:
        """Note what has come, in the order of the lines that promised it, if there were any."""
        if self.step.name:
            await self.ends()
        self.doing = "the handler to wait for the client"
        clients = [client for client in self.clients.values() if not client.over]
        clients.sort(key=lambda client: client.name != self.acted)  # who did it sees it first
        while True:
            came = False
            for client in clients:
                if None in client.waiting or any(isinstance(seen, Close | Deny) for seen in client.waiting):
                    continue
                with anyio.fail_after(self.limit):
                    settled = await client.session.settled()
                client.waiting += settled
                came = came or bool(settled)
            # What the handler of one client does, others see.
            if not came or len(clients) == 1:
                break
        named = [self.clients[step.name] for step in promised if step.name in self.clients]
        rest = [client for client in clients for _ in client.waiting]
        for client in [*named, *rest]:
            if client.waiting:
                self.note(client, client.waiting.pop(0), None)


def _of(name: str) -> str:
    """Say whose something is, where there are several clients."""
    return f"{name}'s" if name else "the"


def _to(name: str) -> str:
    return f" of {name}" if name else ""


def shown_denial(seen: Deny, wanted: Event | None) -> Deny:
    """Keep of a denial's headers those that the transcript names: servers add their own."""
    names = {name for name, _ in wanted.headers} if isinstance(wanted, Deny) else set()
    return Deny(seen.status, tuple(header for header in seen.headers if header[0] in names), seen.body)


# The headers with which the handshake itself is made, and those that a server adds to every
# response. They differ from server to server and are not the app's, so no transcript shows them.
_HANDSHAKE = {
    "connection",
    "date",
    "sec-websocket-accept",
    "sec-websocket-extensions",
    "sec-websocket-protocol",
    "sec-websocket-version",
    "server",
    "upgrade",
}


def visible_headers(headers: Sequence[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """Return the headers of a response that are the app's own, with lower-case names."""
    lowered = [(name.lower(), value) for name, value in headers]
    return tuple((name, value) for name, value in lowered if name not in _HANDSHAKE)


def verdict(script: Transcript, outcome: Outcome, label: str, shown_at: Sequence[str] = ()) -> str | None:
    """Compare a transcript with what was seen.

    Args:
        script: the transcript.
        outcome: what `replay` returned.
        label: the transport, for the diff's heading.
        shown_at: the places of the pages that show the transcript.

    Returns:
        ``None`` if they agree, else the failure for the reader: a diff, and what went wrong in the
        handler.
    """
    parts: list[str] = []
    steps = outcome.steps
    if outcome.broken_off:
        # The rest is unknown. A diff shows only what had gone wrong before, not that the rest is missing.
        steps = [*steps, *script.steps[len(steps) :]]
    written, seen = script.format(), script.updated(steps)
    if written != seen:
        line = _first_difference(script, steps)
        pages = f", shown on {', '.join(shown_at)}" if shown_at else ""
        diff = difflib.unified_diff(
            written.splitlines(keepends=True),
            seen.splitlines(keepends=True),
            f"{script.name} (as written)",
            f"{script.name} (as seen, {label})",
        )
        parts.append(
            f"{script.name}:{line}: the session differs from its transcript{pages}\n" + "".join(diff)
        )
    if outcome.problem:
        pages = f"\n({script.name}, {label}{', shown on ' + ', '.join(shown_at) if shown_at else ''})"
        parts.append(outcome.problem + pages)
    return "\n".join(parts) or None


def _first_difference(script: Transcript, seen: Sequence[Step]) -> int:
    steps = script.steps
    for written, real in zip(steps, seen, strict=False):
        if written != real:
            return written.line
    return steps[min(len(seen), len(steps) - 1)].line

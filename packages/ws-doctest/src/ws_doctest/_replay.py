"""Replay: drive the client's side of a transcript, note what was really seen, compare.

This module knows no server. A `Session` is one connection as its client sees it; `_memory` and
`_wire` make them. Whatever the transport, the verdict is the same: the two texts are equal, and
the handler has ended without an exception.
"""

from __future__ import annotations

import difflib
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import anyio

from ws_doctest import transcript
from ws_doctest.transcript import Accept, Bytes, Close, Deny, Event, Step, Text, Transcript, Wait

Seen = Accept | Deny | Text | Bytes | Close


class SessionError(Exception):
    """The session cannot go on, for a reason that is no event of the protocol."""


class Session(Protocol):
    """One connection, as its client sees it."""

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
    broken_off: bool = False  # a time-out or the like: what would have come after it is unknown


async def replay(
    session: AbstractAsyncContextManager[Session],
    script: Transcript,
    *,
    limit: float,
    outcome: Outcome | None = None,
) -> Outcome:
    """Drive the client's steps of a transcript, waiting where it says that something is seen.

    Args:
        session: the connection, not yet entered.
        script: the transcript.
        limit: seconds that one step may take.
        outcome: where to note what is seen, for somebody who watches.
    """
    player = _Player(script, limit, outcome)
    await player.run(session, player.replay)
    return player.outcome


async def record(
    session: AbstractAsyncContextManager[RecordingSession],
    script: Transcript,
    *,
    limit: float,
    outcome: Outcome | None = None,
) -> Outcome:
    """Drive the client's steps of a transcript and note all that is seen, whatever it says.

    Args:
        session: the connection, not yet entered.
        script: the transcript, of which the ``<`` lines are ignored but for their form.
        limit: seconds that one step may take.
        outcome: where to note what is seen, for somebody who watches.
    """
    player = _Player(script, limit, outcome)
    await player.run(session, player.record)
    return player.outcome


SessionT = TypeVar("SessionT", bound=Session)


class _Player:
    """The client of one session, until a close or a denial is seen or its own close answered."""

    def __init__(self, script: Transcript, limit: float, outcome: Outcome | None) -> None:
        self.script = script
        self.limit = limit
        self.step = script.steps[0]
        self.outcome = outcome or Outcome()
        self.outcome.steps.append(self.step)
        self.promised = [step.event for step in script.steps if not step.client]
        self.opened = False
        self.over = False
        self.doing = "the server to answer"

    async def run(
        self,
        session: AbstractAsyncContextManager[SessionT],
        play: Callable[[SessionT], Awaitable[None]],
    ) -> None:
        try:
            async with session as connection:
                try:
                    await play(connection)
                    self.doing = "the handler to end, after the connection's end"
                    with anyio.fail_after(self.limit):
                        self.outcome.problem = await connection.ended()
                except TimeoutError:
                    await self.explain_timeout(connection)
                except SessionError as exc:  # caught here, too: a task group would wrap it on its way out
                    self.break_off(str(exc))
        except SessionError as exc:  # the connection could not even be started
            self.break_off(str(exc))

    def break_off(self, problem: str) -> None:
        self.outcome.broken_off = True
        self.outcome.problem = f"{self.script.name}:{self.step.line}: {problem}"

    async def replay(self, session: Session) -> None:
        for step in self.script.steps[1:]:
            self.step = step
            if not self.step.client:
                await self.see(session, self.step.event)
            else:
                if not self.opened:  # the transcript forgot to say so; the diff will
                    await self.see(session, None)
                if not self.over:
                    await self.act(session, self.step)
            if self.over:
                return
        # Whatever comes after the last line was not promised by the transcript.
        self.doing = "the connection to end"
        if not isinstance(self.step.event, Close):
            self.doing += " (if the client ends it, `> close` is missing)"
        while not self.over:
            await self.see(session, None)

    async def record(self, session: RecordingSession) -> None:
        client_steps = [step for step in self.script.steps[1:] if step.client]
        for step in client_steps:
            self.step = step
            await self.note_all(session)
            if self.over:
                raise SessionError(f"the session had ended before `{self.step}`")
            await self.act(session, self.step)
            if isinstance(step.event, Wait):  # in a replay the line behind it says for what
                self.doing = "something to see"
                await self.see(session, None)
                if self.over:
                    return
        while not self.over:
            await self.note_all(session)
            if not self.over and not (client_steps and isinstance(client_steps[-1].event, Close)):
                raise SessionError(
                    "the handler waits for more after the last line: end the transcript with `> close`"
                )

    async def act(self, session: Session, step: Step) -> None:
        self.doing = f"`{step}` to be taken"
        event = step.event
        with anyio.fail_after(self.limit):
            if isinstance(event, Text | Bytes):
                await session.send(event.data)
            elif isinstance(event, Close):
                await session.close(None if event.code == transcript.NO_CODE else event.code, event.reason)
        self.outcome.steps.append(step)

    async def see(self, session: Session, wanted: Event | None) -> None:
        if wanted is not None:
            self.doing = f"`{Step(False, wanted)}`"
        with anyio.fail_after(self.limit):
            seen = await session.receive()
        self.note(seen, wanted)

    async def note_all(self, session: RecordingSession) -> None:
        self.doing = "the handler to wait for the client"
        with anyio.fail_after(self.limit):
            for seen in await session.settled():
                self.note(seen, None)

    def note(self, seen: Seen | None, wanted: Event | None) -> None:
        self.opened = True
        self.over = self.over or seen is None or isinstance(seen, Close | Deny)
        if isinstance(seen, Text | Bytes):
            # Out of step, after an extra or a missing message, the form of any line will do that
            # says the same.
            forms = [transcript.fit(seen, event) for event in (wanted, *self.promised)]
            seen = next((form for form in forms if form in self.promised), transcript.fit(seen))
        elif isinstance(seen, Deny):
            seen = _shown_denial(seen, self.promised[0] if self.promised else None)
        if seen is not None:
            self.outcome.steps.append(Step(False, seen))

    async def explain_timeout(self, session: Session) -> None:
        with anyio.CancelScope(shield=True):
            where = await session.where()
        self.break_off(
            f"timed out after {self.limit:g} s, waiting for {self.doing}\nthe handler was waiting in {where}"
        )


def _shown_denial(seen: Deny, wanted: Event | None) -> Deny:
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

"""The history that joiners of a channel share: what each is given is what it would have been given alone."""

from __future__ import annotations

from typing import Any

import anyio
import anyio.lowlevel
import pytest

from lilya.websockets.channels import Channels, Event, Gap, _recent
from lilya.websockets.channels._memory import MemoryBackend
from lilya.websockets.channels._outbox import Entry
from lilya.websockets.channels._recent import Recalled, Recent, _Window

pytestmark = pytest.mark.anyio


class Counted(MemoryBackend):
    """Counts what it is asked for, and answers when it is let."""

    def __init__(self, history: int = 1000) -> None:
        super().__init__(history=history, max_age=None)
        self.asked: list[str | None] = []
        self.given = 0
        self.held: anyio.Event | None = None

    async def history(self, channel: str, *, last: int = 0, since: str | None = None) -> Any:
        self.asked.append(since)
        found = await super().history(channel, last=last, since=since)
        if self.held is not None:
            await self.held.wait()
        self.given += len(found.events)
        return found


async def resumed(channels: Channels, since: str, count: int) -> list[Any]:
    async with channels.subscribe("a", since=since) as subscription:
        return [await anext(subscription) for _ in range(count)]


async def test_many_come_back_at_once() -> None:
    backend = Counted()
    async with Channels(backend) as channels:
        ids = [await channels.publish("a", f"{n}") for n in range(500)]
        found: dict[int, list[Any]] = {}

        async def come(number: int) -> None:
            found[number] = await resumed(channels, ids[number], 499 - number)

        backend.held = anyio.Event()
        async with anyio.create_task_group() as tasks:
            for number in range(0, 400, 4):
                tasks.start_soon(come, number)
                if not number:
                    await anyio.wait_all_tasks_blocked()
            await anyio.wait_all_tasks_blocked()
            backend.held.set()
        for number, events in found.items():
            assert [event.id for event in events] == ids[number + 1 :]
        # The first one's, and of each of the others that there is nothing newer.
        assert backend.given == 499
        # They are the same objects.
        assert found[0][-1] is found[396][-1]


async def test_what_is_newer_is_added() -> None:
    backend = Counted()
    async with Channels(backend) as channels, anyio.create_task_group() as tasks:
        ids = [await channels.publish("a", f"{n}") for n in range(10)]
        assert len(await resumed(channels, ids[0], 9)) == 9
        found: list[list[Any]] = []

        async def come(number: int) -> None:
            found.append(await resumed(channels, ids[number], 10 - number))

        backend.given = 0
        for round in range(3):
            ids.append(await channels.publish("a", f"new {round}"))
            backend.held = anyio.Event()
            for _ in range(3):
                tasks.start_soon(come, 1 + round)
                await anyio.wait_all_tasks_blocked()
            backend.held.set()
            while len(found) < 3 * round + 3:
                await anyio.lowlevel.checkpoint()
        for place, events in enumerate(found):
            begin = 1 + place // 3
            assert [event.id for event in events] == ids[begin + 1 : begin + 1 + len(events)]
            assert len(events) == 10 - begin
        assert backend.given == 9  # each new one, once for each who asked


async def test_answers_that_overtake_each_other() -> None:
    backend = Counted()
    await backend.start()
    recent = Recent(backend)
    ids = [await backend.publish("a", "0")]
    ids.append(await backend.publish("a", "1"))
    await recent.history("a", last=0, since=ids[0])

    async def ask(into: list[Any]) -> None:
        into.append(await recent.history("a", last=0, since=ids[0]))

    answers: list[Any] = []
    async with anyio.create_task_group() as tasks:
        first, backend.held = anyio.Event(), None
        for gate in (first, anyio.Event(), None):
            ids.append(await backend.publish("a", f"{len(ids)}"))
            backend.held = gate
            tasks.start_soon(ask, answers)
            await anyio.wait_all_tasks_blocked()
            if gate is not first and gate is not None:
                gate.set()  # the one between is answered, too
                await anyio.wait_all_tasks_blocked()
        first.set()  # the oldest answer comes last
    assert sorted(len(answer.entries) for answer in answers) == [2, 3, 4]
    for answer in answers:
        assert [entry.source.id for entry in answer.entries] == ids[1 : len(answer.entries) + 1]
        assert answer.position == ids[len(answer.entries)]
    # Two answers that do not touch: it is asked for alone.
    window = recent._windows["a"]
    window.places = {ids[0]: 0}
    window.position = "elsewhere"
    base = ids[-1]
    assert not window.takes(base, await recent._ask("a", 0, ids[-2]))


@pytest.mark.parametrize("loss", ["another life", "trimmed"])
async def test_what_was_lost_meanwhile(loss: str) -> None:
    backend = Counted(history=5)
    async with Channels(backend) as channels:
        ids = [await channels.publish("a", f"{n}") for n in range(5)]
        await resumed(channels, ids[0], 4)
        if loss == "trimmed":
            for n in range(10):
                await channels.publish("a", f"later {n}")
        else:
            backend._logs.clear()
            backend._epoch = "00000000"
            await channels.publish("a", "later")
        (item,) = await resumed(channels, ids[0], 1)
        assert isinstance(item, Gap)
        assert item.since == ids[0]
        assert "a" not in channels._hub.recent._windows


async def test_positions_that_are_too_old() -> None:
    """Each is told of its gap, and none waits for more than one other."""
    backend = Counted(history=5)
    async with Channels(backend) as channels:
        ids = [await channels.publish("a", f"{n}") for n in range(20)]
        found: list[Any] = []

        async def come(number: int) -> None:
            found.append((ids[number], await resumed(channels, ids[number], 6)))

        async with anyio.create_task_group() as tasks:
            for number in range(10):
                tasks.start_soon(come, number)
        for since, (gap, *events) in found:
            assert isinstance(gap, Gap)
            assert gap.since == since
            assert [event.id for event in events if isinstance(event, Event)] == ids[-5:]


async def test_what_is_kept_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_recent, "_LARGEST", 10)
    backend = Counted()
    async with Channels(backend) as channels:
        ids = [await channels.publish("a", "x" * 5) for n in range(3)]
        await resumed(channels, ids[0], 2)
        assert "a" in channels._hub.recent._windows
        await channels.publish("a", "x" * 5)
        assert len(await resumed(channels, ids[0], 3)) == 3
        assert channels._hub.recent._windows == {}
        await resumed(channels, ids[0], 3)
        assert channels._hub.recent._windows == {}


async def test_answers_that_overlap() -> None:
    """Several ask for what is newer at the same time, and the later one may be answered first."""
    entries = {id: Entry.of(Event("a", id, id)) for id in "1234"}

    def recalled(*ids: str) -> Recalled:
        return Recalled([entries[id] for id in ids], ids, True, ids[-1])

    window = _Window("0", recalled("1"))
    assert window.takes("1", recalled("2"))
    assert window.takes("1", recalled("2", "3"))
    assert window.takes("1", recalled("2"))  # it is there already
    assert window.between("0", "3") == [entries[id] for id in "123"]
    assert not window.takes("1", recalled("4"))  # what is between the two is not known
    assert window.between("1", "3") == [entries[id] for id in "23"]


async def test_a_window_that_is_used_is_kept_for_longer() -> None:
    async with Channels(Counted()) as channels:
        ids = [await channels.publish("a", "x"), await channels.publish("a", "y")]
        await resumed(channels, ids[0], 1)
        window = channels._hub.recent._windows["a"]
        window.used_at = before = anyio.current_time() - 3600
        await resumed(channels, ids[0], 1)
        assert channels._hub.recent._windows["a"] is window
        assert window.used_at > before + 3000


async def test_it_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_recent, "_KEPT", 0.2)
    async with Channels(Counted()) as channels:
        ids = [await channels.publish("a", "x"), await channels.publish("a", "y")]
        await resumed(channels, ids[0], 1)
        window = channels._hub.recent._windows["a"]
        recent = Recent(channels.backend)
        recent._forget("a", window)
        assert recent._windows == {}
        while channels._hub.recent._windows:  # noqa: ASYNC110 - nobody tells it
            await anyio.sleep(0.01)


async def test_a_first_one_that_is_cancelled() -> None:
    backend = Counted()
    async with Channels(backend) as channels:
        ids = [await channels.publish("a", f"{n}") for n in range(3)]
        backend.held = anyio.Event()
        async with anyio.create_task_group() as tasks:
            first = anyio.CancelScope()
            found: list[Any] = []

            async def come(scope: anyio.CancelScope) -> None:
                with scope:
                    found.append(await resumed(channels, ids[0], 2))

            tasks.start_soon(come, first)
            await anyio.wait_all_tasks_blocked()
            tasks.start_soon(come, anyio.CancelScope())
            await anyio.wait_all_tasks_blocked()
            first.cancel()
            backend.held.set()
        assert [[event.id for event in events] for events in found] == [ids[1:]]

"""What waits in a block, and its limits: without an event loop, by a clock that the test sets."""

from __future__ import annotations

from typing import Any

import pytest

from lilya.websockets._inbox import Breach, Inbox, Limits, kind_of, size_of


class Clock:
    def __init__(self) -> None:
        self.now = 100.0
        self.looks = 0

    def __call__(self) -> float:
        self.looks += 1
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.mark.contract("block-nothing-lost")
def test_what_waits_is_in_order(clock: Clock) -> None:
    inbox = Inbox(Limits(), clock)
    failure = KeyError("of the server")
    for item, size in (("one", 3), (failure, 0), ("two", 3)):
        inbox.keep(item, size)
    assert inbox.take() == "one"
    with pytest.raises(KeyError) as caught:
        inbox.take()
    assert caught.value is failure
    assert inbox.take() == "two"
    with pytest.raises(IndexError):
        inbox.take()


@pytest.mark.contract("block-buffer")
@pytest.mark.parametrize(
    ("limits", "sizes", "full"),
    [
        (Limits(messages=2), [1], False),
        (Limits(messages=2), [1, 1], True),
        (Limits(bytes=10), [9], False),
        (Limits(bytes=10), [9, 1], True),
        (Limits(bytes=10), [100], True),
        (Limits(messages=0), [], False),
        (Limits(messages=0, bytes=1), [5], False),
        (Limits(), [0] * 63, False),
        (Limits(), [0] * 64, True),
        (Limits(), [1_048_575], False),
        (Limits(), [1_048_576], True),
    ],
)
def test_when_it_is_full(limits: Limits, sizes: list[int], full: bool, clock: Clock) -> None:
    inbox = Inbox(limits, clock)
    for size in sizes:
        inbox.keep("a message", size)
    assert inbox.is_full is full
    if full:
        inbox.take()
        assert not inbox.is_full
    inbox.keep("a message", 10)
    inbox.clear()
    assert not inbox.items
    assert not inbox.is_full


@pytest.mark.contract("block-message-size")
def test_the_size_of_a_message(clock: Clock) -> None:
    inbox = Inbox(Limits(size=4), clock)
    assert inbox.admit(4) is None
    breach = inbox.admit(5)
    assert breach == Breach(1009, "message too big", "a message had more than 4 bytes")
    assert inbox.admit(4) is None  # whoever goes on counts from here
    assert Inbox(Limits(size=0), clock).admit(0) is None
    assert clock.looks == 2  # one for each inbox: these limits need no clock


@pytest.mark.contract("block-message-rate")
def test_the_rate_is_an_average(clock: Clock) -> None:
    inbox = Inbox(Limits(rate=2), clock)
    assert [inbox.admit(1) for _ in range(2)] == [None, None]
    breach = inbox.admit(1)
    assert breach == Breach(1008, "too many messages", "the client sent more than 2 messages per second")
    clock.now += 0.5
    assert inbox.admit(1) is None
    assert inbox.admit(1) is not None
    clock.now += 60  # however long it was silent
    assert [inbox.admit(1) for _ in range(2)] == [None, None]
    assert inbox.admit(1) is not None


@pytest.mark.contract("block-message-rate")
def test_a_rate_below_one_lets_one_through(clock: Clock) -> None:
    inbox = Inbox(Limits(rate=0.1), clock)
    assert inbox.admit(1) is None
    clock.now += 9.5
    assert inbox.admit(1) is not None
    clock.now += 1
    assert inbox.admit(1) is None


@pytest.mark.contract("block-message-rate", "block-idle")
def test_what_waited_because_of_the_app_does_not_count(clock: Clock) -> None:
    inbox = Inbox(Limits(rate=2, idle=5), clock)
    assert [inbox.admit(1) for _ in range(2)] == [None, None]
    inbox.pause()
    assert inbox.paused_at == 100.0
    clock.now += 3
    assert inbox.silent_since() == clock.now  # the silence is the app's
    inbox.resume()
    assert inbox.paused_at is None
    assert inbox.silent_since() == clock.now
    clock.now += 1
    assert inbox.silent_since() == clock.now - 1
    clock.now -= 1
    # Six more, which came in these seconds; more than two are never saved up between two messages.
    assert [inbox.admit(1) for _ in range(6)] == [None] * 6
    assert inbox.admit(1) is not None
    clock.now += 2
    assert inbox.silent_since() == clock.now - 2


@pytest.mark.contract("block-idle")
def test_since_when_a_client_is_silent(clock: Clock) -> None:
    inbox = Inbox(Limits(idle=5), clock)
    assert inbox.silent_since() == 100.0
    clock.now += 3
    assert inbox.silent_since() == 100.0
    inbox.admit(1)
    assert inbox.silent_since() == 103.0


@pytest.mark.parametrize(
    ("message", "kind"),
    [({"type": "websocket.ping"}, "websocket.ping"), ({"type": []}, []), ({}, None), (None, None), (5, None)],
)
def test_the_kind_of_a_message(message: Any, kind: Any) -> None:
    assert kind_of(message) == kind


@pytest.mark.contract("block-counts")
@pytest.mark.parametrize(
    ("message", "size"),
    [
        ({"text": ""}, 0),
        ({"text": "abc"}, 3),
        ({"text": "é€"}, 5),
        ({"text": "\ud800"}, 3),
        ({"text": None, "bytes": b"12"}, 2),
        ({"bytes": bytearray(b"123")}, 3),
        ({"bytes": memoryview(b"1234")}, 4),
        ({"bytes": "no bytes"}, 0),
        ({}, 0),
    ],
)
def test_the_size_of_a_payload(message: Any, size: int) -> None:
    assert size_of(message) == size

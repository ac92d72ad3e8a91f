"""The same handlers on every server: what both ends see, for everything that can end a conversation."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from .client import BINARY, Frame, close_frame, described, frame
from .conftest import found, is_whole
from .endings import (
    DIFFERENCES,
    ENDINGS,
    GIVE_UP,
    GROUPS,
    LEGACY,
    SECRET,
    STOPS,
    Difference,
    Outcome,
    Seen,
    difference,
    ended,
    expected,
    is_expected,
    stop,
)
from .observed import EXPECTED, ROWS, as_row
from .observed import expected as expected_by_observers
from .running import KINDS, Kind, Server, running

# The close of its own after a message that is too big takes 10 seconds there.
SLOW = {(LEGACY, "over-server")}
# It never blocks a send, so there is none that is blocked.
NONE = {("daphne", "stop-pours")}


def write_down(way: str, server: str, ending: str, seen: Seen) -> None:
    found.setdefault(way, {}).setdefault(ending, {})[server] = list(seen.outcome)
    for name, value in seen.figures.items():
        found.setdefault("figures", {}).setdefault(f"{name}, {way}", {})[server] = round(value, 1)


def judge(server: str, ending: str, seen: Seen) -> None:
    """Not one byte of an exception's text has reached the client, and both ends saw what they must."""
    assert SECRET not in seen.received
    assert seen.outcome == expected(server, ending)


@pytest.mark.contract("block-closes", "block-ends-quietly", "deny")
@pytest.mark.parametrize("name", ENDINGS)
def test_in_a_block(server: Server, name: str, request: pytest.FixtureRequest) -> None:
    if (server.kind.name, name) in SLOW and not is_whole(request.config):
        pytest.skip("it takes 10 seconds: in the whole matrix only")
    seen = ENDINGS[name].run(server)
    write_down("block", server.kind.name, name, seen)
    judge(server.kind.name, name, seen)


@pytest.mark.whole
@pytest.mark.parametrize("name", [name for name, ending in ENDINGS.items() if ending.by_hand])
def test_by_hand(server: Server, name: str) -> None:
    """What there is without a block differs from server to server. Nobody tells the client why it failed."""
    seen = ENDINGS[name].run(server, "hand")
    assert SECRET not in seen.received
    write_down("hand", server.kind.name, name, seen)


# What observers are told


@pytest.mark.parametrize("name", EXPECTED)
def test_what_observers_are_told(server: Server, name: str) -> None:
    """Once that it opened and once how it ended, or once that it was refused."""
    way = "hand" if name.startswith("hand ") else "block"
    seen = ENDINGS[name.removeprefix("hand ")].run(server, way, observed=True)
    assert seen.observed == expected_by_observers(server.kind.name, name)


def test_the_page_says_what_observers_are_told() -> None:
    page = (Path(__file__).parents[2] / "docs" / "guides" / "observing.md").read_text(encoding="utf-8")
    table = page.partition("### Differences between servers\n")[2].partition("\n#")[0].splitlines()
    assert [line for line in table if line.startswith("| ")][2:] == [as_row(row) for row in ROWS]
    assert all(server in KINDS for row in ROWS for server in row.otherwise)


# With a library in place of the client that is none


def received(connection: ClientConnection) -> str:
    """How the connection ended, in the words of `Client.end`."""
    try:
        while True:
            connection.recv(30)
    except ConnectionClosed as error:
        if error.rcvd is None:
            return "no close frame"
        if error.rcvd.code == 1005:
            return "close without a code"
        return f"close {error.rcvd.code} {error.rcvd.reason}".rstrip()


def says(server: Server, connection: ClientConnection, number: str) -> str:
    connection.send("go")
    return received(connection)


def is_released(server: Server, connection: ClientConnection, number: str) -> str:
    server.release(number)
    return received(connection)


def leaves(*arguments: int | str) -> Callable[[Server, ClientConnection, str], str]:
    def act(server: Server, connection: ClientConnection, number: str) -> str:
        connection.send("before")
        connection.close(*arguments)  # type: ignore[arg-type]  # a code, and a reason
        return received(connection)

    return act


LIBRARY = {
    "returns": says,
    "raises": says,
    "app-closes": says,
    "cancelled": is_released,
    "closes-4001-reads": leaves(4001, "été"),
    "closes-4001-feeds": leaves(4001, "été"),
    "closes-1000-sleeps": leaves(1000),
}


@pytest.mark.parametrize("name", LIBRARY)
def test_with_the_client_of_websockets(server: Server, name: str) -> None:
    number = server.number()
    address = f"ws://127.0.0.1:{server.port}/block/{ENDINGS[name].path}?number={number}"
    # The app may have sent much before the client closes. With a bound on what waits, the close waits, too.
    with connect(address, proxy=None, open_timeout=30, close_timeout=30, max_queue=None) as connection:
        server.notes.wait_for(number, "open")
        client = LIBRARY[name](server, connection, number)
        assert Outcome(client, ended(server, number)) == expected(server.kind.name, name)


@pytest.mark.contract("deny")
def test_denying_the_client_of_websockets(server: Server) -> None:
    number = server.number()
    with pytest.raises(InvalidStatus) as caught:
        connect(
            f"ws://127.0.0.1:{server.port}/accepting/deny?number={number}", proxy=None, open_timeout=30
        ).close()
    response = caught.value.response
    with_header = f" x-a: {response.headers['x-a']}" if "x-a" in response.headers else ""
    client = f"HTTP {response.status_code}{with_header} {bytes(response.body or b'').decode()}".rstrip()
    assert Outcome(client, ended(server, number)) == expected(server.kind.name, "denies")


# A server that is told to stop


def stopped(kind: Kind, way: str) -> dict[str, Seen]:
    with running(kind) as server:
        seen, took = stop(server, way)
    found.setdefault("stop", {}).setdefault(way, {})[kind.name] = None if took > GIVE_UP else round(took, 1)
    for name, one in seen.items():
        if (kind.name, name) not in NONE:
            write_down(way, kind.name, name, one)
        assert SECRET not in one.received
    return seen


@pytest.mark.whole
@pytest.mark.contract("block-closes", "block-leaving-bounded")
def test_stopping_in_a_block(kind: Kind) -> None:
    seen = stopped(kind, "block")
    wanted = {name: expected(kind.name, name) for name in STOPS if (kind.name, name) not in NONE}
    wrong = [name for name in wanted if not is_expected(kind.name, name, seen[name].outcome)]
    assert {name: seen[name].outcome for name in wrong} == {name: wanted[name] for name in wrong}


@pytest.mark.whole
def test_stopping_by_hand(kind: Kind) -> None:
    assert stopped(kind, "hand")


# That the suite looks at all


def test_every_difference_is_one_of_a_cell() -> None:
    """No reason is kept for what is the same, or is not looked at."""
    for entry in DIFFERENCES:
        assert entry.server in KINDS
        named = [name for name in (*ENDINGS, *STOPS) if difference(entry.server, name) is entry]
        assert named, entry
        assert entry.of(Outcome("-", "-; -")) != Outcome("-", "-; -"), entry


def test_every_ending_is_in_one_group() -> None:
    names = [ending.name for group in GROUPS.values() for ending in group]
    assert len(names) == len(set(names)) == len(ENDINGS)


def test_the_secret_is_what_the_handlers_raise() -> None:
    assert f'SECRET = "{SECRET.decode()}"' in (Path(__file__).parent / "handlers.py").read_text(
        encoding="utf-8"
    )


def test_planted_secret() -> None:
    outcome = expected("uvicorn", "raises")
    judge("uvicorn", "raises", Seen(outcome, b"\x88\x02\x03\xf3", {}))
    with pytest.raises(AssertionError):
        judge("uvicorn", "raises", Seen(outcome, b"\x88\x20\x03\xf3" + SECRET, {}))


@pytest.mark.parametrize("part", ["client", "handler"])
def test_planted_difference(part: str) -> None:
    outcome = expected("uvicorn", "returns")._replace(**{part: "close 1006"})
    with pytest.raises(AssertionError):
        judge("uvicorn", "returns", Seen(outcome, b"", {}))


def test_planted_race() -> None:
    client = "no close frame"
    assert is_expected("granian", "stop-reads", Outcome(client, "ended with the process"))
    assert is_expected("granian", "stop-reads", Outcome(client, "quietly; client 1005; got []"))
    both = "ended with the process or quietly; client 1005"
    assert is_expected("granian", "stop-sleeps", Outcome(client, both))
    assert not is_expected(
        "granian", "stop-sleeps", Outcome(client, both + " or CancelledError; server 1012")
    )
    assert not is_expected("granian", "stop-reads", Outcome("close 1012", "quietly; client 1005; got []"))
    assert not is_expected("granian", "stop-reads", Outcome(client, "quietly; client 1006; got []"))
    assert not is_expected("daphne", "stop-reads", Outcome(client, "quietly; client 1005; got []"))


def test_planted_sameness() -> None:
    """A difference that is gone is noticed, too."""
    with pytest.raises(AssertionError):
        judge("daphne", "app-closes", Seen(ENDINGS["app-closes"].same, b"", {}))


def test_differences_as_outcomes() -> None:
    same = Outcome("close 1000", "quietly; client 1000; got []")
    assert Difference("x", ("a",), "", told="network 1006").of(same) == Outcome(
        "close 1000", "quietly; network 1006; got []"
    )
    assert Difference("x", ("a",), "", client="nothing", handler="all").of(same) == Outcome("nothing", "all")


@pytest.mark.parametrize(
    ("size", "start"), [(0, "8180"), (125, "81fd"), (126, "81fe007e"), (65536, "81ff0000000000010000")]
)
def test_frames(size: int, start: str) -> None:
    assert frame(b"x" * size) == bytes.fromhex(start) + bytes(4) + b"x" * size


def test_frames_are_read(server: Server) -> None:
    """In whatever pieces they come."""
    number = server.number()
    with server.connect("block/echoes", number) as client:
        client.response()
        sizes = [1, 125, 126, 65535, 65536]
        client.send(b"".join(frame(b"x" * size, BINARY) for size in sizes))
        for size in sizes:
            assert client.frame() == Frame(BINARY, b"x" * size)
        client.send(close_frame(1000))
        client.end()
    ended(server, number)


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        (b"", "close without a code"),
        (b"\x03\xe8", "close 1000"),
        (b"\x0f\xa0\xc3\xa9", "close 4000 é"),
    ],
)
def test_close_frames(payload: bytes, said: str) -> None:
    assert described(payload) == said


def test_a_handler_that_says_nothing(server: Server) -> None:
    with pytest.raises(TimeoutError, match=r"no ended or open of 0000, but \[\]"):
        server.notes.wait_for("0000", "ended", "open", limit=0.01)


def test_a_server_that_does_not_start() -> None:
    kind = Kind("none", "json.tool --port {port}", (), ())
    with pytest.raises(RuntimeError, match="none did not start: json"), running(kind):
        pass


def test_no_process_is_left() -> None:
    """Also none that a server has started, whatever ends the block."""
    kind = KINDS["uvicorn"]
    with pytest.raises(KeyError), running(kind) as server:  # noqa: PT012
        pid = server.process.pid
        os.killpg(pid, 0)
        raise KeyError
    with pytest.raises(ProcessLookupError):
        os.killpg(pid, 0)

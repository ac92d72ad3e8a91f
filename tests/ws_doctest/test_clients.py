"""Transcripts with several clients: one app, one lifespan, an order that replays make and do not guess."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ws_doctest import _apps, _memory, _wire, transcript
from ws_doctest._replay import Outcome, verdict
from ws_doctest._wire import IMPLEMENTATIONS, UvicornProcess

LIMIT = 10.0  # seconds; what is expected comes at once
SHORT = 0.5  # for what never comes

ROOM = """
import anyio

loads = []


async def lifespan(scope, receive, send):
    await receive()
    loads.append(1)
    scope["state"]["members"] = {}
    await send({"type": "lifespan.startup.complete"})
    await receive()
    assert scope["state"]["members"] == {}, "somebody is still here"
    await send({"type": "lifespan.shutdown.complete"})


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await lifespan(scope, receive, send)
        return
    assert loads == [1]
    members = scope["state"]["members"]
    name = scope["query_string"].decode()
    await receive()
    if name == "eve":
        await send({"type": "websocket.close"})
        return
    await send({"type": "websocket.accept"})
    for _ in range(20):  # whoever talks before that is not heard: a reader is slower, a replay must be
        await anyio.sleep(0)
    members[name] = send

    async def tell(text):
        for other in sorted(members):
            await members[other]({"type": "websocket.send", "text": text})

    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            break
        if message["text"] == "raise":
            del members[name]
            raise LookupError("nothing to raise")
        if message["text"] == "leave":
            del members[name]
            await send({"type": "websocket.close", "code": 4000})
            break
        if message["text"] == "everybody out":
            for other in sorted(members):
                await members[other]({"type": "websocket.close", "code": 1012})
            members.clear()
        await tell(f"{name}: {message['text']}")
    members.pop(name, None)
    await tell(f"{name} left")
"""

FILES = {
    "room": ROOM,
    "tickets": """
import json
import secrets

async def app(scope, receive, send):
    async def tell(**values):
        await send({"type": "websocket.send", "text": json.dumps(values)})

    await receive()
    await send({"type": "websocket.accept"})
    await tell(ticket=secrets.token_hex(8))
    while (message := await receive())["type"] == "websocket.receive":
        await tell(spent=json.loads(message["text"])["spend"], path=scope["path"])
""",
    "unready": """
async def app(scope, receive, send):
    assert (await receive())["type"] == "lifespan.startup"
    await send({"type": "lifespan.startup.failed", "message": "no database"})
""",
    "slow": """
import anyio

async def app(scope, receive, send):
    await anyio.sleep_forever()
""",
    "stuck": """
import time

async def app(scope, receive, send):
    time.sleep(20)
""",
    "unclean": """
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        raise LookupError("the key to the door")
    await receive()
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.close"})
""",
}

TICKETS = """\
ann > connect /
ann < accept
ann < json {"ticket": "$first"}
bob > connect /
bob < accept
bob < json {"ticket": "$second"}
ann > close
bob > json {"spend": "$first"}
bob < json {"spent": "$first", "path": "/"}
bob > close
cat > connect /$second?$second
cat < accept
cat < json {"ticket": "$third"}
cat > json {"spend": "$fourth"}
cat < json {"spent": "$fourth", "path": "$path"}
cat > close
"""

SESSION = """\
# two people, and one who comes back
ann > connect /room?ann
ann < accept
bob > connect /room?bob
bob < accept
ann > text hi
ann < text ann: hi
bob < text ann: hi
ann > close 1000
bob < text ann left
bob > json [1]
bob < text bob: [1]
ann > connect /room?ann
ann < accept
bob > text again
bob < text bob: again
ann < text bob: again
eve > connect /room?eve
eve < deny 403
bob > text leave
bob < close 4000
ann < text bob left
ann > close
"""

Run = Callable[..., Outcome]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clients").resolve()
    for name, source in FILES.items():
        (folder / f"{name}.py").write_text(source)
    return folder


@pytest.fixture(scope="module", params=["asyncio", "trio", *IMPLEMENTATIONS])
def run(request: pytest.FixtureRequest, root: Path) -> Iterator[Run]:
    """Replays a transcript: in memory, and over every server."""

    def in_memory(name: str, text: str, limit: float = LIMIT) -> Outcome:
        return memory(root, name, text, request.param, limit)

    if request.param in ("asyncio", "trio"):
        yield in_memory
        return
    server = UvicornProcess(request.param, root)

    def over_wire(name: str, text: str, limit: float = LIMIT) -> Outcome:
        return _wire.run_replay(
            server, transcript.parse(text, f"{name}.ws"), root / f"{name}.py", limit=limit
        )

    yield over_wire
    server.stop()


def memory(
    root: Path, name: str, text: str, backend: str, limit: float = LIMIT, update: bool = False
) -> Outcome:
    example = root / f"{name}.py"
    return _memory.run_replay(
        lambda: _apps.load_app(root, example),
        transcript.parse(text, f"{name}.ws"),
        root,
        example,
        backend=backend,
        limit=limit,
        update=update,
    )


def failure(run: Run, name: str, text: str, limit: float = LIMIT) -> str:
    return verdict(transcript.parse(text, f"{name}.ws"), run(name, text, limit), "here") or ""


def test_several_clients_talk_to_one_app(run: Run) -> None:
    assert failure(run, "room", SESSION) == ""
    assert failure(run, "room", SESSION) == ""  # the app is fresh again


@pytest.mark.parametrize(
    ("old", "new"),
    [
        # Between clients, what is seen is seen in any order.
        ("ann < text ann: hi\nbob < text ann: hi\n", "bob < text ann: hi\nann < text ann: hi\n"),
        ("bob < close 4000\nann < text bob left\n", "ann < text bob left\nbob < close 4000\n"),
        ("ann < accept\nbob > connect /room?bob\n", "bob > connect /room?bob\nann < accept\n"),
    ],
)
def test_the_order_between_clients_is_free(run: Run, old: str, new: str) -> None:
    assert old in SESSION
    assert failure(run, "room", SESSION.replace(old, new)) == ""


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        # Each client's own order is not.
        (
            "bob < text ann left\nbob > json [1]\nbob < text bob: [1]\n",
            "bob > json [1]\nbob < text bob: [1]\nbob < text ann left\n",
            ["room.ws:11: the session differs", "-bob < text ann left\n", "+bob < text ann left\n"],
        ),
        (
            "bob < text ann: hi\n",
            "bob < text hi\n",
            ["room.ws:8:", "-bob < text hi\n", "+bob < text ann: hi\n"],
        ),
        ("ann < text ann: hi\n", "", ["room.ws:9:", "+ann < text ann: hi\n"]),
        ("eve < deny 403", "eve < deny 401", ["room.ws:19:", "-eve < deny 401\n+eve < deny 403\n"]),
        ("bob < close 4000", "bob < close 4001", ["-bob < close 4001\n+bob < close 4000\n"]),
        # A session that ends early is told with what went wrong in it, and nobody waits for the rest.
        (
            "ann > text hi",
            "ann > text raise",
            [
                "-ann < text ann: hi\n+ann < close 1006\n",
                "ann: the handler raised an exception:",
                "LookupError: nothing to raise",
                "room.ws:7: ann's session had ended before `ann < text ann: hi`",
            ],
        ),
    ],
)
def test_what_differs_is_a_diff(run: Run, old: str, new: str, found: list[str]) -> None:
    assert old in SESSION
    text = failure(run, "room", SESSION.replace(old, new, 1))
    for line in found:
        assert line in text, text


def test_a_server_may_close_several(run: Run) -> None:
    text = (
        "ann > connect /?ann\nann < accept\nbob > connect /?bob\nbob < accept\n"
        "ann > text everybody out\nbob < close 1012\nann < close 1012\n"
    )
    assert failure(run, "room", text) == ""


@pytest.mark.parametrize(
    ("rest", "name"),
    [("bob > close\nann < text bob left\n", "ann"), ("ann > close\nbob < text ann left\n", "bob")],
)
def test_a_client_who_does_not_close(root: Path, rest: str, name: str) -> None:
    text = SESSION[: SESSION.index("ann > text hi")] + rest
    outcome = memory(root, "room", text, "trio", SHORT)
    assert (outcome.problem or "").startswith(
        f"room.ws:7: timed out after 0.5 s, waiting for {name}'s connection to end "
        f"(if the client ends it, `{name} > close` is missing)"
    )


def test_who_waits_where(root: Path) -> None:
    text = SESSION.replace("bob < text ann: hi\n", "bob < text ann: hi\nbob < text ho\n")
    outcome = memory(root, "room", text, "asyncio", SHORT)
    expected = (
        "room.ws:9: timed out after 0.5 s, waiting for `bob < text ho`\n"
        "the handler of ann was waiting in room.py:38, `message = await receive()`\n"
        "the handler of bob was waiting in room.py:38, `message = await receive()`"
    )
    assert outcome.problem == expected


def test_a_line_waits_until_the_app_is_at_rest(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def no_rest() -> None:
        pass

    monkeypatch.setattr(_apps, "at_rest", no_rest)
    for backend in ("asyncio", "trio"):
        outcome = memory(root, "room", SESSION, backend, SHORT)
        assert "waiting for `bob < text ann: hi`" in (outcome.problem or ""), backend


def test_writing_what_several_clients_see(root: Path) -> None:
    steps = "".join(line + "\n" for line in SESSION.splitlines() if ">" in line or "#" in line)
    outcome = memory(root, "room", steps, "trio", update=True)
    assert outcome.problem is None
    written = transcript.parse(steps, "room.ws").updated(outcome.steps)
    assert written == SESSION
    # What is true stays as it is, in the order in which it stands there.
    swapped = SESSION.replace(
        "ann < text ann: hi\nbob < text ann: hi\n", "bob < text ann: hi\nann < text ann: hi\n"
    )
    outcome = memory(root, "room", swapped, "trio", update=True)
    assert transcript.parse(swapped, "room.ws").updated(outcome.steps) == swapped


@pytest.mark.parametrize(
    ("steps", "found"),
    [
        ("ann > connect /?ann\nbob > connect /?bob\nbob > close\n", "ann waits for more after the last line"),
        (
            "ann > connect /?ann\nann > text leave\nann > text x\n",
            "ann's session had ended before `ann > text x`",
        ),
        (
            "ann > connect /?ann\nann > connect /?ann\n",
            "ann's session had not ended before `ann > connect /?ann`",
        ),
    ],
)
def test_a_session_that_cannot_be_written(root: Path, steps: str, found: str) -> None:
    assert found in (memory(root, "room", steps, "trio", SHORT, update=True).problem or "")


# Values that are others each time


def test_a_name_stands_for_one_value_in_all_sessions(run: Run) -> None:
    assert failure(run, "tickets", TICKETS) == ""


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        # Another name for the same value is fine; the same name for another value is none.
        ('bob < json {"spent": "$first"', 'bob < json {"spent": "$x"', ""),
        ('bob < json {"ticket": "$second"}', 'bob < json {"ticket": "$first"}', "-bob < json {"),
        ('bob < json {"spent": "$first"', 'bob < json {"spent": "$second"', "-bob < json {"),
        ('"$fourth", "path"', '"$fourth", "$path"', '+cat < json {"spent": "$fourth", "path": "/'),
    ],
)
def test_a_name_for_something_else_is_a_diff(root: Path, old: str, new: str, found: str) -> None:
    assert old in TICKETS
    text = TICKETS.replace(old, new)
    script = transcript.parse(text, "tickets.ws")
    said = verdict(script, memory(root, "tickets", text, "asyncio"), "here") or ""
    assert found in said
    assert bool(found) == bool(said)


def test_writing_keeps_the_names(root: Path) -> None:
    outcome = memory(root, "tickets", TICKETS, "trio", update=True)
    assert outcome.problem is None
    assert transcript.parse(TICKETS).updated(outcome.steps) == TICKETS


# Lifespan: of one client's transcripts, too


ONE = "> connect /\n< accept\n< close 1000\n"


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("unready", "the app's startup failed: no database\n(unready.ws, here)"),
        ("slow", "timed out after 0.5 s, waiting for the app to start up"),
        (
            "unclean",
            'in its lifespan:\nTraceback (most recent call last):\n  File "unclean.py", line 7, in app',
        ),
    ],
)
def test_a_lifespan_that_fails(run: Run, name: str, found: str) -> None:
    assert found in failure(run, name, ONE, SHORT if name == "slow" else LIMIT)


def test_a_startup_that_blocks_the_event_loop(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "blocks the event loop in stuck.py:5" in (memory(root, "stuck", ONE, "asyncio", 0.1).problem or "")
    server = UvicornProcess(IMPLEMENTATIONS[0], root)
    monkeypatch.setattr(_wire, "START_LIMIT", 0.5)
    try:
        outcome = _wire.run_replay(server, transcript.parse(ONE), root / "stuck.py", limit=0.1)
    finally:
        server.stop()
    assert "blocks the event loop in stuck.py:5" in (outcome.problem or "")

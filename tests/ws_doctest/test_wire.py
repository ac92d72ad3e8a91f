"""Replays over real servers: the same verdicts as in memory, and no process left behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.asyncio.client import ClientConnection

from ws_doctest import _apps, _memory, _wire, transcript
from ws_doctest._replay import verdict
from ws_doctest._watch import Remains
from ws_doctest._wire import IMPLEMENTATIONS, Replayer, ServerError, UvicornProcess

LIMIT = 20.0  # seconds in which anything must have happened

APPS = {
    "echo": """
async def app(scope, receive, send):
    await receive()
    await send({"type": "websocket.accept", "subprotocol": "chat", "headers": [(b"x-seen", b"yes")]})
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            assert (message["code"], message["reason"]) == (3001, "bye"), message
            return
        await send({**message, "type": "websocket.send"})
""",
    "bye": """
async def app(scope, receive, send):
    await receive()
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.send", "bytes": b'{"a":1}'})
    await send({"type": "websocket.close", "code": 4000, "reason": "so long"})
    await receive()
""",
    "late": """
async def app(scope, receive, send):
    await receive()
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.close"})
    raise LookupError("too late")
""",
    "quiet": """
async def app(scope, receive, send):
    await receive()
    await send({"type": "websocket.accept"})
    message = await receive()
    assert (message["type"], message["code"]) == ("websocket.disconnect", 1005), message
""",
    "refuse": """
async def app(scope, receive, send):
    await receive()
    await send({"type": "websocket.close"})
""",
    "deny": """
import anyio

async def app(scope, receive, send):
    await receive()
    start = {"type": "websocket.http.response.start", "status": 302, "headers": [(b"location", b"/x")]}
    await send(start)
    for part, more in ((b"go ", True), (b"away", False)):
        await anyio.sleep(0)
        await send({"type": "websocket.http.response.body", "body": part, "more_body": more})
""",
    "scope": """
async def app(scope, receive, send):
    await receive()
    await send({"type": "websocket.accept"})
    headers = dict(scope["headers"])
    names = (b"host", b"upgrade", b"sec-websocket-version", b"x-mine")
    seen = [headers.get(name) for name in names]
    for shown in (scope["path"], scope["raw_path"], scope["query_string"], scope["subprotocols"], seen):
        await send({"type": "websocket.send", "text": repr(shown)})
    await send({"type": "websocket.close"})
""",
    "hang": """
async def app(scope, receive, send):
    await receive()
    await send({"type": "websocket.accept"})
    while True:
        await receive()
""",
    "block": """
import time

async def app(scope, receive, send):
    await receive()
    await send({"type": "websocket.accept"})
    await receive()
    time.sleep(60)
""",
    "silent": """
import anyio

async def app(scope, receive, send):
    assert scope["type"] == "websocket"
    await anyio.sleep_forever()
""",
    "counter": """
count = 0

async def app(scope, receive, send):
    global count
    assert scope["type"] == "websocket"
    count += 1
    await receive()
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.send", "text": str(count)})
    await send({"type": "websocket.close"})
""",
    "waiting": """
import anyio

async def app(scope, receive, send):
    await receive()
    await send({"type": "websocket.accept"})
    await receive()
    await anyio.sleep(20)
    await send({"type": "websocket.close"})
    await receive()
""",
    "broken": "import does_not_exist\n\napp = None\n",
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wire").resolve()
    for name, source in APPS.items():
        (folder / f"{name}.py").write_text(source)
    return folder


@pytest.fixture(scope="module", params=IMPLEMENTATIONS)
def server(request: pytest.FixtureRequest, root: Path) -> Iterator[UvicornProcess]:
    server = UvicornProcess(request.param, root)
    yield server
    server.stop()
    assert server.process.exitcode is not None


def failure(server: UvicornProcess, name: str, text: str, limit: float = 5) -> str | None:
    script = transcript.parse(text, f"{name}.ws")
    outcome = _wire.run_replay(server, script, server.root / f"{name}.py", limit=limit)
    return verdict(script, outcome, f"uvicorn-{server.implementation}", ["docs/page.md:7"])


ECHO = """\
> connect /chat?room=blue
> header x-mine: 1
> subprotocol talk
> subprotocol chat
< accept chat
< header x-seen: yes
> text hello
< text hello
> json {"a": [1, 2]}
< json {"a": [1, 2]}
> bytes 00 ff
< bytes 00 ff
> text ""
< text ""
> close 3001 bye
"""


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("echo", ECHO),
        ("bye", '> connect /\n< accept\n< json-binary {"a": 1}\n< close 4000 so long\n'),
        ("quiet", "> connect /\n< accept\n> close\n"),
        ("refuse", "> connect /\n< deny 403\n"),
        ("deny", "> connect /\n< deny 302\n< header location: /x\n< body go away\n"),
        ("counter", "> connect /\n< accept\n< text 1\n< close 1000\n"),
    ],
)
def test_one_transcript_fits_memory_and_every_server(server: UvicornProcess, name: str, text: str) -> None:
    assert failure(server, name, text) is None
    assert failure(server, name, text) is None  # the app's module is fresh again
    example = server.root / f"{name}.py"
    script = transcript.parse(text, f"{name}.ws")
    outcome = _memory.run_replay(
        lambda: _apps.load_app(server.root, example), script, server.root, example, backend="trio", limit=5
    )
    assert verdict(script, outcome, "memory") is None


def test_an_app_sees_the_same_scope_as_in_memory(server: UvicornProcess) -> None:
    example = server.root / "scope.py"
    script = transcript.parse(
        "> connect /caf%C3%A9?x=%20\n> subprotocol a\n> subprotocol b\n> header x-mine: 1\n"
    )
    in_memory = _memory.run_replay(
        lambda: _apps.load_app(server.root, example),
        script,
        server.root,
        example,
        backend="asyncio",
        limit=5,
        update=True,
    )
    text = script.updated(in_memory.steps)
    assert "< text [b'127.0.0.1:8000', b'websocket', b'13', b'1']\n" in text
    assert failure(server, "scope", text) is None


def test_wrong_and_missing_messages_are_a_diff(server: UvicornProcess) -> None:
    wrong = (
        failure(server, "bye", "> connect /\n< accept\n< json {}\n< text more\n< close 4001 so long\n") or ""
    )
    assert wrong.startswith("bye.ws:3: the session differs from its transcript, shown on docs/page.md:7\n")
    for line in ("-< json {}", "-< text more", '+< json-binary {"a": 1}', "+< close 4000 so long"):
        assert line + "\n" in wrong
    assert f"+++ bye.ws (as seen, uvicorn-{server.implementation})" in wrong


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the system does not tell")
def test_what_the_other_side_has_not_confirmed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        sender = socket.create_connection(listener.getsockname())
        receiver, _ = listener.accept()
        with receiver, sender:
            sender.setblocking(False)
            assert _wire.unconfirmed(sender) == 0
            with contextlib.suppress(BlockingIOError):
                while True:
                    sender.send(b"x" * 65_536)  # until both buffers are full
            assert _wire.unconfirmed(sender) > 0
            receiver.settimeout(LIMIT)
            deadline = time.monotonic() + LIMIT
            while _wire.unconfirmed(sender):
                assert time.monotonic() < deadline
                receiver.recv(2**20)
        assert _wire.unconfirmed(sender) == 0


@pytest.mark.parametrize("is_seen", [True, False])
def test_no_time_passes_while_a_message_is_on_its_way(
    is_seen: bool, server: UvicornProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a busy machine, the system passes it on late. The server's clock must not tick on meanwhile."""
    send = ClientConnection.send
    sending: list[asyncio.Task[None]] = []

    async def send_late(connection: ClientConnection, data: str) -> None:
        async def later() -> None:
            await asyncio.sleep(0.2)
            await send(connection, data)

        sending.append(asyncio.create_task(later()))

    def unconfirmed(connection: socket.socket) -> int:
        return sum(not task.done() for task in sending) if is_seen else 0

    monkeypatch.setattr(ClientConnection, "send", send_late)
    monkeypatch.setattr(_wire, "unconfirmed", unconfirmed)
    text = "> connect /\n< accept\n> text go\n> wait 20s\n< close 1000\n"
    found = failure(server, "waiting", text)
    if is_seen:
        assert found is None
    else:
        assert found is not None
        assert "`> wait 20s`" in found or "timed out" in found


def test_an_exception_after_the_close_is_a_failure(server: UvicornProcess) -> None:
    found = failure(server, "late", "> connect /\n< accept\n< close 1000\n") or ""
    assert 'File "late.py", line 6, in app' in found
    assert "LookupError: too late" in found


def test_an_app_that_cannot_be_loaded_is_a_failure(server: UvicornProcess) -> None:
    found = failure(server, "broken", "> connect /\n< accept\n> close\n") or ""
    assert "ModuleNotFoundError: No module named 'does_not_exist'" in found


@pytest.mark.parametrize(
    ("name", "text", "waiting", "place"),
    [
        (
            "hang",
            "> connect /\n< accept\n> text x\n< text x\n",
            "4: *waiting for `< text x`",
            "hang.py:6, `await receive()`",
        ),
        (
            "hang",
            "> connect /\n< accept\n> close\n",
            "3: *the handler to end",
            "hang.py:6, `await receive()`",
        ),
        (
            "block",
            "> connect /\n< accept\n> text x\n< text y\n",
            "4: *waiting for `< text y`",
            "block.py:8, `time.sleep(60)`",
        ),
        (
            "silent",
            "> connect /\n< accept\n> close\n",
            "1: *waiting for `< accept`",
            "silent.py:6, `await anyio.sleep_for",
        ),
    ],
)
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS[:1])
def test_a_hang_is_a_time_out_that_says_where(
    root: Path,
    implementation: str,
    name: str,
    text: str,
    waiting: str,
    place: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = UvicornProcess(implementation, root)
    # Half a minute is for a busy machine; a loop that is blocked is blocked for a minute.
    monkeypatch.setattr(_wire, "START_LIMIT", 5.0)
    try:
        found = failure(server, name, text, limit=0.5) or ""
    finally:
        server.stop()
    line, _, doing = waiting.partition("*")
    assert found.startswith(f"{name}.ws:{line}timed out after 0.5 s")
    assert doing in found
    assert f"the handler was waiting in {place}" in found
    assert server.process.exitcode is not None


def test_a_server_that_does_not_start_shows_its_own_output(root: Path) -> None:
    with pytest.raises(ServerError) as caught:
        UvicornProcess("carrier-pigeon", root)
    assert "uvicorn with --ws carrier-pigeon is not running (exit status 1); its output:\n" in str(
        caught.value
    )
    assert "carrier-pigeon" in str(caught.value).split("its output:")[1]


def test_a_server_that_dies_is_a_failure_with_its_output(root: Path) -> None:
    server = UvicornProcess("wsproto", root)
    try:
        os.kill(server.process.pid, signal.SIGKILL)
        assert "is not running (exit status -9)" in (failure(server, "bye", "> connect /\n< accept\n") or "")
    finally:
        server.stop()


def children_of(process: int) -> list[int]:
    """Whichever of its threads has started them."""
    threads = Path(f"/proc/{process}/task").glob("*/children")
    return [int(pid) for children in threads for pid in children.read_text().split()]


def test_a_process_that_replays(root: Path) -> None:
    replayer = Replayer("wsproto", root)
    try:
        for text, problem in (
            ("> connect /\n< accept\n< text 1\n< close 1000\n", None),
            ("> connect /\n< accept\n< text 2\n< close 1000\n", "+< text 1\n"),
        ):
            script = transcript.parse(text, "counter.ws")
            outcome = replayer.replay(script, root / "counter.py", limit=5, disconnect="error")
            found = verdict(script, outcome, "uvicorn-wsproto")
            assert (problem in (found or "")) if problem else found is None
    finally:
        replayer.stop()
    assert replayer.process.exitcode == 0


def test_what_the_gate_opens_while_an_app_runs_is_not_the_apps(root: Path) -> None:
    remains = Remains()
    replayer = Replayer("wsproto", root)
    try:
        assert remains.problems() == []
        remains = Remains()
        with socket.socket():
            (problem,) = remains.problems()
        assert problem.startswith("the app left open: socket:")
    finally:
        replayer.stop()


def test_a_process_that_replays_ends_with_a_handler_that_hangs(root: Path) -> None:
    replayer = Replayer("wsproto", root)
    try:
        script = transcript.parse("> connect /\n< accept\n> text x\n< text x\n", "hang.ws")
        outcome = replayer.replay(script, root / "hang.py", limit=0.5, disconnect="error")
        assert outcome.broken_off
        replayer.process.join(10)
        assert replayer.process.exitcode == 0
        with pytest.raises(ServerError, match="has ended"):
            replayer.replay(script, root / "hang.py", limit=0.5, disconnect="error")
    finally:
        replayer.stop()


def test_a_process_whose_server_does_not_start_says_so(root: Path) -> None:
    replayer = Replayer("carrier-pigeon", root)
    script = transcript.parse("> connect /\n< accept\n> close\n", "echo.ws")
    with pytest.raises(ServerError, match="uvicorn with --ws carrier-pigeon is not running"):
        replayer.replay(script, root / "echo.py", limit=5, disconnect="error")
    replayer.stop()


PARENT = """
import signal
import sys
from pathlib import Path
from ws_doctest._wire import UvicornProcess

# What a shell starts in the background ignores it, and so would all that this run starts.
signal.signal(signal.SIGINT, signal.default_int_handler)
server = UvicornProcess("wsproto", Path(sys.argv[1]))
print(server.process.pid, flush=True)
sys.stdin.read()
"""

# Its child is the process that replays, and the child's child is the server.
REPLAYING = """
import signal
import sys
from pathlib import Path
from ws_doctest import transcript
from ws_doctest._wire import Replayer
from tests.ws_doctest.test_wire import children_of

signal.signal(signal.SIGINT, signal.default_int_handler)
replayer = Replayer("wsproto", Path(sys.argv[1]))
script = transcript.parse("> connect /\\n< accept\\n< text 1\\n< close 1000\\n")
outcome = replayer.replay(script, Path(sys.argv[1]) / "counter.py", limit=30, disconnect="error")
assert outcome.problem is None, outcome.problem
print(*children_of(replayer.process.pid), flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("program", [PARENT, REPLAYING], ids=["server", "replayer"])
def test_no_server_outlives_the_process_that_started_it(
    root: Path, program: str, end: signal.Signals
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", program, str(root)],
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.send_signal(end)
        parent.wait(10)
    # The server is not our child; what can be waited for is that its process is gone.
    for _ in range(500):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        if _is_zombie(pid):  # ended; whoever inherited it has not collected it yet
            return
        subprocess.run(["sleep", "0.01"], check=True)
    pytest.fail(f"the server {pid} still runs")


def _is_zombie(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] == "Z"

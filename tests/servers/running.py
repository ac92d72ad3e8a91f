"""The servers: how each is started, asked and ended. A process for each, in a session of its own."""

from __future__ import annotations

import importlib.metadata
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from .client import LIMIT, Client

FOLDER = Path(__file__).parent
ROOT = FOLDER.parents[1]
MOST = 2**20  # bytes in a message, where the server can be told
STOP = 2  # seconds that a server gives its handlers to end, where it can be told
LEFT = 5  # seconds that daphne gives one whose client has left: more than one that only sends goes on for

OURS = "lilya.websockets.uvicorn"


class Kind(NamedTuple):
    """A server as a column of the table."""

    name: str
    command: str
    """What follows `python -m`; the port and the notes' folder are put in."""
    distributions: tuple[str, ...]
    """Whose versions count."""
    modules: tuple[str, ...]
    """Without which there is no such column."""

    @property
    def is_there(self) -> bool:
        return all(_found(module) for module in self.modules)

    @property
    def versions(self) -> dict[str, str]:
        return {name: importlib.metadata.version(name) for name in self.distributions}


def _found(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def _uvicorn(name: str, ws: str, library: str, *modules: str) -> Kind:
    command = (
        f"uvicorn handlers:app --port {{port}} --ws {ws} --ws-max-size {MOST} --no-access-log "
        f"--log-level critical --timeout-graceful-shutdown {STOP}"
    )
    return Kind(name, command, ("uvicorn", *([library] if library else [])), ("uvicorn", *modules))


KINDS = {
    kind.name: kind
    for kind in (
        _uvicorn("uvicorn", "websockets-sansio", "websockets", "websockets"),
        _uvicorn("uvicorn wsproto", "wsproto", "wsproto", "wsproto"),
        _uvicorn("uvicorn websockets", "websockets", "websockets", "websockets"),
        _uvicorn(OURS, f"{OURS}:WebSocketProtocol", "", OURS),
        Kind(
            "hypercorn",
            "hypercorn handlers:app --bind 127.0.0.1:{port} --config {folder}/hypercorn.toml",
            ("hypercorn", "wsproto"),
            ("hypercorn",),
        ),
        Kind(
            "granian",
            "granian handlers:app --port {port} --interface asgi --ws --workers 1 --loop asyncio "
            f"--no-access-log --log-level critical --workers-kill-timeout {STOP}",
            ("granian",),
            ("granian",),
        ),
        Kind(
            "daphne",
            f"daphne handlers:app --port {{port}} --verbosity 0 --websocket-max-message-size {MOST} "
            f"--websocket-max-frame-size {MOST} --application-close-timeout {LEFT}",
            ("daphne", "twisted", "autobahn"),
            ("daphne",),
        ),
    )
}
REQUIRED = [name for name in KINDS if name != OURS]


class Notes:
    """What handlers say, by the test's number."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.kept: list[dict[str, Any]] = []

    def wait_for(self, number: str, *events: str, limit: float | None = None) -> dict[str, Any]:
        """The first of some events that comes.

        Raises:
            TimeoutError: It does not come; what came instead is told.
        """
        deadline = time.monotonic() + (LIMIT if limit is None else limit)
        while True:
            for note in self.kept:
                if note["number"] == number and note["event"] in events:
                    self.kept.remove(note)
                    return note
            self.socket.settimeout(max(deadline - time.monotonic(), 0.001))
            try:
                self.kept.append(json.loads(self.socket.recv(65536)))
            except TimeoutError:
                came = [note for note in self.kept if note["number"] == number]
                raise TimeoutError(f"no {' or '.join(events)} of {number}, but {came}") from None

    def of(self, number: str) -> list[dict[str, Any]]:
        """What came of a handler, and was not waited for."""
        found = [note for note in self.kept if note["number"] == number]
        self.kept = [note for note in self.kept if note["number"] != number]
        return found

    def put_back(self, note: dict[str, Any]) -> None:
        self.kept.append(note)

    def say(self, number: str, event: str) -> None:
        """Note what the test itself has found out."""
        self.kept.append({"number": number, "event": event})


class Server:
    """A running server."""

    numbers = itertools.count()

    def __init__(self, kind: Kind, process: subprocess.Popen[bytes], port: int, notes: Notes) -> None:
        self.kind = kind
        self.process = process
        self.port = port
        self.notes = notes

    def number(self) -> str:
        return str(next(self.numbers))

    def connect(self, path: str, number: str, offer: str = "") -> Client:
        return Client(self.port, f"/{path}?number={number}", offer)

    def release(self, number: str) -> None:
        """Let a handler go that waits for it."""
        with self.connect("release/now", number) as client:
            client.response()

    def terminate(self) -> None:
        os.kill(self.process.pid, signal.SIGTERM)


@contextmanager
def running(kind: Kind) -> Iterator[Server]:
    """A server that answers; it and what it has started are gone when the block is left."""
    folder = Path(tempfile.mkdtemp(prefix="servers-"))  # short, as the path of a Unix socket must be
    notes = Notes(folder / "notes")
    (folder / "hypercorn.toml").write_text(
        f"websocket_max_message_size = {MOST}\ngraceful_timeout = {STOP}\nshutdown_timeout = {STOP}\n"
        "loglevel = 'CRITICAL'\n"
    )
    # What measures coverage here has no business there.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    environment.update(LILYA_SERVERS_NOTES=str(folder / "notes"), PYTHONDONTWRITEBYTECODE="1")
    try:
        for _ in range(3):  # the port may be taken by somebody else in between
            with socket.create_server(("127.0.0.1", 0)) as listener:
                port = listener.getsockname()[1]
            arguments = kind.command.format(port=port, folder=folder).split()
            log = (folder / "log").open("wb")
            process = subprocess.Popen(
                [sys.executable, "-W", "ignore", "-m", *arguments],
                cwd=FOLDER,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
            log.close()
            try:
                server = Server(kind, process, port, notes)
                if _answers(server):
                    yield server
                    return
            finally:
                _end(process)
        raise RuntimeError(
            f"{kind.name} did not start: {' '.join(arguments)}\n{(folder / 'log').read_text()}"
        )
    finally:
        notes.socket.close()
        shutil.rmtree(folder, ignore_errors=True)


def _answers(server: Server) -> bool:
    """Wait until the server runs our handlers; false if its process has ended."""
    deadline = time.monotonic() + LIMIT
    while server.process.poll() is None and time.monotonic() < deadline:
        number = server.number()
        try:
            with server.connect("accepting/refuse", number) as client:
                client.response()
            server.notes.wait_for(number, "ended")
        except (ConnectionError, TimeoutError):
            time.sleep(0.02)
        else:
            return True
    return False


def _end(process: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait(LIMIT)

"""Who is measured beside us, how each is started, and how it is ended."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from ._client import Crowd

__all__ = [
    "ADAPTED",
    "DEFAULT",
    "HTTP",
    "LEVEL_6",
    "NODE",
    "OURS",
    "PEERS",
    "TYPED",
    "Peer",
    "Server",
    "running",
    "uvicorn",
]

ROOT = Path(__file__).parent.parent
LIMIT = 60.0  # seconds for a server to start, or to end
DEFAULT, OURS = "uvicorn", "lilya.websockets.uvicorn"
ADAPTED = ("FastAPI", "Starlette", "Litestar", "Quart")  # frameworks that can have our class for their own
LEVEL_6, HTTP = f"{OURS} at level 6", f"{OURS} with HTTPProtocol"

# Made by `nox -s bench`. In the folder are Lilya and over it our package, as a user has them; before the
# environment's own packages on the path, they take the place of upstream's Lilya there.
OVERLAY = Path(sys.prefix) / "ours"
NODE = Path(sys.prefix) / "node" / "node_modules"


class Peer(NamedTuple):
    """A server with an app to measure."""

    name: str
    command: tuple[str, ...]
    """What starts it; the port is added."""
    needs: tuple[str, ...]
    """The modules without which there is no such peer."""
    ours: bool = False
    """Whether our package takes part."""
    deflate: bool = True
    """Whether the server can compress."""

    @property
    def environment(self) -> dict[str, str]:
        environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "NODE_PATH": str(NODE)}
        environment.pop("PYTHONPATH", None)
        if self.ours and OVERLAY.exists():
            environment["PYTHONPATH"] = str(OVERLAY)
        return environment

    def missing(self) -> str:
        """Why it cannot be measured here; empty if it can."""
        program = self.command[0]
        if shutil.which(program) is None:
            return f"{program} is not installed"
        if program != sys.executable:
            absent = [name for name in self.needs if not (NODE / name).exists()]
        else:
            # Asked in the environment that the server will have.
            asked = subprocess.run(
                [sys.executable, "-c", _ASK, *self.needs],
                env=self.environment,
                capture_output=True,
                text=True,
                check=True,
                timeout=LIMIT,
            )
            absent = asked.stdout.split()
        return f"{absent[0]} is not installed" if absent else ""


_ASK = """
import sys
from importlib.util import find_spec

def missing(name):
    try:
        return find_spec(name) is None
    except ModuleNotFoundError:
        return True

print(*filter(missing, sys.argv[1:]))
"""


def uvicorn(
    name: str,
    protocol: str,
    app: str = "raw",
    *needs: str,
    ours: bool = False,
    loop: str = "auto",
    http: str = "auto",
) -> Peer:
    module = app if ":" in app else f"benchmarks.servers.{app}:app"
    arguments = ("-W", "ignore", "-m", "uvicorn", module, "--ws", protocol, "--loop", loop, "--http", http)
    # No pings: the client counts bytes, and opening 10,000 connections may take longer than the interval.
    quiet = [
        "--no-access-log",
        "--log-level",
        "error",
        "--backlog",
        "4096",
        "--ws-ping-interval",
        "3600",
        "--port",
    ]
    return Peer(name, (sys.executable, *arguments, *quiet), ("uvicorn", *needs), ours)


def native(name: str, module: str, *, deflate: bool = True) -> Peer:
    return Peer(name, (sys.executable, "-m", f"benchmarks.servers.{module}"), (module,), deflate=deflate)


def _servers() -> Iterator[Peer]:
    yield uvicorn(DEFAULT, "websockets-sansio")
    yield uvicorn(OURS, "lilya.websockets.uvicorn:WebSocketProtocol", "raw", OURS, ours=True)
    yield uvicorn(LEVEL_6, "benchmarks.servers.level6:Protocol", "raw", OURS, ours=True)
    yield uvicorn(
        HTTP,
        "lilya.websockets.uvicorn:WebSocketProtocol",
        "raw",
        OURS,
        ours=True,
        http="lilya.websockets.uvicorn:HTTPProtocol",
    )
    yield uvicorn("uvicorn --ws websockets", "websockets")
    yield uvicorn("uvicorn --ws wsproto", "wsproto", "raw", "wsproto")
    options = "--interface asgi --ws --workers 1 --backlog 4096 --no-access-log --log-level error --port"
    yield Peer(
        "granian",
        (sys.executable, "-m", "granian", "benchmarks.servers.raw:app", *options.split()),
        ("granian",),
        deflate=False,
    )
    options = "--workers 1 --backlog 4096 --worker-class uvloop --log-level error --bind"
    yield Peer(
        "hypercorn",
        (sys.executable, "-m", "hypercorn", "benchmarks.servers.raw:app", *options.split()),
        ("hypercorn",),
    )
    yield native("aiohttp", "aiohttp")
    yield native("websockets", "websockets")
    yield native("picows", "picows", deflate=False)
    yield Peer("ws (Node.js)", ("node", "benchmarks/servers/ws.js"), ("ws", "bufferutil"))


def _wrappers() -> Iterator[Peer]:
    for server, protocol in ((DEFAULT, "websockets-sansio"), (OURS, f"{OURS}:WebSocketProtocol")):
        ours = server == OURS
        for title, app in (
            ("lilya.websockets", "ours"),
            ("lilya.websockets (async with)", "block"),
            ("Starlette", "starlette"),
            ("FastAPI", "fastapi"),
            ("Litestar", "litestar"),
            ("Lilya", "lilya"),
            ("Quart", "quart"),
            *((f"{name} with lilya.websockets", f"{name.lower()}_ours") for name in ADAPTED),
        ):
            needs = {"ours": "lilya.websockets.types", "block": "lilya.websockets._conversation"}.get(
                app, app.removesuffix("_ours")
            )
            yield uvicorn(
                f"{title} on {server}",
                protocol,
                app,
                *((needs, OURS) if ours else (needs,)),
                ours=ours or app.endswith(("ours", "block")),
            )


def _typed() -> Iterator[Peer]:
    for name, app, *needs in (
        ("typed: FastAPI by hand", "typed_fastapi", "fastapi", "pydantic"),
        ("typed: ours with pydantic", "typed_pydantic", "fastapi", "pydantic", "lilya.websockets.typed"),
        ("typed: ours with msgspec", "typed_msgspec", "msgspec", "lilya.websockets.typed"),
        ("typed: Litestar's listener", "typed_litestar", "litestar", "msgspec"),
        ("typed: Chanx", "typed_chanx", "fastapi", "chanx", "fast_channels"),
    ):
        yield uvicorn(name, "websockets-sansio", app, *needs, ours="ours" in name)


TYPED = [peer.name for peer in _typed()]
PEERS = {peer.name: peer for peer in (*_servers(), *_wrappers(), *_typed())}


class Server:
    """A running peer.

    Args:
        peer: Which.
        core: On which it runs, with all its threads and processes.
    """

    def __init__(self, peer: Peer, core: int) -> None:
        self.peer = peer
        self.core = core
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        address = f"127.0.0.1:{self.port}" if peer.command[-1] == "--bind" else str(self.port)
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  # closed with the server
        affinity = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {core})  # is inherited
        try:
            self._process = self._start([*peer.command, address])
        finally:
            os.sched_setaffinity(0, affinity)
        self.pid = self._process.pid

    def _start(self, command: list[str]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command,
            cwd=ROOT,
            env=self.peer.environment,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def wait(self) -> None:
        """Wait until it answers.

        Raises:
            RuntimeError: It has ended, or does not answer in time.
            OSError: It answers with something else than was asked for.
        """
        deadline = time.monotonic() + LIMIT
        while True:
            try:
                Crowd(self.port).close()
                return
            except ConnectionRefusedError as error:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError("it did not start") from error
            time.sleep(0.05)

    def printed(self) -> str:
        """What it has printed."""
        self._log.seek(0)
        return self._log.read().decode(errors="replace")

    def said(self) -> str:
        """The end of it."""
        return self.printed()[-4000:]

    def stop(self) -> None:
        """End it and everything that it has started."""
        try:
            self._process.terminate()
            try:
                self._process.wait(2)
            except subprocess.TimeoutExpired:
                pass
            try:
                os.killpg(self.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            self._process.wait(LIMIT)
        finally:
            self._log.close()


@contextmanager
def running(peers: Iterable[Peer], core: int, failed: dict[str, str]) -> Iterator[dict[str, Server]]:
    """Servers that answer, by name of the peer; ended in the end. Why others do not is put into `failed`."""
    with ExitStack() as stack:
        started = []
        for peer in peers:
            started.append(Server(peer, core))
            stack.callback(started[-1].stop)
        servers = {}
        for server in started:
            try:
                server.wait()
            except (OSError, RuntimeError) as error:
                failed[server.peer.name] = f"{error} {server.said()}".strip()
            else:
                servers[server.peer.name] = server
        yield servers

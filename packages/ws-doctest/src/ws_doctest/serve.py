"""The built site and every example of it live, on one port, from one uvicorn process.

An example is served at an address derived from its place: docs_src/websockets/example.py is at
/live/websockets/example and below. It sees a mount, as the ASGI specification describes it:
``root_path`` is the address, ``path`` the whole path, which begins with it. It is started up at its
first use, and shut down at the end of the process. What it answers over HTTP is served, too; one that
is for WebSockets only has a page that says how to talk to it. /live/ lists them all.

Other web pages that are open in the same browser cannot use it: requests with a foreign ``Host`` or
``Origin`` are refused.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import logging
import socket
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.staticfiles import StaticFiles

from ws_doctest import _apps, transcript
from ws_doctest._asgi import ASGIApp, Lifespan, Message, Receive, Scope, Send

__all__ = ["ServeError", "Site", "find_examples", "serve"]


LIVE = "/live"
LIMIT = 3.0  # seconds for the startup of an example, and for its shutdown

_log = logging.getLogger("uvicorn.error")


class ServeError(Exception):
    """Nothing can be served; the message is one line."""


class _Unavailable(Exception):
    """An example cannot run here; the message says which and why."""


class _NoHTTP(Exception):
    """An app answers a request with something that is no HTTP."""


class _Example:
    """An example that runs."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.state: dict[str, Any] = {}
        self.leaving = asyncio.Event()
        self.started: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.task = asyncio.create_task(self.live())

    async def live(self) -> None:
        """Be there from startup to shutdown."""
        lifespan = Lifespan(self.app, LIMIT)
        try:
            started = await lifespan.start()
        except Exception as exc:
            self.started.set_exception(exc)
            return
        self.state = lifespan.state
        self.started.set_result(None)
        if started:
            await self.leaving.wait()
            await lifespan.stop(None)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request or connection."""
        await self.app({**scope, "state": dict(self.state)}, receive, send)


class Guard:
    """An app around an app: refuses what other web pages make a browser send.

    Any page on the web may connect to a server on the reader's machine. Its requests carry its own
    ``Origin``. With DNS rebinding, the name that the page was loaded from points to this machine later; then
    that name is the ``Host``. An IP address as ``Host`` is safe: no DNS is involved.

    Args:
        app: the app to protect.
        host: the name or address that the server was told to bind to, which is allowed as well.
    """

    def __init__(self, app: ASGIApp, host: str) -> None:
        self.app = app
        self.host = host.lower()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request or connection, or refuse it."""
        why = self.refusal(scope)
        if not why:
            await self.app(scope, receive, send)
            return
        _log.warning("Refused: %s", why)
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close"})
        else:
            await _answer(send, 403, f"{why}\n")

    def refusal(self, scope: Scope) -> str:
        """Return why a request is refused; empty if it is not."""
        hosts, origins = (
            [value.decode("latin-1").lower() for name, value in scope["headers"] if name == wanted]
            for wanted in (b"host", b"origin")
        )
        if len(hosts) != 1 or not self._is_here(_without_port(hosts[0])):
            return (
                f"the Host of the request is {', '.join(hosts)[:100]!r}. Use an IP address, localhost, or "
                "the name that was given with --host"
            )
        if origins not in ([], [f"http://{hosts[0]}"]):
            return f"the request comes from a page of {', '.join(origins)[:100]!r}, and not of this server"
        return ""

    def _is_here(self, name: str) -> bool:
        if name in ("localhost", self.host) or name.endswith(".localhost"):
            return True
        try:
            ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
        except ValueError:
            return False
        return True


def _without_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdecimal() and not name.endswith(":") else host


class Site:
    """The ASGI app: pages, and live examples."""

    def __init__(self, site: Path, examples: dict[str, Path], root: Path) -> None:
        # StaticFiles raises what is missing; the middleware makes a 404 of it.
        self.pages = ExceptionMiddleware(StaticFiles(directory=site, html=True))
        self.examples = examples
        self.root = root
        self.loaded: dict[str, ASGIApp] = {}
        self.running: dict[str, _Example] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request or connection."""
        path: str = scope["path"]
        address = next((a for a in self.examples if path == a or path.startswith(a + "/")), None)
        if scope["type"] == "websocket":
            try:
                if address is not None:
                    example = await self.example(address)
                    await example(_mounted(scope, address), receive, send)
                    return
                known = ", ".join(self.examples) or "none"
                _log.warning("No example is live at %r; the live addresses are: %s", path, known)
            except _Unavailable as exc:
                _log.warning("Not live: %s", exc)
            await receive()
            await send({"type": "websocket.close"})
        elif address is not None:
            await self.page(address, scope, receive, send)
        elif path in (LIVE, LIVE + "/"):
            await _answer(send, 200, self.listing(scope))
        elif path.startswith(LIVE + "/"):
            await _answer(send, 404, f"No example is live at {path}. {self.listing(scope)}")
        else:
            await self.pages(scope, receive, send)

    def load(self, address: str) -> ASGIApp:
        """Return the app at an address, loaded once that succeeds."""
        if address not in self.loaded:
            try:
                self.loaded[address] = _apps.load_app(self.root, self.examples[address])
            except ModuleNotFoundError as exc:
                raise _Unavailable(f"{address} needs {exc.name}, which is not installed here") from None
            except Exception as exc:  # while an example is being written, the others can be served
                raise _Unavailable(f"{address} cannot be loaded: {type(exc).__name__}: {exc}") from None
        return self.loaded[address]

    async def example(self, address: str) -> _Example:
        """Return the example at an address, started up at its first use."""
        if address not in self.running:
            self.running[address] = _Example(self.load(address))
        example = self.running[address]
        try:
            await asyncio.shield(example.started)  # others may wait for it, too
        except Exception as exc:
            self.running.pop(address, None)  # the next one tries again
            why = _apps.describe_lifespan_error(exc, self.root)
            raise _Unavailable(f"{address} does not start up: {why}") from None
        return example

    async def page(self, address: str, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request with what the example answers, or else with how to talk to it."""
        begun = False

        async def answer(message: Message) -> None:
            nonlocal begun
            if not message["type"].startswith("http."):
                raise _NoHTTP(f"it sent {message['type']!r}")
            begun = True
            await send(message)

        problem: Exception | None = None
        try:
            example = await self.example(address)
            await example(_mounted(scope, address), receive, answer)
        except Exception as exc:
            if begun:
                raise
            problem = exc
        if not begun:
            _log.info("The example at %s answers no request over HTTP: %r", address, problem)
            await _answer(send, 200, self.help(address, scope))

    async def close(self) -> None:
        """Shut every example down."""
        for example in self.running.values():
            example.leaving.set()
        ends = await asyncio.gather(
            *(example.task for example in self.running.values()), return_exceptions=True
        )
        for address, end in zip(self.running, ends, strict=True):
            if end is not None:
                why = _apps.describe_lifespan_error(end, self.root)
                _log.warning("The example at %s does not shut down: %s", address, why)

    def count(self) -> str:
        """Return how many examples are live, and how many cannot be."""
        missing = 0
        for address in self.examples:
            try:
                self.load(address)
            except _Unavailable:
                missing += 1
        live = f"{len(self.examples) - missing} live"
        return f"{live}, {missing} cannot run here" if missing else live

    def listing(self, scope: Scope) -> str:
        """Return the examples: what to connect to, and what cannot be live here."""
        lines = ["The live examples:"]
        problems = []
        for address, file in self.examples.items():
            try:
                self.load(address)
                lines.append(f"    ws://{_host_of(scope)}{address}{_paths_of(file)[0]}")
            except _Unavailable as exc:
                problems.append(f"    {exc}")
        if problems:
            lines += ["Not live:", *problems]
        return "\n".join(lines) + "\n"

    def help(self, address: str, scope: Scope) -> str:
        """Return what a browser sees that opens a live address as a page."""
        file = self.examples[address]
        host = _host_of(scope)
        talk = [f"    {_apps.client_command(f'ws://{host}{address}{path}')}\n" for path in _paths_of(file)]
        return (
            f"This is a WebSocket: {file.relative_to(self.root).as_posix()}, live.\n\n"
            f"Talk to it:\n{''.join(talk)}\n"
            f"Run it alone:\n    uvicorn {_apps.module_name(self.root, file)}:app\n"
        )


def _host_of(scope: Scope) -> str:
    host: bytes = dict(scope["headers"]).get(b"host", b"127.0.0.1:8000")
    return host.decode("latin-1")


def find_examples(folder: Path) -> dict[str, Path]:
    """Return the live address of each app in a folder of examples."""
    found = {}
    for path in sorted(folder.rglob("*.py")):
        if _apps.has_app(path):
            found[f"{LIVE}/{path.relative_to(folder).with_suffix('').as_posix()}"] = path
    return found


def _paths_of(example: Path) -> list[str]:
    """Return the paths that the clients of an example's transcript connect to, below its live address."""
    for file in _apps.transcripts_of(example):
        try:
            paths = transcript.parse(file.read_text(encoding="utf-8"), file.name).paths
        except transcript.TranscriptError:
            break  # the gate says so; the address itself can be served
        return ["" if path == "/" else path for path in paths]
    return [""]


def _mounted(scope: Scope, address: str) -> Scope:
    """Return the scope of an example that is mounted at an address."""
    mounted = {**scope, "root_path": address}
    if scope["path"] == address:
        # Alone the example is at "/". A router with that route knows no empty path.
        mounted["path"] += "/"
        if mounted.get("raw_path") is not None:
            mounted["raw_path"] += b"/"
    return mounted


async def _answer(send: Send, status: int, text: str) -> None:
    body = text.encode()
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class _Server(uvicorn.Server):
    """Ends at the first Ctrl-C, open connections or not: nobody waits for a reader's browser."""

    def __init__(self, config: uvicorn.Config, site: Site) -> None:
        super().__init__(config)
        self.site = site

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close the connections, then shut the examples down."""
        await super().shutdown(sockets)
        await self.site.close()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.should_exit = self.force_exit = True


def serve(site: Path, examples: Path, *, host: str = "127.0.0.1", port: int = 8000) -> None:
    """Serve until interrupted.

    Args:
        site: the folder of the built site.
        examples: the folder of the examples; its parent is where they are imported from.
        host: the address to bind to.
        port: the port; 0 chooses a free one.

    Raises:
        ServeError: a folder is missing, or the address cannot be bound.
    """
    if not (site / "index.html").is_file():
        raise ServeError(f"there is no built site in {site}: index.html is missing")
    if not examples.is_dir():
        raise ServeError(f"there is no folder of examples {examples}")
    examples = examples.resolve()
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    if sys.platform != "win32":  # there it would let two servers share the port
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    with listener:
        try:
            listener.bind((host, port))
            listener.listen(2048)  # before the address is printed: whoever reads it can connect
        except OSError as exc:
            reason = "the port is in use" if exc.errno == errno.EADDRINUSE else exc.strerror or exc
            raise ServeError(f"cannot serve on {host}:{port}: {reason}") from exc
        except OverflowError as exc:
            raise ServeError(f"cannot serve on {host}:{port}: a port is 0 to 65535") from exc
        app = Site(site, find_examples(examples), examples.parent)
        config = uvicorn.Config(Guard(app, host), log_level="info", access_log=False, lifespan="off")
        shown = f"[{host}]" if ":" in host else host
        address = f"http://{shown}:{listener.getsockname()[1]}"
        print(f"The docs:      {address}/")  # noqa: T201 - this is what the command is for
        print(f"The examples:  {address}{LIVE}/  ({app.count()})", flush=True)  # noqa: T201 - the same
        _Server(config, app).run(sockets=[listener])

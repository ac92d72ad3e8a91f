"""uvicorn in a thread, with an app of a framework: what a client sees, and what the log says."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

LIMIT = 30.0
"""Seconds for everything that is waited for."""

SERVERS = ["websockets-sansio", "lilya.websockets.uvicorn:WebSocketProtocol"]
"""uvicorn's default where `websockets` is installed, and this package's protocol."""


class Log(logging.Handler):
    """Everything that is logged as a warning or worse."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        self.lines.append(f"{record.getMessage().strip()} {type(error).__name__ if error else ''}".strip())


class Running:
    """A server that runs."""

    def __init__(self, server: uvicorn.Server, port: int, log: Log) -> None:
        self.server = server
        self.port = port
        self.log = log

    def connect(self, path: str, **options: Any) -> ClientConnection:
        address = f"ws://127.0.0.1:{self.port}{path}"
        client: ClientConnection = connect(address, proxy=None, open_timeout=LIMIT, **options)
        return client

    def end_of(self, path: str, *said: str, **options: Any) -> list[Any]:
        """What a client sees that says something and reads to the end: texts, and the close or the status."""
        try:
            with self.connect(path, **options) as client:
                seen: list[Any] = []
                for text in said:
                    client.send(text)
                try:
                    while True:
                        seen.append(client.recv(timeout=LIMIT))
                except ConnectionClosed as closed:
                    end = closed.rcvd
                    return [*seen, (end.code, end.reason) if end else (1006, "")]
        except InvalidStatus as refused:
            return [refused.response.status_code]

    def settle(self) -> None:
        """Wait until no connection and no task of an app is left."""
        eventually(lambda: not self.server.server_state.tasks and not self.server.server_state.connections)


def eventually(condition: Callable[[], Any]) -> None:
    """Wait until something is true."""
    until = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


@contextmanager
def running(app: Any, ws: str = SERVERS[1], lifespan: str = "auto") -> Iterator[Running]:
    """uvicorn on a free port; it has ended when the block is left, and the app has shut down."""
    log = Log()
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        # As they are before uvicorn configures them, which another test in this process may have it do.
        logger = logging.getLogger(name)
        logger.propagate = True
        logger.handlers.clear()
    logging.getLogger().addHandler(log)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(app, ws=ws, lifespan=lifespan, log_config=None, log_level="info")  # type: ignore[arg-type]
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            eventually(lambda: server.started or not thread.is_alive())
            assert server.started, log.lines
            yield Running(server, listener.getsockname()[1], log)
        finally:
            server.should_exit = True
            thread.join(LIMIT)
            logging.getLogger().removeHandler(log)
    assert not thread.is_alive()

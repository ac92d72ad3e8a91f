"""Clients of one app, its lifespan around any number of sessions: in the test's event loop, or in a thread.

The client for tests without an event loop is the other one, in a thread with its own event loop. Each call of
it runs a method of the session there.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from types import EllipsisType, TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from .._messages import checked_headers
from ..datastructures import Header
from ..types import AnyASGIApp, Message, Scope
from ._connection import Headers, websocket_scope
from ._errors import WebSocketTimeout
from ._lifespan import Lifespan
from ._loop import LoopThread
from ._session import TIMEOUT, Opened, Timeout, WebSocketSession

if TYPE_CHECKING:
    from .._websocket import WebSocket
    from ._messages import MessageTestSession

__all__ = ["AsyncTestClient", "TestClient", "WebSocketTestSession"]

T = TypeVar("T")
S = TypeVar("S")
R = TypeVar("R")

Params = Mapping[str, Any] | Sequence[tuple[str, Any]]


class AsyncTestClient:
    """A client of an app in the event loop of the test, on asyncio or trio.

        async with AsyncTestClient(app) as client:
            async with client.websocket_connect("/chat") as session:
                await session.send_text("hello")

    As a context manager, it runs the app's lifespan, if the app has one, and its sessions get the state.

    Args:
        app: Any ASGI app.
        base_url: Scheme and host where the URL of a session has none.
        headers: Headers of every request, pairs or a mapping of `bytes` or `str`.
        cookies: Cookies of every request.
        client: The client's address, host and port.
        root_path: Where the app is mounted.
        timeout: Seconds for each wait; `None` for no limit.

    Raises:
        LifespanError: On entering or leaving, the app said that its startup or its shutdown failed.
        WebSocketTimeout: On entering or leaving, the app did not start up or shut down in time.
    """

    __test__ = False  # pytest collects classes of such names

    def __init__(
        self,
        app: AnyASGIApp,
        base_url: str = "ws://testserver",
        *,
        headers: Headers | None = None,
        cookies: Mapping[str, str] | None = None,
        client: tuple[str, int] = ("testclient", 50000),
        root_path: str = "",
        timeout: float | None = TIMEOUT,
    ) -> None:
        self.app = app
        self.base_url = base_url
        self.headers = checked_headers(headers or (), of_handshake=False)
        self.cookies = dict(cookies or {})
        self.client = client
        self.root_path = root_path
        self.timeout = timeout
        self._lifespan: Lifespan | None = None

    def websocket_connect(
        self,
        url: str = "/",
        subprotocols: Sequence[str] | None = None,
        *,
        headers: Headers | None = None,
        cookies: Mapping[str, str] | None = None,
        params: Params | None = None,
        extensions: Mapping[str, Any] | None = None,
        spec_version: str = "2.4",
        scope: Mapping[str, Any] | None = None,
        timeout: Timeout = ...,
    ) -> AbstractAsyncContextManager[WebSocketSession]:
        """Connect; the arguments are those of `connect`.

        Args:
            url: A path with or without a query, or a URL.
            subprotocols: What the client offers, in its order.
            headers: Headers of this request, instead of the client's where the names are the same.
            cookies: Cookies of this request, added to the client's.
            params: Query parameters, added to those of the URL.
            extensions: The extensions of the server. Default: the denial response.
            spec_version: Of the ASGI spec.
            scope: Keys of the scope that count before all others.
            timeout: Seconds for each wait; `None` for no limit. Default:
                the client's.

        Returns:
            An asynchronous context manager of a `WebSocketSession`.
        """
        own = checked_headers(headers or (), of_handshake=False)
        names = {name for name, _ in own}
        made = websocket_scope(
            url,
            subprotocols=subprotocols,
            headers=[pair for pair in self.headers if pair[0] not in names] + own,
            cookies={**self.cookies, **(cookies or {})},
            params=params,
            base_url=self.base_url,
            root_path=self.root_path,
            client=self.client,
            state=self._lifespan.state if self._lifespan else None,
            extensions=extensions,
            spec_version=spec_version,
            scope=scope,
        )
        return Opened(self.app, made, self.timeout if isinstance(timeout, EllipsisType) else timeout)

    async def __aenter__(self) -> AsyncTestClient:
        lifespan = Lifespan(self.app, self.timeout)
        if await lifespan.start():
            self._lifespan = lifespan
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        __tracebackhide__ = True
        lifespan, self._lifespan = self._lifespan, None
        if lifespan is not None:
            await lifespan.stop(error)


class TestClient:
    """A client of an app for tests without an event loop: the app runs in a thread with its own event loop.

        with TestClient(app).websocket_connect("/chat") as session:
            session.send_text("hello")

    As a context manager, it runs the app's lifespan, if the app has one, and its sessions share one event
    loop. Otherwise, each session has its own event loop.

    Args:
        app: Any ASGI app.
        base_url: Scheme and host where the URL of a session has none.
        backend: The event loop: `"asyncio"` or `"trio"`.
        backend_options: Options of AnyIO for that loop.
        headers: Headers of every request, pairs or a mapping of `bytes` or `str`.
        cookies: Cookies of every request.
        client: The client's address, host and port.
        root_path: Where the app is mounted.
        timeout: Seconds for each wait; `None` for no limit.

    Raises:
        LifespanError: On entering or leaving, the app said that its startup or its shutdown failed.
        WebSocketTimeout: On entering or leaving, the app did not start up or shut down in time.
    """

    __test__ = False  # pytest collects classes of such names

    def __init__(
        self,
        app: AnyASGIApp,
        base_url: str = "ws://testserver",
        *,
        backend: str = "asyncio",
        backend_options: dict[str, Any] | None = None,
        headers: Headers | None = None,
        cookies: Mapping[str, str] | None = None,
        client: tuple[str, int] = ("testclient", 50000),
        root_path: str = "",
        timeout: float | None = TIMEOUT,
    ) -> None:
        self._client = AsyncTestClient(
            app,
            base_url,
            headers=headers,
            cookies=cookies,
            client=client,
            root_path=root_path,
            timeout=timeout,
        )
        self._loops = partial(LoopThread, backend, backend_options)
        self._loop: LoopThread | None = None
        self._leave: Callable[[BaseException | None], None] | None = None

    def websocket_connect(
        self,
        url: str = "/",
        subprotocols: Sequence[str] | None = None,
        *,
        timeout: Timeout = ...,
        **options: Any,
    ) -> WebSocketTestSession:
        """Connect; the arguments are those of `AsyncTestClient.websocket_connect`.

        Args:
            url: A path with or without a query, or a URL.
            subprotocols: What the client offers, in its order.
            timeout: Seconds for each wait; `None` for no limit. Default:
                the client's.
            options: `headers`, `cookies`, `params`, `extensions`, `spec_version`, `scope`.

        Returns:
            A context manager, which connects when it is entered.
        """
        manager = self._client.websocket_connect(url, subprotocols, timeout=timeout, **options)
        limit = self._client.timeout if isinstance(timeout, EllipsisType) else timeout
        return WebSocketTestSession(manager, limit, self._loop, self._loops)

    def __enter__(self) -> TestClient:
        __tracebackhide__ = True
        loop = self._loops()
        loop.start()
        try:
            _, self._leave = loop.enter(self._client, self._client.timeout)
        except BaseException:
            loop.stop()
            raise
        self._loop = loop
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        __tracebackhide__ = True
        loop, leave, self._loop, self._leave = self._loop, self._leave, None, None
        if loop is None or leave is None:
            return
        try:
            leave(error)
        finally:
            loop.stop()


class WebSocketTestSession:
    """One session with an app that runs in a thread: `WebSocketSession` without `await`.

    `TestClient.websocket_connect` creates it. It is a context manager. Leaving it closes with code 1000,
    unless the connection is already closed, and waits until the app has ended.
    """

    __test__ = False

    def __init__(
        self,
        manager: AbstractAsyncContextManager[WebSocketSession],
        timeout: float | None,
        loop: LoopThread | None,
        loops: Callable[[], LoopThread],
    ) -> None:
        self._manager = manager
        self._timeout = timeout
        self._own_loop = loop is None
        self._loop = loop or loops()
        self._session: WebSocketSession
        self._leave: Callable[[BaseException | None], None]

    def __enter__(self) -> WebSocketTestSession:
        __tracebackhide__ = True
        if self._own_loop:
            self._loop.start()
        try:
            self._session, self._leave = self._loop.enter(self._manager, self._timeout)
        except BaseException as error:
            connection = getattr(self._manager, "connection", None)
            if isinstance(error, WebSocketTimeout) and connection is not None:
                error.last_sent = connection.last_sent  # as in `_call`
            if self._own_loop:
                self._loop.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        __tracebackhide__ = True
        try:
            self._leave(error)
        finally:
            if self._own_loop:
                self._loop.stop()

    @property
    def scope(self) -> Scope:
        """The scope that the app got."""
        return self._session.scope

    @property
    def accepted_subprotocol(self) -> str | None:
        """The subprotocol that the app accepted; `None` if it chose none."""
        return self._session.subprotocol

    @property
    def extra_headers(self) -> list[tuple[bytes, bytes]]:
        """The headers that the app sent with its acceptance, as it sent them."""
        return list(self._session.accepted.get("headers") or ())

    subprotocol = accepted_subprotocol

    @property
    def headers(self) -> Header:
        """The same headers, as a mapping."""
        return self._session.headers

    @property
    def close_code(self) -> int | None:
        """The close code, once the test has seen the end; 1006 if the connection was lost."""
        return self._session.close_code

    @property
    def close_reason(self) -> str | None:
        """The reason of the end, or `""` without a reason."""
        return self._session.close_reason

    def send(self, message: Message) -> None:
        """Pass a raw ASGI message to the app; see `WebSocketSession.send`."""
        __tracebackhide__ = True
        self._call(self._session.send, message)

    def send_text(self, data: str) -> None:
        """Send a text message; see `WebSocketSession.send_text`."""
        __tracebackhide__ = True
        self._call(self._session.send_text, data)

    def send_bytes(self, data: bytes) -> None:
        """Send a binary message; see `WebSocketSession.send_bytes`."""
        __tracebackhide__ = True
        self._call(self._session.send_bytes, data)

    def send_json(self, data: Any, mode: str = "text") -> None:
        """Send a value as JSON; see `WebSocketSession.send_json`."""
        __tracebackhide__ = True
        self._call(self._session.send_json, data, mode)

    def receive(self, *, timeout: Timeout = ...) -> Message:
        """Receive the next ASGI message of any type; see `WebSocketSession.receive`."""
        __tracebackhide__ = True
        return self._call(partial(self._session.receive, timeout=timeout), limit=timeout)

    def receive_text(self, *, timeout: Timeout = ...) -> str:
        """Receive one text message; see `WebSocketSession.receive_text`."""
        __tracebackhide__ = True
        return self._call(partial(self._session.receive_text, timeout=timeout), limit=timeout)

    def receive_bytes(self, *, timeout: Timeout = ...) -> bytes:
        """Receive one binary message; see `WebSocketSession.receive_bytes`."""
        __tracebackhide__ = True
        return self._call(partial(self._session.receive_bytes, timeout=timeout), limit=timeout)

    def receive_json(self, mode: str = "text", *, timeout: Timeout = ...) -> Any:
        """Receive one message and decode it as JSON; see `WebSocketSession.receive_json`."""
        __tracebackhide__ = True
        return self._call(partial(self._session.receive_json, mode, timeout=timeout), limit=timeout)

    def receive_nothing(self, seconds: float) -> None:
        """Wait, and check that nothing comes; see `WebSocketSession.receive_nothing`."""
        __tracebackhide__ = True
        self._call(self._session.receive_nothing, seconds, limit=seconds)

    def typed(self, types: type[WebSocket[S, R]]) -> MessageTestSession[S, R]:
        """Typed messages; see `WebSocketSession.typed`."""
        from ._messages import MessageTestSession

        return MessageTestSession(self._session.typed(types), self._call)

    def __iter__(self) -> Iterator[str | bytes]:
        """Iterate over the payloads of messages until the connection ends."""
        __tracebackhide__ = True
        payloads = self._session.__aiter__()
        while True:
            try:
                yield self._call(payloads.__anext__)
            except StopAsyncIteration:
                return

    def close(self, code: int = 1000, reason: str | None = None) -> None:
        """Close, as the client; see `WebSocketSession.close`."""
        __tracebackhide__ = True
        self._call(self._session.close, code, reason)

    def vanish(self) -> None:
        """Drop the connection without a close frame; see `WebSocketSession.vanish`."""
        __tracebackhide__ = True
        self._call(self._session.vanish)

    def stall(self) -> None:
        """Stop reading: what the app sends waits until `resume`; see `WebSocketSession.stall`."""
        __tracebackhide__ = True
        self._call(self._stall)

    def resume(self) -> None:
        """Continue to read after `stall`."""
        __tracebackhide__ = True
        self._call(self._resume)

    def settled(self, *, timeout: Timeout = ...) -> None:
        """Wait until the app waits for the client, or has ended; see `WebSocketSession.settled`."""
        __tracebackhide__ = True
        self._call(partial(self._session.settled, timeout=timeout), limit=timeout)

    async def _stall(self) -> None:
        self._session.stall()

    async def _resume(self) -> None:
        self._session.resume()

    def _call(self, method: Callable[..., Awaitable[T]], *arguments: Any, limit: Timeout = ...) -> T:
        __tracebackhide__ = True
        limit = self._timeout if isinstance(limit, EllipsisType) else limit
        try:
            return self._loop.call(method, *arguments, limit=limit)
        except WebSocketTimeout as error:
            error.last_sent = self._session.connection.last_sent  # which a loop that is stuck does not know
            raise

"""The scope, read-only, parsed on demand (ASGI spec, "Connection Scope" of WebSocket).

Reading never changes the scope, with two exceptions: headers given as a one-shot iterator are replaced by a
list of the same pairs, since they could not be read again; and `state` puts the dictionary there that ASGI
lets an app store.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

from .datastructures import URL, Address, Header, QueryParam, State, parse_cookies
from .exceptions import WebSocketRuntimeError
from .types import Scope

__all__ = ["Connection"]


class Connection(Mapping[str, Any]):
    """A read-only view of a WebSocket scope; also a mapping over it: `websocket["path"]`."""

    scope: Scope
    """The ASGI scope itself, not a copy."""

    # Parsed on first use. Defaults of the class, so that making an instance costs nothing for them.
    _url: URL | None = None
    _base_url: URL | None = None
    _headers: Header | None = None
    _query_params: QueryParam | None = None
    _cookies: dict[str, str] | None = None
    _state: State | None = None

    def __getitem__(self, key: str) -> Any:
        return (self._readable_scope() if key == "headers" else self.scope)[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.scope)

    def __len__(self) -> int:
        return len(self.scope)

    # A connection equals itself only, whatever its scope; `Mapping` would compare the items.
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    @property
    def app(self) -> Any:
        """The application that put itself into the scope, or `None`."""
        return self.scope.get("app")

    @property
    def url(self) -> URL:
        """The URL, as the server sees it. A `Host` header counts only if it is a well-formed host[:port]."""
        url = self._url
        if url is None:
            scope = self.scope
            if type(scope.get("headers")) is not list:
                scope = self._readable_scope()
            url = self._url = URL.from_scope(scope)
        return url

    @property
    def base_url(self) -> URL:
        """The URL under which the application is mounted: ends with `/`, without a query."""
        if self._base_url is None:
            scope = dict(self._readable_scope())
            root_path = scope.get("app_root_path", scope.get("root_path")) or ""
            scope["path"] = root_path if root_path.endswith("/") else root_path + "/"
            scope["query_string"] = b""
            self._base_url = URL.from_scope(scope)
        return self._base_url

    @property
    def headers(self) -> Header:
        """The request headers, in their order and with duplicates. Names are case-insensitive."""
        headers = self._headers
        if headers is None:
            pairs = self.scope.get("headers")
            if type(pairs) is not list:
                pairs = self._readable_scope().get("headers")
            headers = self._headers = Header(pairs)
        return headers

    @property
    def query_params(self) -> QueryParam:
        """The query parameters, an immutable multidict. Never raises because of what a client sent."""
        if self._query_params is None:
            self._query_params = QueryParam(self.scope.get("query_string"))
        return self._query_params

    @property
    def path_params(self) -> dict[str, Any]:
        """The parameters that the router found in the path: the scope's own dictionary, or `{}`."""
        path_params = self.scope.get("path_params")
        return {} if path_params is None else cast("dict[str, Any]", path_params)

    @property
    def cookies(self) -> dict[str, str]:
        """The cookies of all `Cookie` headers (RFC 9113 section 8.2.3). The last duplicate counts."""
        if self._cookies is None:
            self._cookies = {}
            for header in self.headers.getlist("cookie"):
                self._cookies.update(parse_cookies(header))
        return self._cookies

    @property
    def state(self) -> State:
        """The connection's state: what the lifespan and middleware stored. You can add to it."""
        if self._state is None:
            state = self.scope.get("state")
            if state is None:
                state = self.scope["state"] = {}
            self._state = State(state)
        return self._state

    @property
    def client(self) -> Address | None:
        """The client's address, or `None` if the server does not report it."""
        return Address.of(self.scope.get("client"))

    @property
    def server(self) -> Address | None:
        """The server's address, or `None` if the server does not report it."""
        return Address.of(self.scope.get("server"))

    @property
    def auth(self) -> Any:
        """What an authentication middleware put into the scope.

        Raises:
            WebSocketRuntimeError: This middleware is not installed.
        """
        return self._of_middleware("auth", "AuthenticationMiddleware")

    @property
    def user(self) -> Any:
        """The user that an authentication middleware put into the scope.

        Raises:
            WebSocketRuntimeError: This middleware is not installed.
        """
        return self._of_middleware("user", "AuthenticationMiddleware")

    @property
    def session(self) -> Any:
        """The session that a session middleware put into the scope.

        Raises:
            WebSocketRuntimeError: This middleware is not installed.
        """
        return self._of_middleware("session", "SessionMiddleware")

    def set_session(self, value: Any) -> None:
        """Replace the session in the scope."""
        self.scope["session"] = value

    def clear_session(self) -> None:
        """Replace the session in the scope by `None`."""
        self.scope["session"] = None

    def is_secure(self) -> bool:
        """Whether the connection runs over TLS, as far as the server knows."""
        # Not the URL's scheme: a URL without authority has none.
        return self.scope.get("scheme") in ("wss", "https")

    def path_for(self, name: str, /, **path_params: Any) -> URL:
        """The absolute URL of a named route.

        Args:
            name: The route's name.
            path_params: The values of its path parameters.

        Raises:
            WebSocketRuntimeError: There is no router in the scope.
        """
        router = self.scope.get("router")
        if router is None:  # one without routes may be false
            router = self.scope.get("app")
        if router is None:
            raise WebSocketRuntimeError(
                f"cannot make a URL for the route {name!r}: the scope has neither 'router' nor 'app'. "
                "It works inside an application or a router"
            )
        url_path = router.url_path_for(name, **path_params)
        if hasattr(url_path, "make_absolute_url"):
            url_path = url_path.make_absolute_url(base_url=self.base_url)
        return URL(str(url_path))

    url_path_for = path_for

    def _of_middleware(self, key: str, middleware: str) -> Any:
        if key not in self.scope:
            raise WebSocketRuntimeError(
                f"cannot read websocket.{key}: the scope has no {key!r}. Install {middleware}"
            )
        return self.scope[key]

    def _readable_scope(self) -> Scope:
        """The scope, its headers safe to be read more than once."""
        headers = self.scope.get("headers")
        # the exact types first: a check against an abstract class costs as much as the rest
        if type(headers) is not list and type(headers) is not tuple and isinstance(headers, Iterator):
            self.scope["headers"] = list(headers)
        return self.scope

"""The scope: what it may lack, what it may hold, and that reading leaves it alone."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest
from starlette.datastructures import URLPath

from lilya.websockets import URL, WebSocket, WebSocketRuntimeError

from .server import DENIAL, Server, header_pairs, opened, steps, text

MINIMAL: dict[str, Any] = {"type": "websocket", "path": "/", "headers": []}
OPTIONAL = [
    *("scheme", "query_string", "root_path", "client", "server"),
    *("subprotocols", "state", "extensions", "path_params"),
]


def made(scope: dict[str, Any]) -> WebSocket:
    """A WebSocket whose server must not be asked for anything."""
    return WebSocket(scope, None, None)  # type: ignore[arg-type]


@pytest.mark.contract("scope-minimal", "scope-none-means-default")
@pytest.mark.parametrize(
    "scope",
    [
        MINIMAL,
        MINIMAL | dict.fromkeys(OPTIONAL),
        *(MINIMAL | {key: None} for key in OPTIONAL),
        MINIMAL | {"headers": None},
        MINIMAL | {"headers": ()},
    ],
    ids=lambda scope: "+".join(sorted(scope.keys() - MINIMAL.keys())) or "minimal",
)
def test_type_path_and_headers_are_enough(scope: dict[str, Any]) -> None:
    websocket = made(dict(scope))
    assert websocket.url == "/"
    assert websocket.base_url == "/"
    assert list(websocket.headers) == list(websocket.query_params) == []
    assert websocket.cookies == websocket.path_params == {}
    assert websocket.client is websocket.server is websocket.app is None
    assert not websocket.is_secure()
    websocket.state.a = 1
    assert websocket.state.a == 1


@pytest.mark.contract("scope-minimal", "scope-none-means-default")
@pytest.mark.parametrize("extra", [{}, dict.fromkeys(OPTIONAL)], ids=["missing", "None"])
def test_a_whole_conversation_over_a_minimal_scope(extra: dict[str, Any]) -> None:
    server = Server(text("a"))
    server.scope = MINIMAL | {"subprotocols": []} | extra | {"subprotocols": extra.get("subprotocols")}
    websocket = server.websocket()
    with pytest.raises(ValueError, match="it offered none"):
        steps(websocket.accept("chat"))
    with pytest.raises(RuntimeError, match="does not offer the extension"):
        steps(websocket.send_denial_response(None))  # type: ignore[arg-type]
    steps(websocket.accept())
    assert steps(websocket.receive_text()) == "a"
    steps(websocket.close())
    assert server.types == ["websocket.accept", "websocket.close"]


@pytest.mark.contract("scope-other-type")
@pytest.mark.parametrize("scope", [{}, {"type": "http"}, {"type": "lifespan"}, {"type": None}])
def test_a_scope_of_another_type(scope: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match='needs a scope of type "websocket"') as caught:
        made(scope)
    assert repr(scope.get("type")) in str(caught.value)


PAIRS = [(b"host", b"h"), (b"x-d", b"1"), (b"x-c", b"2"), (b"x-b", b"3"), (b"x-a", b"4"), (b"x-c", b"5")]


@pytest.mark.contract("scope-headers-iterables")
@pytest.mark.parametrize(
    "iterable",
    [
        lambda: list(PAIRS),
        lambda: tuple(PAIRS),
        lambda: iter(PAIRS),
        lambda: (pair for pair in PAIRS),
        lambda: map(tuple, PAIRS),
        lambda: [list(pair) for pair in PAIRS],
        lambda: dict.fromkeys(PAIRS).keys(),
    ],
    ids=["list", "tuple", "iterator", "generator", "map", "lists", "view"],
)
@pytest.mark.parametrize(
    "first",
    [
        lambda websocket: websocket.url,
        lambda websocket: websocket.headers,
        lambda websocket: websocket.base_url,
        lambda websocket: websocket.cookies,
        lambda websocket: list(websocket["headers"]),
        lambda websocket: [list(value) for key, value in websocket.items() if key == "headers"],
    ],
    ids=["url", "headers", "base_url", "cookies", "mapping", "items"],
)
def test_headers_are_any_iterable_and_readable_twice(iterable: Any, first: Any) -> None:
    websocket = made(MINIMAL | {"headers": iterable(), "server": ("example.org", 80)})
    first(websocket)
    for _ in range(2):
        assert [tuple(pair) for pair in websocket["headers"]] == PAIRS
        assert websocket.url == "ws://h/"
        assert websocket.headers.get_encoded_multi_items() == PAIRS
        assert websocket.headers.getall("X-C") == ["2", "5"]
    another = WebSocket(websocket.scope, None, None)  # type: ignore[arg-type]
    assert another.headers == websocket.headers


@pytest.mark.contract("scope-headers-iterables")
@pytest.mark.contract("denial-any-response")
def test_a_denial_leaves_one_shot_headers_readable() -> None:
    server = Server(headers=header_pairs("a", "b", "c", "d"))
    websocket = server.websocket()

    async def response(scope: Any, receive: Any, send: Any) -> None:
        assert [name for name, _ in scope["headers"]] == [b"a", b"b", b"c", b"d"]
        await send({"type": "http.response.start", "status": 401})

    steps(websocket.send_denial_response(response))
    assert list(websocket.headers) == ["a", "b", "c", "d"]


@pytest.mark.contract("scope-unchanged")
def test_reading_leaves_the_scope_alone() -> None:
    server = Server(
        headers=[(b"Host", b"h"), (b"cookie", b"a=1")], query_string=b"a=1", extensions=None, path="/a b"
    )
    scope = server.scope
    before = {**scope, "headers": list(scope["headers"])}
    headers = scope["headers"]
    websocket = server.websocket()
    for name in ("url", "base_url", "headers", "query_params", "path_params", "cookies", "client", "server"):
        getattr(websocket, name)
    websocket.is_secure()
    list(websocket.headers)
    assert dict(websocket) == scope == before
    assert websocket.scope is scope
    assert scope["headers"] is headers


class TestURL:
    @pytest.mark.contract("scope-url")
    def test_parts_of_a_scope(self) -> None:
        url = Server(scheme="wss", path="/chat/é", query_string=b"room=a%20b").websocket().url
        assert isinstance(url, URL)
        assert url == "wss://example.org/chat/%C3%A9?room=a%20b"
        assert (url.scheme, url.hostname, url.port, url.path, url.query, url.fragment) == (
            *("wss", "example.org", None),
            *("/chat/%C3%A9", "room=a%20b", ""),
        )

    @pytest.mark.contract("scope-url-host")
    @pytest.mark.parametrize(
        ("host", "netloc"),
        [
            ("example.org", "example.org"),
            ("Example.ORG:80", "Example.ORG:80"),
            ("a_b-c.d:65535", "a_b-c.d:65535"),
            ("127.0.0.1:0", "127.0.0.1:0"),
            ("[::1]", "[::1]"),
            ("[2001:DB8::1]:8000", "[2001:DB8::1]:8000"),
            ("[::ffff:192.0.2.1]", "[::ffff:192.0.2.1]"),
            ("example.org:", "example.org"),
            ("a" * 255, "a" * 255),
            ("a" * 255 + ":65535", "a" * 255 + ":65535"),
        ],
    )
    def test_a_well_formed_host_counts(self, host: str, netloc: str) -> None:
        websocket = Server(headers=[(b"HOST", host.encode())], path="//x").websocket()
        assert websocket.url.netloc == netloc
        assert websocket.url.path == "//x"

    @pytest.mark.contract("scope-url-host")
    def test_the_first_host_counts_and_only_it(self) -> None:
        headers = [(b"hosts", b"c"), (b"host", b"a b"), (b"host", b"b")]
        assert Server(headers=headers).websocket().url.netloc == "198.51.100.1:8000"
        assert Server(headers=headers[::-1]).websocket().url.netloc == "b"
        assert Server(headers=[("Host", "b")]).websocket().url.netloc == "b"

    @pytest.mark.contract("scope-url-odd-servers")
    @pytest.mark.parametrize(
        ("server", "netloc"),
        [
            (None, ""),
            ((), ""),
            (("example.org", 80), "example.org"),
            (("example.org", 443), "example.org:443"),
            (("example.org", 0), "example.org:0"),
            (["example.org", 8000], "example.org:8000"),
            (("example.org", None), ""),
            (("::1", 8000), "[::1]:8000"),
            (("[::1]", 8000), "[::1]:8000"),
            (("::1", 80, 0, 0), "[::1]"),
            (("fe80::1%eth0", 8000), "[fe80::1%25eth0]:8000"),
            (("fe80::1%a/b", 8000), ""),
            (("1:2", 8000), ""),
            (("[:", 8000), ""),
            (("/run/app.sock", None), ""),
            (("/run/app.sock", 0), ""),
            (("unix:/run/app.sock", None), ""),
            (("@abstract", 0), ""),
            (("\0abstract", 0), ""),
            (("", 8000), ""),
            ((None, 8000), ""),
            ((b"example.org", 8000), ""),
            (("a/b", 8000), ""),
            (("user@a", 8000), ""),
            (("example.org", 99999), "example.org:99999"),
            (("example.org", -1), "example.org:-1"),
            (("example.org",), ""),
        ],
    )
    def test_servers(self, server: Any, netloc: str) -> None:
        websocket = Server(headers=[], server=server, path="//x?y").websocket()
        url = websocket.url
        # Without an authority, a browser would take what follows two slashes for one.
        path = "//x%3Fy" if netloc else "/%2Fx%3Fy"
        assert (url.netloc, url.path, url.query) == (netloc, path, "")
        assert url.port is None or 0 <= url.port <= 65535
        assert isinstance(url.hostname, str) is bool(netloc)
        assert repr(url) == f"URL({str(url)!r})"

    @pytest.mark.contract("scope-url-odd-servers")
    def test_the_default_port_of_the_scheme_is_not_written(self) -> None:
        for scheme, port in (("ws", 80), ("wss", 443), ("http", 80), ("https", 443)):
            websocket = Server(headers=[], server=("a", port), scheme=scheme).websocket()
            assert websocket.url == f"{scheme}://a/"

    @pytest.mark.contract("scope-url-host")
    @pytest.mark.parametrize("headers", [[(b"host", b"h")], []], ids=["host", "no host"])
    @pytest.mark.parametrize("server", [("a", 80), None], ids=["server", "no server"])
    @pytest.mark.parametrize(
        "path",
        [
            *("", "/", "//evil.com", "//evil.com/x", "///", "/a?b=c", "/a#b", "/a\\b", "/\\evil.com"),
            *("/%", "/%2F", "/%zz", "/..", "/../..//a", "/@evil.com", "/a@b:c", "/ ", "/\t\r\n", "/\0\x7f"),
            *("/é", "/\U0001f600", "/\ud800", "/\udcff", "/;a=b", "/[::1]", "/{}|^`<>\"'", "/~-._!$&()*+,="),
        ],
    )
    def test_the_path_is_the_quoted_scope_path(
        self, path: str, server: Any, headers: list[tuple[bytes, bytes]]
    ) -> None:
        websocket = Server(path=path, server=server, headers=headers, query_string=b"q=1#f").websocket()
        # what RFC 3986, section 3.3, lets stand in a path
        expected = quote(path.encode("utf-8", "surrogatepass"), safe="/:@!$&'()*+,;=-._~")
        if not headers and not server and expected.startswith("//"):
            expected = "/%2F" + expected[2:]
            assert str(websocket.url).startswith("/%2F")
        assert websocket.url.path == expected
        assert websocket.url.query == "q=1%23f"
        assert websocket.url.netloc == ("h" if headers else "a" if server else "")

    @pytest.mark.contract("scope-url-host")
    def test_a_path_without_its_slash_does_not_run_into_the_host(self) -> None:
        url = Server(path=".evil.com/x").websocket().url
        assert (url.netloc, url.path) == ("example.org", "/.evil.com/x")

    @pytest.mark.contract("scope-upstream-names")
    @pytest.mark.parametrize(
        ("extra", "base"),
        [
            ({}, "ws://example.org/"),
            ({"root_path": "/api"}, "ws://example.org/api/"),
            ({"root_path": "/api/"}, "ws://example.org/api/"),
            ({"root_path": "/api/v1", "app_root_path": "/api"}, "ws://example.org/api/"),
            ({"app_root_path": None, "root_path": "/api"}, "ws://example.org/"),
        ],
    )
    def test_base_url(self, extra: dict[str, Any], base: str) -> None:
        websocket = Server(path="/chat", query_string=b"a=1", **extra).websocket()
        assert websocket.base_url == base
        assert websocket.base_url is websocket.base_url
        assert websocket.url == "ws://example.org/chat?a=1"
        assert websocket.url is websocket.url

    @pytest.mark.contract("scope-upstream-names")
    @pytest.mark.parametrize(
        ("scheme", "secure"), [("ws", False), ("wss", True), ("https", True), (None, False), (..., False)]
    )
    @pytest.mark.parametrize("headers", [[], [(b"host", b"h")]])
    def test_is_secure(self, headers: Any, scheme: Any, secure: bool) -> None:
        """Without an authority, too: a client can have one refused by what it puts into Host."""
        assert Server(scheme=scheme, headers=headers, server=None).websocket().is_secure() is secure


class TestTheRest:
    @pytest.mark.contract("scope-query")
    def test_query_params(self) -> None:
        websocket = Server(query_string=b"a=1&b=2&a=%ff").websocket()
        assert websocket.query_params.getall("a") == ["1", "\ufffd"]
        assert websocket.query_params is websocket.query_params

    @pytest.mark.contract("scope-cookies")
    def test_cookies_of_all_headers(self) -> None:
        headers = [(b"cookie", b"a=1; b=2"), (b"Cookie", b"b=3; c=\xff")]
        websocket = Server(headers=headers).websocket()
        assert websocket.cookies == {"a": "1", "b": "3", "c": "\xff"}
        assert websocket.cookies is websocket.cookies

    @pytest.mark.contract("scope-path-params")
    def test_path_params(self) -> None:
        params = {"username": "a"}
        assert Server(path_params=params).websocket().path_params is params

    @pytest.mark.contract("scope-upstream-names")
    def test_state_is_the_scopes(self) -> None:
        server = Server(state={"pool": 1})
        server.websocket().state.more = 2
        assert server.scope["state"] == {"pool": 1, "more": 2}
        assert server.websocket().state.more == 2

    @pytest.mark.contract("scope-upstream-names")
    @pytest.mark.parametrize("extra", [{}, {"state": None}])
    def test_state_is_stored_where_asgi_lets_an_app_store_it(self, extra: dict[str, Any]) -> None:
        server = Server(**extra)
        websocket = server.websocket()
        websocket.state.a = 1
        assert server.scope["state"] == {"a": 1}
        assert websocket.state is websocket.state

    @pytest.mark.contract("scope-upstream-names")
    def test_addresses(self) -> None:
        websocket = Server().websocket()
        client = websocket.client
        assert client is not None
        assert client == (client.host, client.port) == ("192.0.2.1", 50000)
        assert websocket.server == ("198.51.100.1", 8000)

    @pytest.mark.contract("scope-upstream-names")
    def test_app(self) -> None:
        app = object()
        assert Server(app=app).websocket().app is app

    @pytest.mark.contract("scope-upstream-names")
    @pytest.mark.parametrize("name", ["auth", "user", "session"])
    @pytest.mark.parametrize("value", ["it", None, {}])
    def test_what_middleware_puts_there(self, name: str, value: Any) -> None:
        assert getattr(Server(**{name: value}).websocket(), name) is value

    @pytest.mark.contract("scope-upstream-names")
    @pytest.mark.parametrize("name", ["auth", "user", "session"])
    def test_what_no_middleware_has_put_there(self, name: str) -> None:
        with pytest.raises(WebSocketRuntimeError, match=f"websocket.{name}: .* Install .*Middleware"):
            getattr(Server().websocket(), name)

    @pytest.mark.contract("scope-upstream-names")
    def test_the_session_can_be_replaced(self) -> None:
        server = Server()
        websocket = server.websocket()
        websocket.set_session({"a": 1})
        assert websocket.session == server.scope["session"] == {"a": 1}
        websocket.clear_session()
        assert websocket.session is None
        assert server.scope["session"] is None


class Router:
    """A router as Starlette and Lilya have it."""

    def __init__(self, url_path: Any) -> None:
        self.url_path = url_path

    def url_path_for(self, name: str, /, **path_params: Any) -> Any:
        assert (name, path_params) == ("room", {"name": "blue"})
        return self.url_path


class EmptyRouter(Router):
    def __len__(self) -> int:
        return 0


@pytest.mark.contract("scope-upstream-names")
@pytest.mark.parametrize(
    ("extra", "url"),
    [
        ({"router": Router("/room/blue")}, "/room/blue"),
        ({"app": Router("/room/blue")}, "/room/blue"),
        ({"router": None, "app": Router("/room/blue")}, "/room/blue"),
        ({"router": EmptyRouter("/room/blue"), "app": Router("/wrong")}, "/room/blue"),
        ({"router": Router(URLPath("/room/blue", protocol="websocket"))}, "ws://example.org/api/room/blue"),
        ({"router": Router(URLPath("/x", "websocket", "other.org"))}, "ws://other.org/api/x"),
    ],
    ids=["router", "app", "no router", "empty router", "Starlette", "host"],
)
@pytest.mark.parametrize("method", ["path_for", "url_path_for"])
def test_path_for(method: str, extra: dict[str, Any], url: str) -> None:
    websocket = Server(root_path="/api", **extra).websocket()
    made_url = getattr(websocket, method)("room", name="blue")
    assert made_url == url
    assert type(made_url) is URL


@pytest.mark.contract("scope-upstream-names")
def test_path_for_without_a_router() -> None:
    with pytest.raises(
        WebSocketRuntimeError, match=r"URL for the route 'room': .* neither 'router' nor 'app'"
    ):
        Server().websocket().path_for("room")


@pytest.mark.contract("upstream-dict")
def test_the_mapping() -> None:
    websocket, server = opened(path="/chat")
    assert websocket["path"] == "/chat"
    assert dict(websocket) == server.scope
    assert len(websocket) == len(server.scope)
    assert list(websocket) == list(server.scope)
    assert "path" in websocket
    assert "missing" not in websocket
    assert websocket.get("missing", 1) == 1
    assert DENIAL in websocket["extensions"]
    with pytest.raises(KeyError):
        websocket["missing"]

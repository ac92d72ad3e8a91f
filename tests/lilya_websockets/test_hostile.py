"""What clients send to do harm: nothing undocumented is raised, no path is poisoned, work stays linear."""

from __future__ import annotations

import json
import math
import re
import sys
import time
from collections.abc import Callable
from types import FrameType
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lilya.websockets import (
    URL,
    Header,
    QueryParam,
    WebSocketDataError,
    WebSocketDisconnect,
    WebSocketRuntimeError,
    WebSocketState,
)
from lilya.websockets.datastructures import _known_path, _well_formed, parse_cookies

from .examples import examples
from .server import Server, Violation, data, opened, steps, text

BYTES = [bytes([byte]) for byte in range(256)]


def quoted(path: str) -> str:
    """What a URL must say of a path (RFC 3986, section 3.3), by another way than the package's."""
    encoded = quote(path.encode("utf-8", "surrogatepass"), safe="/:@!$&'()*+,;=-._~")
    return encoded if encoded.startswith("/") or not encoded else "/" + encoded


def check_url(url: URL, path: str) -> None:
    expected = quoted(path)
    # Without an authority, a browser would take what follows two slashes for one.
    assert url.path == (f"/%2F{expected[2:]}" if expected.startswith("//") and not url.netloc else expected)
    assert url.scheme in ("ws", "wss", "")
    assert url.hostname is None or url.hostname == url.hostname.lower()
    assert url.port is None or 0 <= url.port <= 65535
    assert url.username is url.password is None
    assert url.fragment == ""
    assert "@" not in url.netloc
    assert str(url).isascii()
    assert url.isprintable()
    assert repr(url) == f"URL({str(url)!r})"
    assert hash(url) == hash(str(url))
    for replaced in (url.replace(query="a"), url.replace(scheme="wss"), url.replace(fragment=None)):
        assert (replaced.path, replaced.netloc) == (url.path, url.netloc)


# Host

REFUSED_HOSTS = [
    *(
        b"example.org/?",
        b"evil.com/x?y",
        b"evil.com/x",
        b"evil.com?",
        b"evil.com#",
        b"evil.com#@a",
        b"/",
        b"//evil.com",
    ),
    *(b"user@evil.com", b"user:pass@evil.com", b"a@b@c", b"@", b"@evil.com", b"evil.com@", b"a:b@c:80"),
    *(
        b"",
        b" ",
        b":",
        b":80",
        b"::",
        b"a:b",
        b"a:80:80",
        b"a:-1",
        b"a:+80",
        b"a: 80",
        b"a:80 ",
        b" a:80",
        b"a:8e1",
    ),
    *(
        b"a:65536",
        b"a:99999",
        b"a:999999",
        b"a:000080",
        b"a:0x50",
        b"a:\xb2",
        b"a:80/",
        b"a:80?",
        b"a:80#",
        b"a:80@b",
    ),
    *(
        b"[::1",
        b"::1]",
        b"[::1]]",
        b"[[::1]]",
        b"[]",
        b"[:]",
        b"[v1.x]",
        b"[v1.fe80::a+en1]",
        b"[::1]x",
        b"[::1]:x",
    ),
    *(
        b"[::1]:65536",
        b"x[::1]",
        b"[::1]@evil.com",
        b"[::1]evil.com",
        b"[1:2]",
        b"[:::]",
        b"[::g]",
        b"[::1%eth0]",
    ),
    *(
        b"[::1%25eth0]",
        b"[127.0.0.1]",
        b"[example.org]",
        b"[::1]:80:80",
        b"[::ffff:1.2.3.256]",
        b"[1.2.3.4::]",
    ),
    *(b"[12345::]", b"[1:2:3:4:5:6:7:8:9]", b"[ ::1]", b"[::1 ]", b"[::\x001]", b"[" + b":" * 100 + b"]"),
    *(
        b"evil.com\\",
        b"\\evil.com",
        b"a\\@b",
        b"a%00b",
        b"%65vil.com",
        b"a%2fb",
        b"a%",
        b"a,b",
        b"a;b",
        b"a&b",
        b"a=b",
    ),
    *(
        b"a b",
        b"a\tb",
        b"a\r\nb: c",
        b"a\nb",
        b"a\x00",
        b"\x00",
        b"a\x7f",
        b"a!b",
        b"a$b",
        b"a'b",
        b'a"b',
        b"a(b)",
    ),
    *(
        b"a*b",
        b"*",
        b"a+b",
        b"a|b",
        b"a^b",
        b"a`b",
        b"{a}",
        b"<a>",
        b"a~b",
        b"http://a",
        b"ws://a",
        b"//a",
        b"a//b",
    ),
    *(
        "münchen.de".encode(),
        "münchen.de".encode("latin-1"),
        "a\uff0eb".encode(),
        "ⓔvil.com".encode(),
        b"\xff",
        b"a\x80",
    ),
    *(
        "a℀b".encode(),
        "a\uff0fb".encode(),
        b"\xc2\xa0",
        "例え.jp".encode(),
        "\u202e".encode(),
        b"\xef\xbb\xbfa",
    ),
    *(
        b"a" * 256,
        b"a" * 262,
        b"a" * 65536,
        b"a." * 4096,
        b"a:" + b"0" * 65536,
        b"[" + b"0" * 65536 + b"]",
        b"[" * 999,
    ),
    *(b"a" + byte + b"b" for byte in BYTES if not (byte.isalnum() or byte in (b"-", b".", b"_"))),
]
ACCEPTED_HOSTS = [
    *(
        b"a",
        b"example.org",
        b"EXAMPLE.org",
        b"xn--mnchen-3ya.de",
        b"a_b",
        b"a-b",
        b"-",
        b".",
        b"..",
        b"a.",
        b"1",
        b"0x7f.1",
    ),
    *(
        b"127.0.0.1",
        b"1.2.3.4:5",
        b"a:0",
        b"a:1",
        b"a:65535",
        b"a:00080",
        b"a:",
        b"localhost:8000",
        b"a" * 255,
    ),
    *(
        b"[::1]",
        b"[::]",
        b"[::1]:80",
        b"[::1]:",
        b"[2001:db8::1]",
        b"[2001:DB8:0:0:0:0:0:1]:65535",
        b"[::ffff:1.2.3.4]",
    ),
    *(b"a" + byte + b"b" for byte in BYTES if byte.isalnum() or byte in (b"-", b".", b"_")),
]
PATHS = ["/", "//evil.com/x", "/a?b#c", "/\\evil.com", "/%2F..//@é\ud800"]


def test_there_are_enough_hosts() -> None:
    assert len(set(REFUSED_HOSTS)) > 250
    assert not set(REFUSED_HOSTS) & set(ACCEPTED_HOSTS)


@pytest.mark.contract("scope-url-host")
@pytest.mark.parametrize("server", [("192.0.2.7", 8000), None], ids=["server", "no server"])
@pytest.mark.parametrize("name", [b"host", b"Host", b"HOST"])
def test_a_host_that_is_refused(name: bytes, server: Any) -> None:
    for host in REFUSED_HOSTS:
        for path in PATHS:
            url = Server(headers=[(name, host)], server=server, path=path).websocket().url
            check_url(url, path)
            assert url.netloc == ("192.0.2.7:8000" if server else ""), host


@pytest.mark.contract("scope-url-host")
def test_a_host_that_is_accepted() -> None:
    for host in ACCEPTED_HOSTS:
        for path in PATHS:
            url = Server(headers=[(b"host", host)], path=path).websocket().url
            check_url(url, path)
            assert url.netloc.encode() == host.removesuffix(b":")


HOSTS = (
    st.binary(max_size=30)
    | st.text(alphabet="aA1.-_:[]@/?#\\%é \t\0v", max_size=20).map(lambda it: it.encode("latin-1"))
    | st.sampled_from(REFUSED_HOSTS + ACCEPTED_HOSTS)
)
ANY_PATH = st.text(alphabet=st.characters()) | st.text(alphabet="/\\?#%.@:;a é\ud800\0")
SERVERS = st.none() | st.tuples(
    st.text(alphabet=st.characters(), max_size=12)
    | st.sampled_from(["::1", "fe80::1%eth0", "[::1]", "/run/a", "@a", "1:2", "a/b", "user@a", "127.0.0.1"]),
    st.none() | st.integers(0, 65535),
)


@examples(600)
@given(ANY_PATH, HOSTS, SERVERS, st.binary(max_size=30), st.sampled_from(["ws", "wss", None]))
@pytest.mark.contract("scope-url-host", "scope-url-odd-servers", "exceptions-no-bare-error")
def test_any_url(path: str, host: bytes, server: Any, query: bytes, scheme: str | None) -> None:
    for headers in ([(b"host", host)], []):
        websocket = Server(
            path=path, headers=headers, server=server, query_string=query, scheme=scheme
        ).websocket()
        check_url(websocket.url, path)
        assert websocket.base_url.path == "/"
        assert websocket.is_secure() is (scheme == "wss")
        if headers and websocket.url.netloc:
            assert websocket.url.netloc.encode() == host.removesuffix(b":") or server
    Server.made.clear()


# Headers, cookies, queries


@pytest.mark.contract("scope-headers-view", "scope-cookies", "scope-query", "exceptions-no-bare-error")
@pytest.mark.parametrize("byte", BYTES, ids=lambda byte: byte.hex())
def test_every_byte_everywhere(byte: bytes) -> None:
    websocket = Server(
        headers=[
            (b"x" + byte, b"name"),
            (b"value", b"a" + byte + b"b"),
            (b"cookie", b"c=1; d" + byte + b"=" + byte),
        ],
        query_string=b"a=1&b" + byte + b"=" + byte,
    ).websocket()
    character = byte.decode("latin-1")
    assert websocket.headers["value"] == f"a{character}b"
    assert websocket.headers["X" + character] == "name"
    assert websocket.headers.get_encoded_multi_items()[1] == (b"value", b"a" + byte + b"b")
    assert websocket.cookies["c"] == "1"
    assert websocket.query_params["a"] == "1"
    assert websocket.url.path == "/"
    assert websocket.url.query.startswith("a=1&b")
    assert repr(websocket.headers).startswith("Header([")


@examples(400)
@given(
    st.lists(
        st.tuples(st.binary(max_size=12) | st.sampled_from([b"host", b"cookie"]), st.binary(max_size=20)),
        max_size=80,
    ),
    st.binary(max_size=60) | st.text(alphabet="a&=%+;4fF", max_size=60).map(str.encode),
)
@pytest.mark.contract("scope-headers-view", "scope-query", "scope-cookies", "exceptions-no-bare-error")
def test_any_headers_and_query(pairs: list[tuple[bytes, bytes]], query: bytes) -> None:
    websocket = Server(headers=list(pairs), query_string=query).websocket()
    check_url(websocket.url, "/")
    assert websocket.headers.get_encoded_multi_items() == [(name.lower(), value) for name, value in pairs]
    assert len(websocket.headers.get_multi_items()) == len(pairs)
    for name, _ in pairs:
        expected = [value.decode("latin-1") for other, value in pairs if other.lower() == name.lower()]
        if name.isascii():
            assert websocket.headers.getall(name.decode()) == expected
    assert all(isinstance(part, str) for item in websocket.cookies.items() for part in item)
    fields = [field for field in query.split(b"&") if field]
    assert len(websocket.query_params.get_multi_items()) == len(fields)
    assert QueryParam(str(websocket.query_params)) == websocket.query_params
    Server.made.clear()


@given(st.text() | st.text(alphabet='a=;" \\0123%4é,'))
@pytest.mark.contract("scope-cookies")
def test_any_cookie(header: str) -> None:
    cookies = parse_cookies(header)
    assert len(cookies) <= header.count(";") + 1
    assert all(isinstance(part, str) for item in cookies.items() for part in item)


# Messages


def numbers(value: Any) -> set[float]:
    """The sizes of the numbers with a fraction or an exponent: of 1e999 that is infinity."""
    if isinstance(value, float):
        return {abs(value)}
    parts = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    return {number for part in parts for number in numbers(part)}


@examples(400)
@given(
    st.text(alphabet=st.characters())
    | st.binary()
    | st.text(alphabet='[]{}":,0123456789.eE+-\\u\ud800aNI ')
    | st.text(alphabet="[{", min_size=900, max_size=1000).map(lambda it: it * 200)
)
@pytest.mark.contract("receive-json-invalid", "exceptions-no-bare-error")
def test_any_json(payload: str | bytes) -> None:
    mode = "text" if isinstance(payload, str) else "binary"
    websocket, server = opened(text(payload) if isinstance(payload, str) else data(payload), text("1"))
    try:
        value = steps(websocket.receive_json(mode))
    except WebSocketDataError as error:
        assert isinstance(error.__cause__, (ValueError, RecursionError))  # noqa: PT017  # not all raise
    else:
        if math.inf not in numbers(value):
            steps(websocket.send_json(value, mode))  # what can be received can be sent
            sent = server.sent[-1]["text" if mode == "text" else "bytes"]
            assert json.loads(sent) == value
    assert steps(websocket.receive_json()) == 1
    Server.made.clear()


JUNK = (
    st.none() | st.integers() | st.text(max_size=5) | st.binary(max_size=5) | st.lists(st.none(), max_size=1)
)
EVENT = (
    st.none()
    | st.text()
    | st.dictionaries(
        st.sampled_from(["type", "text", "bytes", "code", "reason"]),
        JUNK | st.sampled_from(["websocket.receive", "websocket.disconnect", "websocket.connect"]),
    )
)


@examples(500)
@given(EVENT, st.sampled_from(["receive", "receive_json", "receive_json binary", "accept"]))
@pytest.mark.contract("receive-unknown-type", "receive-disconnect-fields", "exceptions-no-bare-error")
def test_any_event_of_a_server(message: Any, method: str) -> None:
    name, _, mode = method.partition(" ")
    if name == "accept":
        server = Server(message, connecting=False)
        websocket = server.websocket()
    else:
        websocket, server = opened(message)
    try:
        steps(getattr(websocket, name)(*([mode] if mode else [])))
    except WebSocketDisconnect as error:
        assert (type(error.code), type(error.reason)) == (int, str)  # noqa: PT017  # not all raise
    except (WebSocketRuntimeError, WebSocketDataError) as error:
        assert str(error)  # noqa: PT017  # not all raise
    Server.made.clear()


# Arguments of the app that may come from a client

ARGUMENT = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-1, 5001)
    | st.floats()
    | st.text(alphabet=st.characters(), max_size=130)
    | st.binary(max_size=130)
    | st.lists(st.none())
)


@examples(500)
@given(ARGUMENT, ARGUMENT)
@pytest.mark.contract("close-codes", "exceptions-wrong-arguments")
def test_any_close(code: Any, reason: Any) -> None:
    """Refused with nothing sent and nothing changed, or a close that the strict server takes."""
    websocket, server = opened()
    try:
        steps(websocket.close(code, reason))
    except (TypeError, ValueError):
        steps(websocket.close())
    assert server.types == ["websocket.close"]
    assert server.violations == []
    Server.made.clear()


PART = (
    st.binary(max_size=6)
    | st.text(alphabet=st.characters(), max_size=6)
    | st.sampled_from(["Sec-WebSocket-Key", "a"])
)


@examples(500)
@given(
    st.lists(st.tuples(PART, PART) | PART | st.none(), max_size=4) | st.dictionaries(PART, PART),
    st.none() | PART,
    st.lists(st.text(max_size=6), max_size=3),
    st.integers(-1, 700),
)
@pytest.mark.contract("accept-headers", "accept-subprotocol", "denial-status", "exceptions-wrong-arguments")
def test_any_accept_and_denial(headers: Any, subprotocol: Any, offered: list[str], status: int) -> None:
    if offered and status % 2:
        subprotocol = offered[0]
    server = Server(subprotocols=offered)
    websocket = server.websocket()
    attempts: list[Callable[[], Any]] = [
        lambda: websocket.accept(subprotocol, headers),
        lambda: websocket.send({"type": "http.response.start", "status": status, "headers": headers}),
    ]
    for attempt in attempts if status % 3 else reversed(attempts):
        try:
            steps(attempt())
        except WebSocketRuntimeError:
            assert server.sends == 1  # the other one went through
        except (TypeError, ValueError):
            assert websocket.application_state is not WebSocketState.DISCONNECTED
    if not server.sent:
        steps(websocket.close())
    assert len(server.sent) == 1
    assert server.violations == []
    for name, value in server.sent[0].get("headers", []):
        assert not set(name + value) & set(b"\r\n\0")
    Server.made.clear()


# Linear work: counted, not timed


TraceFunction = Callable[[FrameType, str, Any], Any]


def work(function: Callable[[Any], Any], argument: Any) -> int:
    """How many lines and calls it takes, those of the standard library's own Python code included."""
    count = 0

    def trace(frame: FrameType, event: str, argument: object) -> TraceFunction:
        nonlocal count
        count += 1
        return trace

    def profile(frame: FrameType, event: str, argument: object) -> None:
        nonlocal count
        count += 1

    before_trace, before_profile = sys.gettrace(), sys.getprofile()
    sys.settrace(trace)
    sys.setprofile(profile)
    try:
        function(argument)
    finally:
        sys.setprofile(before_profile)
        sys.settrace(before_trace)
    return count


def url_of(host: bytes) -> URL:
    return URL.from_scope({"path": "/", "headers": [(b"host", host)], "server": ("a", 80)})


def json_of(payload: str) -> None:
    websocket, _ = opened(text(payload))
    try:
        steps(websocket.receive_json())
    except WebSocketDataError:
        pass
    Server.made.clear()


def close_of(reason: str) -> None:
    websocket, server = opened()
    try:
        steps(websocket.close(1000, reason))
    except ValueError:
        steps(websocket.close())
    assert server.types == ["websocket.close"]
    Server.made.clear()


def headers_of(pairs: list[tuple[bytes, bytes]]) -> None:
    headers = Header.from_scope({"headers": pairs})
    assert len(headers.getlist("a")) <= len(dict(headers)) * len(pairs)


FLOODS: dict[str, tuple[Callable[[Any], Any], Callable[[int], Any]]] = {
    "query, fields": (QueryParam, lambda n: b"a&" * n),
    "query, separators": (QueryParam, lambda n: b"&" * n),
    "query, equals": (QueryParam, lambda n: b"=" * n),
    "query, names": (QueryParam, lambda n: b"".join(b"%x=&" % i for i in range(n))),
    "query, escapes": (QueryParam, lambda n: b"%41" * n),
    "query, percents": (QueryParam, lambda n: b"%" * n),
    "query, not UTF-8": (QueryParam, lambda n: b"\xff&" * n),
    "query, escaped, not UTF-8": (QueryParam, lambda n: b"a%ff&" * n),
    "cookies": (parse_cookies, lambda n: "a=b;" * n),
    "cookies, semicolons": (parse_cookies, lambda n: ";" * n),
    "cookies, quotes": (parse_cookies, lambda n: 'a="' * n),
    "cookies, backslashes": (parse_cookies, lambda n: '"' + "\\" * n + '"'),
    "cookies, octal": (parse_cookies, lambda n: '"' + "\\101" * n + '"'),
    "cookies, escapes": (parse_cookies, lambda n: "%41" * n),
    "host": (url_of, lambda n: b"a" * n),
    "host, brackets": (url_of, lambda n: b"[" * n),
    "host, colons": (url_of, lambda n: b"[" + b":" * n + b"]"),
    "host, port": (url_of, lambda n: b"a:" + b"0" * n),
    "close, reason": (close_of, lambda n: "é" * n),
    "close, surrogates": (close_of, lambda n: "\ud800" * n),
    "headers": (headers_of, lambda n: [(b"a", b"b")] * n),
    "headers, names": (headers_of, lambda n: [(b"%x" % i, b"b") for i in range(n)]),
    "JSON, brackets": (json_of, lambda n: "[" * n),
    "JSON, numbers": (json_of, lambda n: "[" + "1.5," * n + "1]"),
    "JSON, blanks": (json_of, lambda n: " " * n),
    "JSON, surrogates": (json_of, lambda n: '"' + "\\ud800" * n + '"'),
}


@pytest.mark.contract("scope-query", "scope-cookies")
@pytest.mark.skipif(sys.gettrace() is not None, reason="something else counts the lines")
@pytest.mark.parametrize("flood", FLOODS)
def test_the_work_is_linear(flood: str) -> None:
    """Twice the input, at most a little more than twice the Python code that is run."""
    function, made = FLOODS[flood]
    work(function, made(10))  # what is done only the first time
    small, large = work(function, made(2000)), work(function, made(4000))
    assert large <= 2.2 * small + 200


def test_the_counting_finds_what_is_quadratic() -> None:
    def quadratic(size: int) -> None:
        for number in range(size):
            for _ in range(number):
                pass

    assert work(quadratic, 200) > 3.5 * work(quadratic, 100)


def test_a_refused_host_is_not_kept() -> None:
    """A cache of what clients send must not hold what is long."""
    _well_formed.cache_clear()
    for size in range(262, 300):
        url_of(b"a" * size)
    assert _well_formed.cache_info().currsize == 0


# What the counting does not see: work inside of C, by a regular expression say. 64 KB are to cost less than
# 50 ms; the processor's time, which the machine's load leaves alone, may be six times that per byte. What is
# quadratic takes hundreds of times as long at this size.
SECONDS_PER_BYTE = 6 * 0.050 / 65536


def seconds_per_byte(function: Callable[[Any], Any], made: Callable[[int], Any], size: int) -> float:
    """The processor's time for input of about this size."""
    unit = made(1000)
    bytes_of_it = len(unit) if not isinstance(unit, list) else sum(len(a) + len(b) for a, b in unit)
    argument = made(size * 1000 // bytes_of_it)
    before = time.thread_time()
    function(argument)
    return (time.thread_time() - before) / size


@pytest.mark.contract("scope-query", "scope-cookies")
@pytest.mark.skipif(sys.gettrace() is not None, reason="something else takes its time for every line")
@pytest.mark.parametrize("flood", FLOODS)
def test_the_work_inside_of_c_is_linear(flood: str) -> None:
    assert seconds_per_byte(*FLOODS[flood], 2**19) < SECONDS_PER_BYTE


@pytest.mark.skipif(sys.gettrace() is not None, reason="something else takes its time for every line")
def test_the_clock_finds_what_is_quadratic_inside_of_c() -> None:
    quadratic = re.compile(b"a*b").search
    assert work(quadratic, b"a" * 4000) == work(quadratic, b"a" * 8000)
    assert seconds_per_byte(quadratic, lambda n: b"a" * n, 2**15) > SECONDS_PER_BYTE


def test_a_long_path_is_not_kept() -> None:
    _known_path.cache_clear()
    for size in range(257, 300):
        assert URL.from_scope({"path": "/" * size}).path == "/%2F" + "/" * (size - 2)
    assert _known_path.cache_info().currsize == 0
    URL.from_scope({"path": "/chat"})
    assert _known_path.cache_info().currsize == 1


def test_a_violation_in_a_property_would_be_seen() -> None:
    server = Server()
    with pytest.raises(Violation):
        steps(server.send({"type": "websocket.send", "text": "a"}))
    assert server.violations
    Server.made.clear()

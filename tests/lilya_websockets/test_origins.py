"""`OriginGuard`: the table of cases, in process and over real servers, and what is logged."""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
from pathlib import Path
from typing import Any

import pytest

from lilya.websockets import WebSocket, WebSocketDisconnect
from lilya.websockets.origins import OriginGuard
from lilya.websockets.testing import WebSocketDenialResponse, connect

from .test_uvicorn import PEM, serving

pytestmark = pytest.mark.anyio  # which does nothing to the tests that need no event loop

CASES: list[dict[str, Any]] = json.loads(
    Path(__file__).with_name("origin_cases.json").read_text(encoding="utf-8")
)["cases"]


async def nothing(scope: Any, receive: Any, send: Any) -> None:
    raise AssertionError("the app was called")


def scope_of(case: dict[str, Any], type: str = "websocket") -> dict[str, Any]:
    headers = [("origin", value) for value in case["origin"]] + [("host", value) for value in case["host"]]
    headers += case.get("headers", {}).items()
    return {
        "type": type,
        "method": "POST",
        "path": "/",
        "scheme": case["scheme"] if type == "websocket" else case["scheme"].replace("ws", "http"),
        "headers": [(name.lower().encode(), value.encode()) for name, value in headers],
    }


@pytest.mark.parametrize("type", ["websocket", "http"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case["id"]))
def test_the_table(case: dict[str, Any], type: str) -> None:
    if case["expect"] == "error":
        with pytest.raises(ValueError, match=r"origin|host|null|ASCII"):
            OriginGuard(nothing, **case["config"])
        return
    refusal = OriginGuard(nothing, **case["config"]).refusal(scope_of(case, type))
    assert (refusal is None) == (case["expect"] == "allow"), (refusal, case["reason"])


# Over real servers


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # uvicorn's
@pytest.mark.parametrize("scheme", ["ws", "wss"])
@pytest.mark.parametrize("http", ["httptools", "h11"])
@pytest.mark.parametrize("protocol", ["lilya.websockets.uvicorn:WebSocketProtocol", "websockets-sansio"])
async def test_the_table_over_a_server(protocol: str, http: str, scheme: str) -> None:
    """Each header goes out byte for byte. A server that refuses a malformed request itself has denied it."""
    cases = [case for case in CASES if case["expect"] != "error" and case["scheme"] == scheme]
    guards = {b"%d" % case["id"]: OriginGuard(accepting, **case["config"]) for case in cases}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await guards[scope["query_string"]](scope, receive, send)

    options: dict[str, Any] = {"ssl_certfile": str(PEM)} if scheme == "wss" else {}
    tls = ssl.create_default_context(cafile=str(PEM)) if scheme == "wss" else None
    verdicts = {}
    # uvicorn's own reading of a proxy's headers would make the scheme another one before the guard looks.
    async with serving(app, ws=protocol, http=http, proxy_headers=False, **options) as server:
        for case in cases:
            headers = [("Origin", value) for value in case["origin"]]
            headers += [("Host", value) for value in case["host"]]
            headers += case.get("headers", {}).items()
            request = [b"GET /?%d HTTP/1.1" % case["id"], *HANDSHAKE]
            request += [f"{name}: {value}".encode() for name, value in headers]
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", server.port, ssl=tls, server_hostname="localhost" if tls else None
            )
            writer.write(b"\r\n".join((*request, b"", b"")))
            status = (await reader.readline()).split()[1]
            assert status in (b"101", b"403", b"400"), status
            verdicts[case["id"]] = "allow" if status == b"101" else "deny"
            if status == b"101":
                writer.write(CLOSE)
            # The server ends the connection: before Python 3.11 its TLS complains of one that was lost.
            await reader.read()
            writer.close()
    assert verdicts == {case["id"]: case["expect"] for case in cases}


HANDSHAKE = [
    b"Connection: Upgrade",
    b"Upgrade: websocket",
    b"Sec-WebSocket-Version: 13",
    b"Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==",
]
CLOSE = b"\x88\x82\0\0\0\0\x03\xe8"  # code 1000, masked with nothing


async def accepting(scope: Any, receive: Any, send: Any) -> None:
    websocket = WebSocket(scope, receive, send)
    await websocket.accept()
    await websocket.close()


async def test_a_refused_handshake_is_a_403_and_an_allowed_one_reaches_the_app() -> None:
    app = OriginGuard(accepting)
    for origin, allowed in (("http://testserver", True), ("http://evil.example", False)):
        headers = {"origin": origin, "host": "testserver"}
        if allowed:
            async with connect(app, "/", headers=headers) as websocket:
                with pytest.raises(WebSocketDisconnect):
                    await websocket.receive_text()
            continue
        with pytest.raises(WebSocketDenialResponse) as denied:
            async with connect(app, "/", headers=headers):
                raise AssertionError("accepted")
        assert denied.value.status_code == 403
    assert app.refused == 1


# HTTP requests, and the rest


async def answered(app: Any, method: str, **more: Any) -> list[Any]:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": method, "path": "/", "scheme": "http", **more}
    await app(scope, None, send)
    return sent


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "TRACE", "POST", "PUT", "PATCH", "DELETE", "X"])
async def test_requests_that_may_change_something(method: str) -> None:
    seen: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["method"])

    headers = iter([(b"Origin", b"http://evil.example"), (b"Host", b"example.com")])
    sent = await answered(OriginGuard(app), method, headers=headers)
    if method in ("GET", "HEAD", "OPTIONS", "TRACE"):
        assert (seen, sent) == ([method], [])
        return
    assert seen == []
    start, body = sent
    assert start["status"] == 403
    assert dict(start["headers"])[b"content-length"] == str(len(body["body"])).encode()


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "POST"])
async def test_another_host_is_denied_whatever_the_method(method: str) -> None:
    """After DNS rebinding, the attacker's page is of the same origin and reads what GET answers."""
    seen: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["method"])

    guard = OriginGuard(app, hosts=["localhost"])
    start, _ = await answered(guard, method, headers=[(b"host", b"evil.example:8000")])
    assert (start["status"], seen) == (403, [])
    headers = [(b"host", b"localhost:8000"), (b"sec-fetch-site", b"cross-site")]
    sent = await answered(guard, method, headers=headers)
    assert (sent == []) == (method != "POST")


async def test_a_scope_whose_headers_can_be_read_once_is_whole_for_the_app() -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.extend(scope["headers"])

    pairs = [(b"Origin", b"http://example.com"), (b"Host", b"example.com"), (b"x", b"y")]
    await answered(OriginGuard(app), "POST", headers=iter(pairs))
    assert seen == pairs


async def test_other_scopes_pass() -> None:
    seen: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["type"])

    await OriginGuard(app, missing="deny")({"type": "lifespan"}, None, None)
    assert seen == ["lifespan"]


# What is logged


def refused(guard: OriginGuard, origin: str, **headers: str) -> None:
    sent = {"origin": origin, "host": "example.com", **headers}
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/",
        "scheme": "http",
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in sent.items()],
    }

    async def send(message: Any) -> None:
        pass

    with pytest.raises(StopIteration):
        guard(scope, None, send).send(None)


def test_each_refusal_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    guard = OriginGuard(nothing)
    for origin in ("http://a.example", "http://b.example", "http://a.example"):
        refused(guard, origin)
    assert [record.getMessage() for record in caplog.records] == [
        f"refused an HTTP request with Origin 'http://{name}.example': Origin is neither the request's own "
        "nor one of `origins`"
        for name in ("a", "b")
    ]
    assert guard.refused == 3


def test_what_is_logged_is_bounded_and_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    guard = OriginGuard(nothing)
    refused(guard, "http://a\r\nforged: line" + "x" * 10_000, cookie="secret")
    (record,) = caplog.records
    assert "\n" not in record.getMessage()
    assert len(record.getMessage()) < 300
    assert "secret" not in record.getMessage()
    for number in [*range(1_000), *range(1_000)]:
        refused(guard, f"http://{number}.example")
    *lines, last = (record.getMessage() for record in caplog.records)
    assert len(set(lines)) == len(lines) == 256
    assert last == "256 different refusals were logged; this guard only counts further ones"
    assert guard.refused == 2_001


def test_the_refusal_names_the_proxy() -> None:
    case = next(case for case in CASES if case["id"] == 7)
    refusal = OriginGuard(nothing).refusal(scope_of(case))
    assert refusal is not None
    assert "scheme='https'" in refusal
    assert OriginGuard(nothing, scheme="https").refusal(scope_of(case)) is None


# More cases of the same kinds


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"origins": ["https://*.co.uk"]}, "wildcard for all of 'co.uk'"),
        ({"origins": ["https://*.github.io"]}, "wildcard for all of 'github.io'"),
        ({"origins": ["https://*.127.0.0.1"]}, "wildcard before an address"),
        ({"origins": ["https://*.[::1]"]}, "wildcard before an address"),
        ({"origins": ["https://a.*.example.com"]}, "invalid"),
        ({"origins": ["https://*example.com"]}, "invalid"),
        ({"origins": ["https://example.com:443:*"]}, "invalid"),
        ({"origins": ["https://example.com:0"]}, "invalid"),
        ({"origins": ["https://Example.com"]}, "upper case"),
        ({"origins": ["HTTPS://example.com"]}, "upper case"),
        ({"origins": ["1https://example.com"]}, "invalid scheme"),
        ({"origins": ["NULL"]}, "'null' cannot be listed"),
        ({"origins": ["https://exämple.com:8443"]}, r"write 'https://xn--exmple-cua.com:8443'"),
        ({"origins": ["https://.ä"]}, "not ASCII"),
        ({"hosts": ["https://example.com"]}, "the host 'https://example.com' is invalid"),
        ({"hosts": ["example.com/"]}, "invalid"),
        ({"hosts": ["EXAMPLE.com"]}, "upper case"),
        ({"hosts": ["exämple.com"]}, "write 'xn--exmple-cua.com'"),
        ({"missing": "ignore"}, "missing must be 'allow' or 'deny'"),
        ({"scheme": "wss"}, "scheme must be 'http', 'https' or None"),
    ],
)
def test_a_configuration_that_is_refused(config: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        OriginGuard(nothing, **config)


@pytest.mark.parametrize("name", ["origins", "hosts"])
def test_an_argument_of_another_type(name: str) -> None:
    with pytest.raises(TypeError, match=f"{name} must be a list of strings, got 'http"):
        OriginGuard(nothing, **{name: "https://example.com"})  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=f"{name} must contain strings, got 1"):
        OriginGuard(nothing, **{name: [1]})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["same_origin", "forwarded_host", "forwarded_proto"])
@pytest.mark.parametrize("value", [1, "no", None])
def test_a_switch_of_another_type(name: str, value: object) -> None:
    with pytest.raises(TypeError, match=f"^{name} must be bool, got {type(value).__name__}$"):
        OriginGuard(nothing, **{name: value})  # type: ignore[arg-type]


def test_a_wildcard_without_the_list_of_suffixes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "publicsuffixlist", None)
    with pytest.raises(ImportError, match=r"install lilya-websockets\[origins\]"):
        OriginGuard(nothing, origins=["https://*.example.com"])
    OriginGuard(nothing, origins=["https://example.com"])


EXAMPLE = {"origin": ["https://example.com"], "host": ["example.com"], "scheme": "wss"}


@pytest.mark.parametrize(
    ("change", "config", "allowed"),
    [
        ({"origin": ["null"]}, {"origins": "*"}, False),
        ({"origin": ["null"]}, {}, False),
        ({"origin": ["https://example.com:0443"]}, {}, False),
        ({"origin": ["https://example.com:443"]}, {}, True),
        ({"origin": ["https://127.1"], "host": ["127.0.0.1"]}, {}, False),
        ({"origin": ["https://0x7f.1"], "host": ["0x7f.1"]}, {}, False),
        ({"origin": ["https://0x7f000001"], "host": ["0x7f000001"]}, {}, False),
        ({"origin": ["https://a.0x"], "host": ["a.0x"]}, {}, False),
        ({"origin": ["https://x.0xg"], "host": ["x.0xg"]}, {}, True),
        ({"origin": ["http://a.localhost:5173"]}, {"origins": ["http://*.localhost:*"]}, True),
        ({"origin": ["http://localhost:5173"]}, {"origins": ["http://*.localhost:*"]}, False),
        ({"headers": {"Sec-Fetch-Site": "same-origin, cross-site"}}, {}, False),
        ({"origin": ["https://[::1]x"], "host": ["[::1]"]}, {}, False),
        ({"origin": ["https://[::ffff:g]"], "host": ["[::1]"]}, {}, False),
        ({"origin": ["https://" + "a." * 126 + "com"], "host": ["a." * 126 + "com"]}, {}, False),
        ({"origin": ["capacitor://localhost"]}, {"origins": ["capacitor://localhost"]}, True),
        ({"origin": ["https://10.0.0.7"]}, {"origins": ["https://10.0.0.7"]}, True),
        ({"origin": ["https://a.example.org"]}, {"origins": ["https://*.example.com"]}, False),
        ({}, {"origins": ["https://*.example.com"], "same_origin": False}, False),
        ({"scheme": "unix"}, {}, False),
        ({"headers": {"X-Forwarded-Proto": "https, http"}, "scheme": "ws"}, {"forwarded_proto": True}, False),
        ({"headers": {"X-Forwarded-Proto": "ftp"}}, {"forwarded_proto": True}, False),
        ({"headers": {"X-Forwarded-Proto": "http"}}, {"scheme": "https", "forwarded_proto": True}, True),
        ({"headers": {"X-Forwarded-Host": ""}}, {"forwarded_host": True}, False),
        ({"headers": {"Sec-Fetch-Site": "cross-site"}, "origin": []}, {"origins": "*"}, True),
        ({"headers": {"Sec-Fetch-Site": "cross-site"}}, {"origins": ["https://example.com"]}, True),
        ({"headers": {"Sec-Fetch-Site": "nonsense"}}, {}, False),
        ({"headers": {"Sec-Fetch-Site": "none"}}, {}, True),
        ({"host": ["a.example.com"], "origin": []}, {"hosts": ["*.example.com"]}, True),
        ({"host": ["example.com:8443"], "origin": []}, {"hosts": ["example.com:443"]}, False),
        ({"host": ["example.com:8443"], "origin": []}, {"hosts": ["example.com"]}, True),
        ({"host": [], "origin": []}, {"hosts": ["example.com"]}, False),
        ({"host": ["example.com", "example.com"], "origin": []}, {"hosts": ["example.com"]}, False),
        ({"host": ["example.com:"], "origin": []}, {"hosts": ["example.com"]}, False),
    ],
)  # fmt: skip
def test_more_cases(change: dict[str, Any], config: dict[str, Any], allowed: bool) -> None:
    guard = OriginGuard(nothing, **config)
    assert (guard.refusal(scope_of(EXAMPLE | change)) is None) == allowed


def test_an_origin_header_twice_in_other_case() -> None:
    scope = scope_of(EXAMPLE)
    scope["headers"].append((b"ORIGIN", b"https://example.com"))
    assert OriginGuard(nothing).refusal(scope) == "there is more than one Origin"


def test_two_forwarded_schemes() -> None:
    scope = scope_of(EXAMPLE)
    scope["headers"] += [(b"x-forwarded-proto", b"https")] * 2
    assert OriginGuard(nothing, forwarded_proto=True).refusal(scope) == "X-Forwarded-Proto is not one scheme"

"""The table of origins on every server: each header goes out byte for byte, and the verdict comes back."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

from .client import LIMIT
from .endings import WSPROTO
from .running import Server

CASES = [
    case
    for case in json.loads(
        (Path(__file__).parents[1] / "lilya_websockets" / "origin_cases.json").read_text(encoding="utf-8")
    )["cases"]
    if case["expect"] != "error"
]
# Cases that are allowed elsewhere, and why not there.
STRICTER = {WSPROTO: {57: "It decodes a Host such as `xn--exmple-cua.com`, which is malformed then."}}


def verdict(server: Server, case: dict[str, Any]) -> str:
    headers = [("Origin", value) for value in case["origin"]] + [("Host", value) for value in case["host"]]
    headers += case.get("headers", {}).items()
    request = [
        f"GET /origin/{case['id']}?number=0 HTTP/1.1".encode(),
        b"Connection: Upgrade",
        b"Upgrade: websocket",
        b"Sec-WebSocket-Version: 13",
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        *(f"{name}: {value}".encode() for name, value in headers),
    ]
    with socket.create_connection(("127.0.0.1", server.port), LIMIT) as client:
        client.sendall(b"\r\n".join((*request, b"", b"")))
        received = b""
        while b"\r\n" not in received and (more := client.recv(4096)):
            received += more
    status = received.split(b" ")[1] if received else b"none"
    # 500 is what uvicorn's implementation with `websockets` answers to a header that is not ASCII.
    assert status in (b"101", b"403", b"400", b"500", b"none"), status
    return "allow" if status == b"101" else "deny"


def test_the_table_of_origins(server: Server) -> None:
    """A server that refuses a malformed request itself has denied it."""
    found = {case["id"]: verdict(server, case) for case in CASES}
    stricter = STRICTER.get(server.kind.name, {})
    wanted = {case["id"]: "deny" if case["id"] in stricter else case["expect"] for case in CASES}
    assert {number: found[number] for number in found if found[number] != wanted[number]} == {}
    assert len(found) > 90


def test_a_case_that_is_stricter_is_one_that_is_allowed_elsewhere() -> None:
    expected = {case["id"]: case["expect"] for case in CASES}
    assert all(expected[number] == "allow" for cases in STRICTER.values() for number in cases)

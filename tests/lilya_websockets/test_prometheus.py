"""Metrics for Prometheus: what the registry says after connections, in one process and in several."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from lilya.websockets import WebSocket
from lilya.websockets.observing import observe, report_dropped, report_slow
from lilya.websockets.origins import OriginGuard
from lilya.websockets.prometheus import PrometheusObserver
from lilya.websockets.testing import WebSocketDenialResponse, connect

from .server import Server
from .test_observing import ORIGIN, echo

pytestmark = pytest.mark.anyio


def samples(registry: CollectorRegistry) -> dict[str, float]:
    """What Prometheus would read, without what is 0 and without the times of creation."""
    return {
        sample.name + "".join(f" {key}={value}" for key, value in sample.labels.items()): sample.value
        for family in text_string_to_metric_families(generate_latest(registry).decode())
        for sample in family.samples
        if sample.value and not sample.name.endswith("_created") and "_bucket" not in sample.name
    }


async def test_what_is_counted() -> None:
    registry = CollectorRegistry()
    observer = PrometheusObserver(registry)
    app = observe(OriginGuard(echo), observer)
    async with connect(app, "/secret?token=secret") as session:
        assert samples(registry) == {"websocket_open_connections": 1, "websocket_opened_total": 1}
        await session.send_text("hä")
        await session.receive_text()
        await session.close(4321)
    with pytest.raises(WebSocketDenialResponse):
        async with connect(app, "/", headers=ORIGIN):
            raise AssertionError("accepted")
    found = samples(registry)
    assert found.pop("websocket_duration_seconds_sum route=") > 0
    assert found == {
        "websocket_opened_total": 1,
        "websocket_refused_total by=OriginGuard status=403": 1,
        "websocket_ended_total by=client code=4xxx failed=false route=": 1,
        "websocket_duration_seconds_count route=": 1,
        "websocket_messages_total direction=in kind=text": 1,
        "websocket_messages_total direction=out kind=text": 1,
        "websocket_message_bytes_total direction=in kind=text": 3,
        "websocket_message_bytes_total direction=out kind=text": 3,
    }
    assert b"secret" not in generate_latest(registry)


async def test_failures_and_slow_clients() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        scope["path_template"] = "/rooms/{name}"
        websocket = WebSocket(scope, receive, send)
        await websocket.accept()
        await websocket.send_bytes(b"abc")
        report_dropped(websocket, 3)
        report_slow(websocket)
        raise LookupError

    async def returns(scope: Any, receive: Any, send: Any) -> None:
        pass

    registry = CollectorRegistry()
    observer, server = PrometheusObserver(registry, prefix="chat"), Server()
    with pytest.raises(LookupError):
        await observe(app, observer)(server.scope, server.receive, server.send)
    await observe(returns, observer)(server.scope, server.receive, server.send)
    found = samples(registry)
    assert found["chat_ended_total by=server code=none failed=true route=/rooms/{name}"] == 1
    assert found["chat_duration_seconds_count route=/rooms/{name}"] == 1
    assert found["chat_dropped_events_total"] == 3
    assert found["chat_slow_total"] == 1
    assert found["chat_refused_total by=error status=none"] == 1
    assert found["chat_message_bytes_total direction=out kind=bytes"] == 3
    assert "chat_open_connections" not in found


def test_one_for_each_registry_and_prefix() -> None:
    registry = CollectorRegistry()
    PrometheusObserver(registry)
    PrometheusObserver(registry, prefix="chat")
    with pytest.raises(ValueError, match="Duplicated"):
        PrometheusObserver(registry)


def test_processes_are_added_up(tmp_path: Path) -> None:
    work = """
import asyncio
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from lilya.websockets.observing import observe
from lilya.websockets.prometheus import PrometheusObserver
async def app(scope, receive, send):
    await send({"type": "websocket.accept"})
    registry = CollectorRegistry()
    MultiProcessCollector(registry)
    print(generate_latest(registry).decode())
async def nothing(message=None):
    pass
asyncio.run(observe(app, PrometheusObserver())({"type": "websocket"}, nothing, nothing))
"""
    seen = ""
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", work],
            env={"PROMETHEUS_MULTIPROC_DIR": str(tmp_path), "PATH": ""},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        seen = done.stdout
    assert "websocket_opened_total 2.0" in seen
    assert "websocket_open_connections 1.0" in seen  # the first process has closed its own

"""Spans and metrics for OpenTelemetry, with its SDK. Instrumentations are in `tests/frameworks`."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from lilya.websockets import WebSocket
from lilya.websockets.limits import LimitGuard
from lilya.websockets.observing import connection_id, explain, observe, report_dropped, report_slow
from lilya.websockets.opentelemetry import _HEADERS, OpenTelemetryObserver
from lilya.websockets.testing import connect

from .server import Server, disconnect, header_pairs
from .test_observing import echo

pytestmark = pytest.mark.anyio

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


class Telemetry:
    """Providers that keep everything."""

    def __init__(self) -> None:
        self._spans = InMemorySpanExporter()
        self.tracer_provider = TracerProvider()
        self.tracer_provider.add_span_processor(SimpleSpanProcessor(self._spans))
        self._metrics = InMemoryMetricReader()
        self.meter_provider = MeterProvider([self._metrics])
        self.observer = OpenTelemetryObserver(self.tracer_provider, self.meter_provider)

    @property
    def spans(self) -> list[Any]:
        return list(self._spans.get_finished_spans())

    @property
    def metrics(self) -> dict[str, Any]:
        """By name and attributes: a value, or the count and the sum of a histogram."""
        found: dict[str, Any] = {}
        read: Any = self._metrics.get_metrics_data()
        for resource in read.resource_metrics if read else ():
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    for point in metric.data.data_points:
                        name = " ".join(
                            [metric.name, *(f"{k}={v}" for k, v in sorted(point.attributes.items()))]
                        )
                        found[name] = (point.count, point.sum) if hasattr(point, "count") else point.value
        return found


async def test_a_connection() -> None:
    telemetry = Telemetry()
    async with connect(observe(echo, telemetry.observer), "/secret?token=secret") as session:
        assert telemetry.metrics == {"lilya.websocket.active_connections": 1}
        await session.send_text("hä")
        await session.receive_text()
        await session.close(4321, "secret")
    (span,) = telemetry.spans
    assert (span.name, span.kind, span.parent) == ("WS", trace.SpanKind.SERVER, None)
    assert span.status.is_unset
    assert dict(span.attributes) | {"lilya.websocket.connection.id": ""} == {
        "network.protocol.name": "websocket",
        "lilya.websocket.connection.id": "",
        "lilya.websocket.ended_by": "client",
        "lilya.websocket.close.code": 4321,
        "http.response.status_code": 101,
        "lilya.websocket.messages.received": 1,
        "lilya.websocket.messages.sent": 1,
        "lilya.websocket.bytes.received": 3,
        "lilya.websocket.bytes.sent": 3,
    }
    assert "secret" not in span.to_json()
    metrics = telemetry.metrics
    duration = (
        "lilya.websocket.connection.duration lilya.websocket.close.code=4xxx lilya.websocket.ended_by=client"
    )
    assert metrics.pop(duration)[0] == 1
    size = "lilya.websocket.message.size lilya.websocket.message.kind=text network.io.direction"
    assert metrics == {
        "lilya.websocket.active_connections": 0,
        f"{size}=receive": (1, 3),
        f"{size}=transmit": (1, 3),
    }


@pytest.mark.parametrize("once", [False, True])
async def test_the_trace_of_the_client_goes_on(once: bool) -> None:
    telemetry = Telemetry()
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        with telemetry.tracer_provider.get_tracer("app").start_as_current_span("work"):
            seen.append(connection_id(scope))
        seen.append(list(scope["headers"]))
        await WebSocket(scope, receive, send).close()

    pair = (b"TraceParent", f"00-{TRACE}-{PARENT}-01".encode())
    headers: Any = [pair, *header_pairs("a")]
    server = Server(headers=iter(headers) if once else headers)
    await observe(app, telemetry.observer)(server.scope, server.receive, server.send)
    work, span = telemetry.spans
    assert f"{span.context.trace_id:032x}" == f"{work.context.trace_id:032x}" == TRACE
    assert f"{span.parent.span_id:016x}" == PARENT
    assert work.parent.span_id == span.context.span_id
    assert span.attributes["lilya.websocket.connection.id"] == seen[0]
    assert seen[1] == headers
    assert _HEADERS.keys({"headers": headers}) == ["TraceParent", "a"]  # for propagators that list them
    assert not trace.get_current_span().get_span_context().is_valid


async def test_a_current_span_is_the_parent_or_the_one() -> None:
    telemetry = Telemetry()
    tracer = telemetry.tracer_provider.get_tracer("around")
    server = Server(disconnect(), headers=[(b"traceparent", f"00-{TRACE}-{PARENT}-01".encode())])
    with tracer.start_as_current_span("around"):
        await observe(echo, telemetry.observer)(server.scope, server.receive, server.send)
    own, around = telemetry.spans
    assert own.parent.span_id == around.context.span_id
    assert around.attributes == {}

    telemetry = Telemetry()
    tracer = telemetry.tracer_provider.get_tracer("instrumentation")
    server = Server(disconnect())
    with tracer.start_as_current_span("/route", kind=trace.SpanKind.SERVER):
        await observe(echo, telemetry.observer)(server.scope, server.receive, server.send)
    (span,) = telemetry.spans
    assert span.name == "/route"
    assert span.attributes["lilya.websocket.ended_by"] == "client"


async def test_refusals() -> None:
    telemetry = Telemetry()
    server = Server()
    guard = LimitGuard(echo, connections=0)
    await observe(guard, telemetry.observer)(server.scope, server.receive, server.send)
    (span,) = telemetry.spans
    assert span.attributes["http.response.status_code"] == 503
    assert span.attributes["lilya.websocket.refused_by"] == "LimitGuard"
    assert span.attributes["lilya.websocket.why"] == "connections"
    assert telemetry.metrics == {
        "lilya.websocket.refusals http.response.status_code=503 lilya.websocket.refused_by=LimitGuard": 1
    }


async def test_failures() -> None:
    class Odd(Exception):
        pass

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scope["path_template"] = "/rooms/{name}"
        if scope["query_string"]:
            websocket = WebSocket(scope, receive, send)
            await websocket.accept()
            report_dropped(websocket, 3)
            report_slow(websocket)
            explain(websocket, "why")
            await websocket.close(4003)
            raise Odd("secret")
        raise LookupError("secret")

    telemetry = Telemetry()
    for query, error in ((b"", LookupError), (b"a", Odd)):
        server = Server(query_string=query)
        with pytest.raises(error):
            await observe(app, telemetry.observer)(server.scope, server.receive, server.send)
    refused, ended = telemetry.spans
    for span in (refused, ended):
        assert span.status.status_code is trace.StatusCode.ERROR
        assert span.name == "WS /rooms/{name}"
        assert span.attributes["http.route"] == "/rooms/{name}"
        assert (span.events, span.status.description) == ((), None)
    assert refused.attributes["error.type"] == "LookupError"
    odd = f"{Odd.__module__}.{Odd.__qualname__}"
    assert ended.attributes["error.type"] == odd
    assert ended.attributes["lilya.websocket.why"] == "why"
    metrics = telemetry.metrics
    assert metrics["lilya.websocket.refusals lilya.websocket.refused_by=error"] == 1
    assert metrics["lilya.websocket.dropped_events"] == 3
    assert metrics["lilya.websocket.slow_connections"] == 1
    assert [name for name in metrics if "duration" in name] == [
        f"lilya.websocket.connection.duration error.type={odd} http.route=/rooms/{{name}} "
        "lilya.websocket.close.code=4003 lilya.websocket.ended_by=app"
    ]


async def test_an_app_that_leaves_it_open_or_is_thrown_away(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await WebSocket(scope, receive, send).accept()

    telemetry, server = Telemetry(), Server()
    await observe(app, telemetry.observer)(server.scope, server.receive, server.send)
    (span,) = telemetry.spans
    assert "lilya.websocket.close.code" not in span.attributes
    assert span.attributes["lilya.websocket.ended_by"] == "server"

    class Forever:
        def __await__(self) -> Any:
            yield

    async def waits(scope: Any, receive: Any, send: Any) -> None:
        await Forever()

    coroutine: Any = observe(waits, telemetry.observer)(server.scope, server.receive, server.send)
    outside = __import__("contextvars").copy_context()
    outside.run(coroutine.send, None)
    coroutine.close()
    assert len(telemetry.spans) == 2
    assert caplog.records == []


async def test_without_an_sdk_nothing_is_recorded() -> None:
    observer = OpenTelemetryObserver()
    async with connect(observe(echo, observer), "/") as session:
        await session.send_text("a")
        assert await session.receive_text() == "a"
    assert observer._spans == {}

import pytest
from fastapi import FastAPI
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from docs_src.guides.observing.telemetry import room
from lilya.websockets.observing import observe
from lilya.websockets.opentelemetry import OpenTelemetryObserver
from lilya.websockets.testing import connect

pytestmark = pytest.mark.anyio


async def test_one_span_for_a_connection() -> None:
    spans, traces = InMemorySpanExporter(), TracerProvider()
    traces.add_span_processor(SimpleSpanProcessor(spans))
    app = FastAPI()
    app.add_api_websocket_route("/rooms/{name}", room)
    app.add_middleware(observe, OpenTelemetryObserver(traces, MeterProvider([InMemoryMetricReader()])))
    async with connect(app, "/rooms/blue") as session:
        await session.send_text("Hello")
        assert await session.receive_text() == "blue: Hello"
    (span,) = spans.get_finished_spans()
    assert span.name == "WS /rooms/{name}"
    assert span.attributes is not None
    assert span.attributes["lilya.websocket.ended_by"] == "client"
    assert span.attributes["lilya.websocket.messages.received"] == 1

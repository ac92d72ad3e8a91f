"""Observers around and inside of frameworks, and beside telemetry that counts connections, too."""

# No `from __future__ import annotations`: frameworks cannot resolve the names of what a function defines.

import copy
from typing import Any

import anyio
import pytest

pytest.importorskip("fastapi", reason="they have an environment of their own: nox -s tests")

import fastapi
import litestar
import starlette.applications
import starlette.routing
from litestar.middleware import DefineMiddleware
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from lilya.websockets.observing import End, ObservedConnection, Observer, Refusal, observe
from lilya.websockets.opentelemetry import OpenTelemetryObserver
from lilya.websockets.origins import OriginGuard
from lilya.websockets.testing import WebSocketDenialResponse, WebSocketDisconnect, connect


class Log(Observer):
    """Writes down what it is told, with the route."""

    def __init__(self) -> None:
        self.events: list[tuple[Any, ...]] = []

    def began(self, connection: ObservedConnection) -> None:
        self.events.append(("began", connection.route))

    def refused(self, connection: ObservedConnection, refusal: Refusal) -> None:
        self.events.append(("refused", refusal.by, refusal.status, refusal.why))

    def ended(self, connection: ObservedConnection, end: End) -> None:
        self.events.append(("ended", connection.route, end.by, end.code))


def fastapi_app(**options: Any) -> fastapi.FastAPI:
    app = fastapi.FastAPI(**options)

    @app.websocket("/rooms/{name}")
    async def room(websocket: fastapi.WebSocket, name: str) -> None:
        await websocket.accept()
        await websocket.send_text(name)
        await websocket.close(4000 + len(name))

    return app


def starlette_app() -> starlette.applications.Starlette:
    async def room(websocket: Any) -> None:
        await websocket.accept()
        await websocket.send_text(websocket.path_params["name"])
        await websocket.close(4000 + len(websocket.path_params["name"]))

    return starlette.applications.Starlette(routes=[starlette.routing.WebSocketRoute("/rooms/{name}", room)])


def litestar_app(**options: Any) -> litestar.Litestar:
    @litestar.websocket("/rooms/{name:str}")
    async def room(socket: litestar.WebSocket[Any, Any, Any]) -> None:
        name = socket.path_params["name"]
        await socket.accept()
        await socket.send_text(name)
        await socket.close(code=4000 + len(name))

    return litestar.Litestar([room], **options)


async def visit(app: Any, path: str = "/rooms/ann") -> None:
    async with connect(app, path) as session:
        assert await session.receive_text() == "ann"
        with pytest.raises(WebSocketDisconnect):
            await session.receive_text()


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize(
    ("make", "route"),
    [(fastapi_app, "/rooms/{name}"), (starlette_app, "/rooms/{name}"), (litestar_app, "/rooms/{name}")],
    ids=["fastapi", "starlette", "litestar"],
)
def test_around_a_framework(make: Any, route: str | None, backend: str) -> None:
    log = Log()

    async def look() -> None:
        app = observe(make(), log)
        await visit(app)
        with pytest.raises((WebSocketDenialResponse, WebSocketDisconnect)):
            async with connect(app, "/nowhere"):
                raise AssertionError("accepted")

    anyio.run(look, backend=backend)
    assert log.events[:2] == [("began", None), ("ended", route, "app", 4003)]
    assert log.events[3][:2] == ("refused", "app")


def test_as_middleware() -> None:
    """Of FastAPI, Starlette and Litestar; a guard that was added before is inside."""

    async def look(app: Any) -> None:
        with pytest.raises(WebSocketDenialResponse):
            await visit(app)

    refused = ("refused", "OriginGuard", 403, "Host is none of `hosts`")
    for make in (fastapi_app, starlette_app):
        log = Log()
        app: Any = make()
        app.add_middleware(OriginGuard, hosts=["example.org"])
        app.add_middleware(observe, log)
        anyio.run(look, app)
        assert log.events == [("began", None), refused]
    log = Log()
    app = litestar_app(
        middleware=[
            lambda app: observe(app, log),
            DefineMiddleware(OriginGuard, hosts=["example.org"]),
        ]
    )
    anyio.run(look, app)
    assert log.events[1:] == [refused]


# Telemetry


class Telemetry:
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
    def metrics(self) -> set[str]:
        read: Any = self._metrics.get_metrics_data()
        return {
            metric.name
            for resource in read.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }


OWN = {
    "lilya.websocket.active_connections",
    "lilya.websocket.connection.duration",
    "lilya.websocket.message.size",
}


def native(telemetry: Telemetry, inside: bool) -> Any:
    """FastAPI's own telemetry."""
    options = {"tracer_provider": telemetry.tracer_provider, "meter_provider": telemetry.meter_provider}
    app = fastapi_app(telemetry=options)
    if inside:
        app.add_middleware(observe, telemetry.observer)
        return app
    return observe(app, telemetry.observer)


def contributed(telemetry: Telemetry, inside: bool) -> Any:
    """`opentelemetry-instrumentation-fastapi`."""
    app = fastapi_app()
    if inside:
        app.add_middleware(observe, telemetry.observer)
    FastAPIInstrumentor.instrument_app(
        app,
        tracer_provider=telemetry.tracer_provider,
        meter_provider=telemetry.meter_provider,
        exclude_spans=["receive", "send"],
    )
    return app if inside else observe(app, telemetry.observer)


def asgi(telemetry: Telemetry, inside: bool) -> Any:
    """`opentelemetry-instrumentation-asgi`."""

    def instrument(app: Any) -> Any:
        return OpenTelemetryMiddleware(
            app,
            tracer_provider=telemetry.tracer_provider,
            meter_provider=telemetry.meter_provider,
            exclude_spans=["receive", "send"],
        )

    app = starlette_app()
    return (
        instrument(observe(app, telemetry.observer))
        if inside
        else observe(instrument(app), telemetry.observer)
    )


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("make", [native, contributed, asgi])
def test_beside_other_telemetry_nothing_is_counted_twice(make: Any, inside: bool) -> None:
    """One span of kind SERVER for a connection, with our attributes, and each metric from one source."""
    telemetry = Telemetry()
    anyio.run(visit, make(telemetry, inside))
    (span,) = [span for span in telemetry.spans if span.kind is SpanKind.SERVER]
    assert span.attributes["lilya.websocket.ended_by"] == "app"
    assert span.attributes["lilya.websocket.messages.sent"] == 1
    assert {each.context.trace_id for each in telemetry.spans} == {span.context.trace_id}
    assert telemetry.metrics == OWN


def test_what_would_be_counted_twice() -> None:
    """FastAPI's own telemetry makes a second span in a trace of its own, if nobody keeps it from that."""

    class Blind(OpenTelemetryObserver):
        def began(self, connection: ObservedConnection) -> None:
            super().began(connection)
            connection.scope.pop("fastapi.telemetry", None)

    telemetry = Telemetry()
    app = native(telemetry, inside=True)
    app.user_middleware.clear()
    blind = copy.copy(telemetry.observer)
    blind.__class__ = Blind
    anyio.run(visit, observe(app, blind))
    servers = [span for span in telemetry.spans if span.kind is SpanKind.SERVER]
    assert len({span.context.trace_id for span in servers}) == len(servers) == 2


@pytest.mark.parametrize(("make", "shown"), [(native, None), (contributed, "http.url"), (asgi, "http.url")])
def test_who_puts_the_query_into_a_span(make: Any, shown: str | None) -> None:
    """As the page *Logs, metrics and traces* says. It is never this package."""
    telemetry = Telemetry()
    anyio.run(visit, make(telemetry, False), "/rooms/ann?ticket=s3cret")
    found = {
        (span.kind, name)
        for span in telemetry.spans
        for name, value in span.attributes.items()
        if "s3cret" in str(value)
    }
    assert found == (set() if shown is None else {(SpanKind.INTERNAL, shown)})

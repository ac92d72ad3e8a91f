"""Traces and metrics of every WebSocket for OpenTelemetry.

    from lilya.websockets.observing import observe
    from lilya.websockets.opentelemetry import OpenTelemetryObserver

    app = observe(app, OpenTelemetryObserver())

The rules of this file:

- A connection has one span, and a message has none. Where an instrumentation around this has started a span
  for the connection, that is the one.
- No attribute holds a path, a query string, a header, a message, or the text of an exception. Those of
  metrics have few values, whatever clients do.
- Names are those of OpenTelemetry's semantic conventions where there are any. There are none for WebSockets:
  these begin with `lilya.websocket`.

It needs OpenTelemetry's API: install `lilya-websockets[opentelemetry]`. What exports is your choice.
"""

from __future__ import annotations

from contextvars import Token
from typing import Any, Final

try:
    from opentelemetry import context, metrics, propagate, trace
    from opentelemetry.propagators.textmap import Getter
except ModuleNotFoundError as error:
    raise ImportError(
        "lilya.websockets.opentelemetry needs OpenTelemetry's API: install lilya-websockets[opentelemetry]"
    ) from error

from .observing import End, Kind, ObservedConnection, Observer, Refusal
from .types import Scope

__all__ = ["OpenTelemetryObserver"]

_NAME: Final = "lilya.websockets"
_PROTOCOL: Final = {"network.protocol.name": "websocket"}
# Seconds: from a page that is left at once to a day. Bytes: from a few to the largest that servers allow.
_DURATIONS: Final = (0.1, 1, 5, 15, 60, 300, 900, 3600, 14_400, 43_200, 86_400)
_SIZES: Final = (16, 128, 1024, 8192, 65_536, 1_048_576, 16_777_216)


class _Headers(Getter[Scope]):
    """Reads the headers of a scope, for the trace that the client has begun."""

    def get(self, carrier: Scope, key: str) -> list[str] | None:
        wanted = key.lower().encode("latin-1")
        return [value.decode("latin-1") for name, value in _pairs(carrier) if name.lower() == wanted] or None

    def keys(self, carrier: Scope) -> list[str]:
        return [name.decode("latin-1") for name, _ in _pairs(carrier)]


def _pairs(scope: Scope) -> list[tuple[bytes, bytes]]:
    """The headers. A one-shot iterable is made re-readable."""
    headers = scope["headers"]
    if not isinstance(headers, (list, tuple)):
        headers = scope["headers"] = list(headers)
    return [(bytes(name), bytes(value)) for name, value in headers]


class OpenTelemetryObserver(Observer):
    """Creates a span for each connection, and metrics for all connections.

    The span is of kind SERVER, continues the trace of the headers, and is the app's current span. If the
    current span is already of that kind, because an instrumentation of the framework created it, no new span
    is created, and the current one gets the attributes.

    Args:
        tracer_provider: The provider of the spans. Default: the global one.
        meter_provider: The provider of the metrics. Default: the global one.
    """

    def __init__(
        self,
        tracer_provider: trace.TracerProvider | None = None,
        meter_provider: metrics.MeterProvider | None = None,
    ) -> None:
        self._tracer = trace.get_tracer(_NAME, tracer_provider=tracer_provider)
        meter = metrics.get_meter(_NAME, meter_provider=meter_provider)
        prefix = "lilya.websocket"
        self._active = meter.create_up_down_counter(
            f"{prefix}.active_connections", "{connection}", "WebSockets that are open"
        )
        self._duration = meter.create_histogram(
            f"{prefix}.connection.duration",
            "s",
            "Time that WebSockets were open",
            explicit_bucket_boundaries_advisory=_DURATIONS,
        )
        self._refusals = meter.create_counter(
            f"{prefix}.refusals", "{handshake}", "Handshakes that were refused"
        )
        self._size = meter.create_histogram(
            f"{prefix}.message.size",
            "By",
            "Sizes of messages",
            explicit_bucket_boundaries_advisory=_SIZES,
        )
        self._dropped = meter.create_counter(
            f"{prefix}.dropped_events", "{event}", "Events dropped for slow clients"
        )
        self._slow = meter.create_counter(
            f"{prefix}.slow_connections", "{connection}", "WebSockets closed for being slow"
        )
        self._in, self._out = (
            {
                kind: {"network.io.direction": way, "lilya.websocket.message.kind": kind}
                for kind in ("text", "bytes")
            }
            for way in ("receive", "transmit")
        )
        # By connection, until it has ended: its span, and what makes the one before it current again.
        self._spans: dict[ObservedConnection, tuple[trace.Span, Token[context.Context] | None]] = {}

    def began(self, connection: ObservedConnection) -> None:
        """Start the span, or find the one that is there."""
        span = trace.get_current_span()
        token = None
        if getattr(span, "kind", None) is not trace.SpanKind.SERVER or not span.is_recording():
            scope = connection.scope
            # With a current span, the client's trace is continued by that one.
            has_parent = span.get_span_context().is_valid
            parent = context.get_current()
            if not has_parent:
                parent = propagate.extract(scope, parent, _HEADERS)
            span = self._tracer.start_span("WS", parent, trace.SpanKind.SERVER, _PROTOCOL)
            token = context.attach(trace.set_span_in_context(span, parent))
            # Unless FastAPI finds this, it starts another span in another trace.
            scope.setdefault("fastapi.telemetry", None)
        span.set_attribute("lilya.websocket.connection.id", connection.id)
        self._spans[connection] = (span, token)

    def opened(self, connection: ObservedConnection) -> None:
        """Count it as open."""
        self._active.add(1)

    def refused(self, connection: ObservedConnection, refusal: Refusal) -> None:
        """End the span, and count the refusal."""
        attributes: dict[str, Any] = {"lilya.websocket.refused_by": refusal.by}
        if refusal.status is not None:
            attributes["http.response.status_code"] = refusal.status
        self._refusals.add(1, attributes)
        if refusal.why:
            attributes["lilya.websocket.why"] = refusal.why
        self._finish(connection, refusal, attributes)

    def received(self, connection: ObservedConnection, kind: Kind, size: int) -> None:
        """Record the size."""
        self._size.record(size, self._in[kind])

    def sent(self, connection: ObservedConnection, kind: Kind, size: int) -> None:
        """Record the size."""
        self._size.record(size, self._out[kind])

    def dropped(self, connection: ObservedConnection, count: int) -> None:
        """Count the events."""
        self._dropped.add(count)

    def slow(self, connection: ObservedConnection) -> None:
        """Count it."""
        self._slow.add(1)

    def ended(self, connection: ObservedConnection, end: End) -> None:
        """End the span, and record the duration."""
        self._active.add(-1)
        attributes: dict[str, Any] = {"lilya.websocket.ended_by": end.by}
        labels = {**attributes, "lilya.websocket.close.code": end.code_label}
        if connection.route is not None:
            labels["http.route"] = connection.route
        if end.failed:
            labels["error.type"] = _type_of(end.error)
        self._duration.record(end.duration, labels)
        if end.code is not None:
            attributes["lilya.websocket.close.code"] = end.code
        if end.why:
            attributes["lilya.websocket.why"] = end.why
        attributes |= {
            "http.response.status_code": 101,
            "lilya.websocket.messages.received": connection.messages_received,
            "lilya.websocket.messages.sent": connection.messages_sent,
            "lilya.websocket.bytes.received": connection.bytes_received,
            "lilya.websocket.bytes.sent": connection.bytes_sent,
        }
        self._finish(connection, end, attributes)

    def _finish(
        self, connection: ObservedConnection, outcome: Refusal | End, attributes: dict[str, Any]
    ) -> None:
        span, token = self._spans.pop(connection)
        span.set_attributes(attributes)
        if outcome.failed:
            span.set_attribute("error.type", _type_of(outcome.error))
            span.set_status(trace.StatusCode.ERROR)
        if token is None:
            return
        if connection.route is not None:
            span.update_name(f"WS {connection.route}")
            span.set_attribute("http.route", connection.route)
        if not isinstance(outcome.error, GeneratorExit):  # thrown away, in whatever context
            context.detach(token)
        span.end()


_HEADERS: Final = _Headers()


def _type_of(error: BaseException | None) -> str:
    of = type(error)
    return of.__qualname__ if of.__module__ == "builtins" else f"{of.__module__}.{of.__qualname__}"

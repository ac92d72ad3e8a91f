"""Metrics of every WebSocket for Prometheus.

    from lilya.websockets.observing import observe
    from lilya.websockets.prometheus import PrometheusObserver

    app = observe(app, PrometheusObserver())

The rules of this file:

- A label has few values, whatever clients do: no path, no address, no code that a client has made up.
- Processes of one server that share `PROMETHEUS_MULTIPROC_DIR` are added up.

It needs `prometheus-client`: install `lilya-websockets[prometheus]`.
"""

from __future__ import annotations

from typing import Any

try:
    from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram
except ModuleNotFoundError as error:
    raise ImportError(
        "lilya.websockets.prometheus needs prometheus-client: install lilya-websockets[prometheus]"
    ) from error

from .observing import End, Kind, ObservedConnection, Observer, Refusal

__all__ = ["PrometheusObserver"]

# Seconds: from a page that is left at once to a day.
_DURATIONS = (0.1, 1, 5, 15, 60, 300, 900, 3600, 14_400, 43_200, 86_400)


class PrometheusObserver(Observer):
    """Counts connections, refusals, messages and bytes. Create one for each registry and prefix.

    Args:
        registry: Where the metrics are registered. Default: the registry of `prometheus_client`.
        prefix: The start of the metrics' names. Default: `"websocket"`.

    Raises:
        ValueError: The registry already has metrics with these names, or the prefix is invalid.
    """

    def __init__(self, registry: CollectorRegistry = REGISTRY, prefix: str = "websocket") -> None:
        options: Any = {"namespace": prefix, "registry": registry}
        self._open = Gauge(
            "open_connections", "WebSockets that are open", multiprocess_mode="livesum", **options
        )
        self._opened = Counter("opened", "WebSockets that were accepted", **options)
        self._refused = Counter("refused", "Handshakes that were refused", ["by", "status"], **options)
        self._ended = Counter(
            "ended", "WebSockets that have ended", ["route", "by", "code", "failed"], **options
        )
        self._duration = Histogram(
            "duration_seconds", "Time that WebSockets were open", ["route"], buckets=_DURATIONS, **options
        )
        messages = Counter("messages", "Messages", ["direction", "kind"], **options)
        sizes = Counter("message_bytes", "Bytes of messages", ["direction", "kind"], **options)
        self._dropped = Counter("dropped_events", "Events dropped for slow clients", **options)
        self._slow = Counter("slow", "WebSockets closed for being slow", **options)
        # Looked up once: a lookup costs more than the rest of a message.
        self._in, self._out = (
            {kind: (messages.labels(way, kind), sizes.labels(way, kind)) for kind in ("text", "bytes")}
            for way in ("in", "out")
        )

    def opened(self, connection: ObservedConnection) -> None:
        """Count it as open."""
        self._open.inc()
        self._opened.inc()

    def refused(self, connection: ObservedConnection, refusal: Refusal) -> None:
        """Count it by who refused, and the status."""
        self._refused.labels(refusal.by, refusal.status or "none").inc()

    def received(self, connection: ObservedConnection, kind: Kind, size: int) -> None:
        """Count the message and its bytes."""
        messages, sizes = self._in[kind]
        messages.inc()
        sizes.inc(size)

    def sent(self, connection: ObservedConnection, kind: Kind, size: int) -> None:
        """Count the message and its bytes."""
        messages, sizes = self._out[kind]
        messages.inc()
        sizes.inc(size)

    def dropped(self, connection: ObservedConnection, count: int) -> None:
        """Count the events."""
        self._dropped.inc(count)

    def slow(self, connection: ObservedConnection) -> None:
        """Count it."""
        self._slow.inc()

    def ended(self, connection: ObservedConnection, end: End) -> None:
        """Count it by route, who ended it, code, and whether the app has failed."""
        self._open.dec()
        route = connection.route or ""
        self._ended.labels(route, end.by, end.code_label, "true" if end.failed else "false").inc()
        self._duration.labels(route).observe(end.duration)

"""What guards and observers cost: `python -m benchmarks.guards memory`, `redis` or `instructions`.

`memory`: a number of keys, each of another IPv6 network, use a rate once. The figures are tracemalloc's, of
what is allocated when all have done so, the keys included.

`redis`: the same of a server of Redis, for each key and for each connection.

`instructions`: a handshake is accepted and closed, in memory, with a guard or an observer and without one; or
a message is received in a connection. The scope is that of a browser behind a proxy, with 14 headers.
Valgrind counts.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import re
import tracemalloc
from collections.abc import Callable
from typing import Any

from prometheus_client import CollectorRegistry

from lilya.websockets import WebSocket
from lilya.websockets.limits import LimitGuard, Place, RateLimit, Use
from lilya.websockets.observing import LogObserver, Observer, observe
from lilya.websockets.opentelemetry import OpenTelemetryObserver
from lilya.websockets.origins import OriginGuard
from lilya.websockets.prometheus import PrometheusObserver
from lilya.websockets.redis import RedisStore
from lilya.websockets.tokens import bearer_token
from tests.lilya_websockets.redis_server import RedisServer

from ._instructions import per_operation

HEADERS = [
    (b"host", b"shop.example.com"),
    (b"connection", b"upgrade"),
    (b"pragma", b"no-cache"),
    (b"cache-control", b"no-cache"),
    (
        b"user-agent",
        b"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/149.0 Safari",
    ),
    (b"upgrade", b"websocket"),
    (b"origin", b"https://app.example.com"),
    (b"sec-websocket-version", b"13"),
    (b"accept-encoding", b"gzip, deflate, br"),
    (b"accept-language", b"en-GB,en;q=0.9"),
    (b"cookie", b"theme=dark; session=eyJ1c2VyIjogImFubiJ9.Zk3vXw.c2lnbmF0dXJl"),
    (b"authorization", b"Bearer eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbm4ifQ.c2lnbmF0dXJl"),
    (b"sec-websocket-key", b"MDEyMzQ1Njc4OWFiY2RlZg=="),
    (b"x-forwarded-proto", b"https"),
]
SAID = {"type": "websocket.receive", "text": "x" * 100}


async def plain(scope: Any, receive: Any, send: Any) -> None:
    websocket = WebSocket(scope, receive, send)
    await websocket.accept()
    await websocket.close()


async def with_token(scope: Any, receive: Any, send: Any) -> None:
    bearer_token(scope)
    await plain(scope, receive, send)


def never() -> RateLimit:
    return RateLimit(1e9)


def silent() -> LogObserver:
    """Makes the records, which go nowhere."""
    logger = logging.Logger("connections")
    logger.addHandler(logging.NullHandler())
    return LogObserver(logger)


class Listening(Observer):
    """Has a hook for messages that does nothing."""

    def received(self, connection: Any, kind: Any, size: int) -> None:
        pass


GUARDS: dict[str, Callable[[], Any]] = {
    "nothing": lambda: plain,
    "OriginGuard": lambda: OriginGuard(plain, origins=["https://app.example.com"]),
    "bearer_token": lambda: with_token,
    "LimitGuard, connections": lambda: LimitGuard(plain, connections=9, connections_per_key=9),
    "LimitGuard, handshakes": lambda: LimitGuard(plain, handshakes_per_second=never()),
    "observe, no observer": lambda: observe(plain),
    "observe, LogObserver": lambda: observe(plain, silent()),
    "observe, PrometheusObserver": lambda: observe(plain, PrometheusObserver(CollectorRegistry())),
    "observe, OpenTelemetryObserver without an SDK": lambda: observe(plain, OpenTelemetryObserver()),
}
METERS: dict[str, Callable[[Any], Any]] = {
    "nothing": lambda app: app,
    "LimitGuard, no limit of messages": lambda app: LimitGuard(app, connections=9),
    "LimitGuard, messages": lambda app: LimitGuard(app, messages_per_second=never()),
    "LimitGuard, messages and bytes": lambda app: LimitGuard(
        app, messages_per_second=never(), bytes_per_second=never()
    ),
    "observe, no hook for messages": lambda app: observe(app, silent()),
    "observe, a hook for messages": lambda app: observe(app, Listening()),
    "observe, PrometheusObserver": lambda app: observe(app, PrometheusObserver(CollectorRegistry())),
    "observe, OpenTelemetryObserver without an SDK": lambda app: observe(app, OpenTelemetryObserver()),
}


async def handshakes(name: str, number: int) -> None:
    app = GUARDS[name]()

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        pass

    for _ in range(number):
        scope = {
            "type": "websocket",
            "path": "/",
            "scheme": "ws",
            "query_string": b"",
            "headers": HEADERS,
            "subprotocols": [],
            "client": ("192.0.2.1", 50_000),
            "extensions": {},
        }
        await app(scope, receive, send)


async def messages(name: str, number: int) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        websocket = WebSocket(scope, receive, send)
        await websocket.accept()
        for _ in range(number):
            await websocket.receive_text()

    first = [{"type": "websocket.connect"}]

    async def receive() -> Any:
        return first.pop() if first else SAID

    async def send(message: Any) -> None:
        pass

    scope = {"type": "websocket", "path": "/", "headers": HEADERS, "client": ("192.0.2.1", 50_000)}
    await METERS[name](app)(scope, receive, send)


def kept(keys: int, max_keys: int) -> tuple[int, int]:
    """The keys that are remembered, and the bytes that they take."""
    gc.collect()
    tracemalloc.start()
    try:
        limit = RateLimit(0.001, max_keys=max_keys)
        for number in range(keys):
            limit.take(f"2001:db8:{number >> 16:x}:{number & 0xFFFF:x}::/64")  # as `client_key` has it
        gc.collect()
        return len(limit), tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()


async def kept_on_redis(number: int) -> tuple[float, float]:
    """The bytes on a server of Redis for a key of a rate, and for an open connection with both limits."""
    with RedisServer() as server:
        store = RedisStore(server.url, timeout=60, lease=3600)

        def used() -> int:
            found = re.search(rb"used_memory:(\d+)", server.ask("INFO", "memory"))
            return 0 if found is None else int(found[1])

        await store.take([Use("messages_per_second", "", 0.001, 10)])  # the scripts
        await store.enter("", [Place("connections", "", number)])
        before = used()
        for key in range(number):
            await store.take([Use("messages_per_second", f"{key:032x}", 0.001, 10)])
        between = used()
        for key in range(number):
            places = [Place("connections_per_key", f"{key:032x}", 1), Place("connections", "", number + 1)]
            await store.enter(f"{key:016x}", places)
        after = used()
        await store.close()
    return (between - before) / number, (after - between) / number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("memory", "redis", "instructions", "handshakes", "messages"))
    parser.add_argument("--keys", type=int, default=1_000_000)
    parser.add_argument("--max-keys", type=int, default=[10_000, 100_000, 1_000_000], nargs="+")
    parser.add_argument("--name", help="of a guard, for `handshakes` and `messages`")
    parser.add_argument("--number", type=int, default=1000)
    arguments = parser.parse_args()
    if arguments.what == "memory":
        for max_keys in arguments.max_keys:
            remembered, size = kept(arguments.keys, max_keys)
            what = f"{arguments.keys:,} keys, max_keys={max_keys:,}"
            print(f"{what}: {remembered:,} remembered, {size / 1e6:.1f} MB", flush=True)
    elif arguments.what == "redis":
        key, connection = asyncio.run(kept_on_redis(arguments.number))
        print(f"a key of a rate: {key:.0f} bytes; a connection: {connection:.0f} bytes")
    elif arguments.what == "instructions":
        for what, names in (("handshakes", GUARDS), ("messages", METERS)):
            for name in names:

                def command(number: int, what: str = what, name: str = name) -> list[str]:
                    return ["-m", "benchmarks.guards", what, "--name", name, "--number", str(number)]

                print(f"{what}, {name}: {per_operation(command, 200, 1200):,.0f} instructions", flush=True)
    else:
        work = handshakes if arguments.what == "handshakes" else messages
        asyncio.run(work(arguments.name, arguments.number))


if __name__ == "__main__":
    main()

"""What a session of the test client costs, as ratios against Starlette's `TestClient`.

    python3 noxfile.py -s bench -- testing               40 rounds
    python3 noxfile.py -s bench -- testing --rounds 5    a quick look

A session connects, sends one text, receives its echo, and leaves. Every round runs every client once, one
after the other. Shown are the median over the rounds of the time per session, and the median of the ratios
that were formed within each round. The app is raw ASGI, the same for all.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import importlib.metadata
import platform
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import anyio

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from starlette.testclient import TestClient as StarletteClient

from benchmarks._ours import load_ours

ours = importlib.import_module(f"{load_ours().__name__}.testing")
SESSIONS = 200


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "websocket":
        raise ValueError("no lifespan")
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message["text"]})


async def startable(scope: Any, receive: Any, send: Any) -> None:
    """The same with a lifespan, which Starlette's client demands when it is entered."""
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    await app(scope, receive, send)


def in_the_loop(backend: str) -> float:
    async def main() -> float:
        start = time.perf_counter_ns()
        for _ in range(SESSIONS):
            async with ours.connect(app) as session:
                await session.send_text("hello")
                assert await session.receive_text() == "hello"
        return (time.perf_counter_ns() - start) / SESSIONS

    return anyio.run(main, backend=backend)


def talk(client: Any) -> float:
    start = time.perf_counter_ns()
    for _ in range(SESSIONS):
        with client.websocket_connect("/") as session:
            session.send_text("hello")
            assert session.receive_text() == "hello"
    return (time.perf_counter_ns() - start) / SESSIONS


def entered(client: Any) -> float:
    with client:
        return talk(client)


CASES: dict[str, dict[str, Callable[[], float]]] = {
    "client not entered": {
        "Starlette": lambda: talk(StarletteClient(app)),
        "TestClient": lambda: talk(ours.TestClient(app)),
        "connect, asyncio": lambda: in_the_loop("asyncio"),
        "connect, trio": lambda: in_the_loop("trio"),
    },
    "client entered": {
        "Starlette": lambda: entered(StarletteClient(startable)),
        "TestClient": lambda: entered(ours.TestClient(startable)),
        "connect, asyncio": lambda: in_the_loop("asyncio"),
        "connect, trio": lambda: in_the_loop("trio"),
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--rounds", type=int, default=40, help="how often everything is measured (default: 40)"
    )
    rounds = parser.parse_args().rounds
    if rounds < 1:
        parser.error(f"--rounds must be at least 1, got {rounds}")
    times: dict[str, dict[str, list[float]]] = {
        case: {name: [] for name in runs} for case, runs in CASES.items()
    }
    for number in range(-1, rounds):  # the first round warms up
        print(f"\rround {max(number, 0) + 1} of {rounds} …", end="", file=sys.stderr, flush=True)
        for case, runs in CASES.items():
            for name, run in runs.items():
                gc.collect()
                elapsed = run()
                if number >= 0:
                    times[case][name].append(elapsed)
    print(file=sys.stderr)
    versions = ", ".join(
        f"{name} {importlib.metadata.version(name)}" for name in ("starlette", "anyio", "trio")
    )
    print(f"{platform.python_implementation()} {platform.python_version()}, {versions}, {rounds} rounds\n")
    print(f"{'':24}{'':20}{'µs':>8}  ratio")
    for case, values in times.items():
        base = values["Starlette"]
        for name, measured in values.items():
            ratio = statistics.median(ours / theirs for ours, theirs in zip(measured, base, strict=True))
            print(
                f"{case if name == 'Starlette' else '':24}{name:20}"
                f"{statistics.median(measured) / 1000:8.0f}{ratio:7.2f}"
            )


if __name__ == "__main__":
    main()

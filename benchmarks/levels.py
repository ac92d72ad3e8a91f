"""What zlib's levels cost and save in permessage-deflate, with the window of our protocol for uvicorn.

    python3 noxfile.py -s bench -- levels               30 rounds
    python3 noxfile.py -s bench -- levels --rounds 5    a quick look

Each of 16 connections keeps its context, and sends messages of a kind, none of which is still in the window
when it comes again. Shown are the median over the rounds of the time that a message takes, its compressed
bytes, and both as ratios to level 6, zlib's own default; those of the time are medians of the ratios that
were formed within each round.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import statistics
import time
import zlib
from collections.abc import Callable
from pathlib import Path

from ._report import table
from .wire import DOCUMENTS

LEVELS = (6, 3, 1)
WINDOW, MEMORY = 12, 5  # as `lilya.websockets.uvicorn` has them; a test holds them together
CONNECTIONS, MESSAGES = 16, 64
DOCS = Path(__file__).parent.parent / "docs"


def prose(chance: random.Random, count: int) -> list[bytes]:
    """1 KiB of the documentation's text."""
    text = b"\n".join(path.read_bytes() for path in sorted(DOCS.rglob("*.md")))
    starts = [chance.randrange(len(text) - 1024) for _ in range(count)]
    return [text[start : start + 1024] for start in starts]


def chat(chance: random.Random, count: int) -> list[bytes]:
    """A line somebody has written, in JSON: some 230 bytes."""
    words = (DOCS / "websockets.md").read_text(encoding="utf-8").split()
    lines = []
    for number in range(count):
        start = chance.randrange(len(words) - 35)
        line = {
            "type": "message",
            "id": chance.getrandbits(48),
            "user": chance.choice(["ann", "bob", "chris", "dora"]),
            "at": 1764137577 + number + round(chance.random(), 3),
            "text": " ".join(words[start : start + chance.randrange(5, 35)]),
        }
        lines.append(json.dumps(line).encode())
    return lines


def prices(chance: random.Random, count: int) -> list[bytes]:
    """Ten prices in JSON: some 870 bytes."""
    return [
        json.dumps(
            [
                {
                    "symbol": chance.choice(["AAAA", "BBBB", "CCCC", "DDDD"]),
                    "bid": round(chance.uniform(90, 110), 2),
                    "ask": round(chance.uniform(90, 110), 2),
                    "volume": chance.randrange(10_000),
                    "time": 1764137577000 + 10 * number + tick,
                }
                for tick in range(10)
            ]
        ).encode()
        for number in range(count)
    ]


def documents(chance: random.Random, count: int) -> list[bytes]:
    """The messages of `wire deflate`: 1 KiB of JSON."""
    return [DOCUMENTS[number % len(DOCUMENTS)] for number in range(count)]


KINDS: dict[str, Callable[[random.Random, int], list[bytes]]] = {
    "1 KiB of JSON": documents,
    "chat lines": chat,
    "prices": prices,
    "prose": prose,
}


def compressed(messages: list[bytes], level: int) -> tuple[float, float]:
    """The microseconds and the bytes of a message."""
    contexts = [zlib.compressobj(level, wbits=-WINDOW, memLevel=MEMORY) for _ in range(CONNECTIONS)]
    for context in contexts:  # the window is full when it counts
        for message in messages[:8]:
            context.compress(message)
            context.flush(zlib.Z_SYNC_FLUSH)
    size = 0
    start = time.perf_counter_ns()
    for number in range(8, len(messages)):
        for offset, context in enumerate(contexts):
            # Not the same for all: one message would stay in the processor's cache.
            message = messages[8 + (number + 5 * offset) % (len(messages) - 8)]
            size += len(context.compress(message) + context.flush(zlib.Z_SYNC_FLUSH)) - 4
    taken = time.perf_counter_ns() - start
    done = (len(messages) - 8) * CONNECTIONS
    return taken / done / 1000, size / done


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--rounds", type=int, default=30, help="how often everything is measured (default: 30)"
    )
    rounds = parser.parse_args().rounds
    if rounds < 1:
        parser.error(f"--rounds must be at least 1, got {rounds}")
    messages = {name: make(random.Random(1), MESSAGES) for name, make in KINDS.items()}
    times: dict[tuple[str, int], list[float]] = {(name, level): [] for name in KINDS for level in LEVELS}
    sizes: dict[tuple[str, int], float] = {}
    for _ in range(rounds):
        for name, level in times:
            taken, sizes[name, level] = compressed(messages[name], level)
            times[name, level].append(taken)
    rows = []
    for name, level in times:
        base = times[name, LEVELS[0]]
        ratio = statistics.median(a / b for a, b in zip(times[name, level], base, strict=True))
        size = sizes[name, level]
        rows.append(
            [
                f"{name}, level {level}",
                f"{statistics.median(times[name, level]):.1f} ({ratio:.2f})",
                f"{size:.0f} ({size / sizes[name, LEVELS[0]]:.2f})",
            ]
        )
    print(f"zlib {zlib.ZLIB_RUNTIME_VERSION}; CPython {platform.python_version()}; {rounds} rounds\n")
    print(table(["", "µs", "bytes"], rows))


if __name__ == "__main__":
    main()

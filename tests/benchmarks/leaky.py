"""The app that is soaked, with a leak: what the environment names under LEAK."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

from benchmarks import _soaked

kept: list[Any] = []


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["path"] != "/tally":
        kept.append(leaked())
    await _soaked.app(scope, receive, send)


def leaked() -> Any:
    match os.environ["LEAK"]:
        case "memory":
            return bytearray(b"x" * 65_536)
        case "objects":
            return [[], [], [], []]
        case "tasks":
            return asyncio.create_task(asyncio.sleep(3600))
        case "descriptors":
            return os.open(os.devnull, os.O_RDONLY)
        case "printed":
            sys.stderr.write("Traceback (most recent call last):\n")
            return None
    raise ValueError(os.environ["LEAK"])

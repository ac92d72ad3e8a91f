"""What `nox -s pyodide` brings with it works on any CPython, and names tests that exist."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.pyodide import plugin

FOLDER = Path(__file__).parents[1] / "lilya_websockets"


def test_the_loop_runs_coroutines_and_timers() -> None:
    async def main() -> list[str]:
        seen: list[str] = []
        task = asyncio.create_task(asyncio.sleep(0.01, "later"))
        seen.append(await asyncio.sleep(0, "now"))
        seen.append(await task)
        return seen

    loop = plugin.Loop()
    try:
        assert loop.run_until_complete(main()) == ["now", "later"]
    finally:
        loop.close()


def test_the_loop_says_when_it_would_wait_for_ever() -> None:
    loop = plugin.Loop()
    try:
        with pytest.raises(RuntimeError, match="everybody waits"):
            loop.run_until_complete(loop.create_future())
    finally:
        loop.close()


def test_the_files_and_the_tests_exist() -> None:
    sources = [(FOLDER / f"test_{name}.py").read_text(encoding="utf-8") for name in plugin.FILES]
    for part in plugin.SKIPPED:
        name = part.partition("[")[0].partition("{")[0].partition(",")[0]
        assert any(name in source for source in sources), part

"""The benchmark of frameworks: each app answers with either class, and a small run prints a ratio."""

from __future__ import annotations

import asyncio
import re
import sys
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="they have an environment of their own: nox -s tests")

from benchmarks import frameworks


@pytest.mark.parametrize("cls", frameworks.CLASSES)
@pytest.mark.parametrize("framework", frameworks.FRAMEWORKS)
def test_each_app_answers_every_message(framework: str, cls: str) -> None:
    asyncio.run(frameworks.run(getattr(frameworks, framework)(cls == "ours"), 2, 3))


def test_an_app_that_swallows_a_message_is_noticed() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()

    with pytest.raises(RuntimeError, match="was to hear 3 messages, and heard 0"):
        asyncio.run(frameworks.run(app, 1, 3))


def test_a_small_run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(frameworks, "FRAMEWORKS", ("starlette",))
    monkeypatch.setattr(sys, "argv", ["frameworks", "--time", "--rounds", "1"])
    frameworks.main()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines] == [["starlette", "connection"], ["starlette", "message"]]
    assert all(re.search(r"own +[\d.,]+  ours +[\d.,]+ µs  [\d.]+$", line) for line in lines)

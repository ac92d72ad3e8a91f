"""The benchmark of zlib's levels: a small run of it, and what it prints."""

from __future__ import annotations

import random
import re
import sys
import zlib

import pytest

from benchmarks import levels
from lilya.websockets import uvicorn
from lilya.websockets.uvicorn import _deflate


def test_it_measures_what_the_protocol_does() -> None:
    assert _deflate.MEM_LEVEL == levels.MEMORY
    assert _deflate.DEFLATE.server_max_window_bits == levels.WINDOW
    assert uvicorn.WebSocketProtocol.compression_level in levels.LEVELS


@pytest.mark.parametrize("kind", levels.KINDS)
def test_messages_of_a_kind_are_not_alike(kind: str) -> None:
    messages = levels.KINDS[kind](random.Random(1), levels.MESSAGES)
    assert len(messages) == levels.MESSAGES
    assert len(set(messages)) > levels.MESSAGES / 2
    assert messages == levels.KINDS[kind](random.Random(1), levels.MESSAGES)


@pytest.mark.parametrize("level", levels.LEVELS)
def test_the_size_is_that_of_the_frames(level: int) -> None:
    messages = levels.chat(random.Random(1), 12)
    contexts = [zlib.compressobj(level, wbits=-12, memLevel=5) for _ in range(levels.CONNECTIONS)]
    expected = []
    for offset, context in enumerate(contexts):
        for number in range(-8, 4):
            message = messages[8 + (number + 5 * offset) % 4 if number >= 0 else number + 8]
            frame = context.compress(message) + context.flush(zlib.Z_SYNC_FLUSH)
            expected += [len(frame[:-4])] * (number >= 0)
    assert levels.compressed(messages, level)[1] == sum(expected) / len(expected)


def test_a_run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["levels", "--rounds", "1"])
    monkeypatch.setattr(levels, "MESSAGES", 12)
    levels.main()
    rows = re.findall(
        r"^\| (.+), level (\d) \| [\d.]+ \(([\d.]+)\) \| (\d+) \(([\d.]+)\) \|$",
        capsys.readouterr().out,
        re.M,
    )
    assert [(kind, int(level)) for kind, level, *_ in rows] == [
        (kind, level) for kind in levels.KINDS for level in levels.LEVELS
    ]
    for _, level, time, _, size in rows:
        assert (level == "6") <= (time == size == "1.00")
        assert (level == "6") or float(size) > 1


def test_no_rounds(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["levels", "--rounds", "0"])
    with pytest.raises(SystemExit):
        levels.main()
    assert "--rounds must be at least 1, got 0" in capsys.readouterr().err

"""The counting of instructions: every case does what it says, faults are no figures, and valgrind counts."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from uvicorn.config import Config

from benchmarks import _instructions, protocol
from benchmarks._ours import load_ours
from benchmarks.protocol import CASES, ROWS, perform
from benchmarks.servers.raw import app as echo

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("case", "row"),
    [*((case, row) for case in CASES for row in ROWS), ("open", ROWS[-1] + protocol.OTHER)],
)
def test_every_case_runs(case: str, row: str) -> None:
    arguments = [case, "--operations", "40", "--row", row, "--package", str(ROOT)]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.protocol", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


async def deny(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.close"})


async def leave(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.close", "code": 3000})


async def other(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    await receive()
    await send({"type": "websocket.send", "bytes": b"another kind than was sent"})
    while (await receive())["type"] == "websocket.receive":
        pass


async def fail(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    await receive()
    raise RuntimeError("planted")


@pytest.mark.parametrize(
    ("app", "case", "said"),
    [
        (deny, "open", "the handshake was answered with b'HTTP/1.1 403"),
        (leave, "open", r"the close was answered with b'\\x88\\x02\\x0b\\xb8"),
        (other, "echo", "no echo"),
        (fail, "echo", "the close was answered with b''"),
    ],
)
def test_planted_apps_are_no_figures(app: Any, case: str, said: str) -> None:
    config = Config(app, ws="websockets-sansio", lifespan="off", access_log=False, log_level="critical")
    config.load()

    async def run() -> None:
        await asyncio.wait_for(perform(CASES[case], config, 3), 20)

    with pytest.raises(AssertionError, match=said):
        asyncio.run(run())


def test_compression_that_was_not_taken_is_no_figure() -> None:
    config = Config(
        echo, ws="websockets-sansio", ws_per_message_deflate=False, lifespan="off", log_level="error"
    )
    config.load()
    with pytest.raises(AssertionError, match=r"the handshake was answered with b'HTTP/1\.1 101"):
        asyncio.run(perform(CASES["open-deflate"], config, 1))


# valgrind

needs_valgrind = pytest.mark.skipif(shutil.which("valgrind") is None, reason="valgrind is not installed")

BARE = ("-I", "-S", "-c")  # starts soonest


@needs_valgrind
def test_what_an_operation_does_is_counted_and_nothing_else() -> None:
    # Python itself takes tens of millions to start and to end.
    counted = _instructions.per_operation(
        lambda count: [*BARE, f"for _ in range({count}): sum(range(100))"], 100, 1100
    )
    assert 200 < counted < 20_000


@needs_valgrind
def test_a_run_that_fails_is_no_figure() -> None:
    with pytest.raises(RuntimeError, match=r"(?s)counting failed.*out of order"):
        _instructions.per_operation(lambda count: [*BARE, "raise SystemExit('out of order')"], 1, 2)


def test_without_valgrind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SystemExit, match="valgrind is not installed"):
        _instructions.per_operation(lambda count: ["-c", "pass"], 1, 2)


def test_another_checkout_that_names_itself_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lilya.websockets", load_ours())
    with pytest.raises(ImportError, match="imports itself by its name"):
        protocol.configured("ours", ROOT)


def test_wrong_arguments(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["protocol", "nothing"])
    with pytest.raises(SystemExit) as caught:
        protocol.main()
    assert caught.value.code == 2
    assert "no such case: nothing" in capsys.readouterr().err

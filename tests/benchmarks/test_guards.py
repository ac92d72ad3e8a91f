"""The benchmark of guards: small runs of it, and that what it measures is done."""

from __future__ import annotations

import re
import sys
from typing import Any

import pytest

from benchmarks import guards
from lilya.websockets.limits import LimitGuard
from lilya.websockets.origins import OriginGuard
from tests.lilya_websockets.redis_server import NO_SERVER, redis_binary

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("name", guards.GUARDS)
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_every_handshake_is_let_through(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    accepted: list[Any] = []
    plain = guards.plain

    async def counted(scope: Any, receive: Any, send: Any) -> None:
        accepted.append(scope)
        await plain(scope, receive, send)

    monkeypatch.setattr(guards, "plain", counted)
    await guards.handshakes(name, 5)
    assert len(accepted) == 5


@pytest.mark.parametrize("name", guards.METERS)
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_no_limit_is_exceeded(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []

    def remembered(app: Any) -> Any:
        made.append(guards_meter(app))
        return made[-1]

    guards_meter = guards.METERS[name]
    monkeypatch.setitem(guards.METERS, name, remembered)
    await guards.messages(name, 50)
    (guard,) = made
    if isinstance(guard, LimitGuard):
        assert sum(guard.refused.values()) == 0


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_hook_for_messages_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[int] = []
    monkeypatch.setattr(
        guards.Listening, "received", lambda observer, connection, kind, size: called.append(size)
    )
    await guards.messages("observe, a hook for messages", 50)
    assert called == [100] * 50


def test_the_guards_are_those_of_their_names() -> None:
    made = {name: make() for name, make in guards.GUARDS.items()}
    assert isinstance(made["OriginGuard"], OriginGuard)
    assert isinstance(made["LimitGuard, connections"], LimitGuard)


def test_memory(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["guards", "memory", "--keys", "300", "--max-keys", "100", "1000"])
    guards.main()
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("300 keys, max_keys=100: 100 remembered, ")
    assert second.startswith("300 keys, max_keys=1,000: 300 remembered, ")


@pytest.mark.skipif(redis_binary() is None, reason=NO_SERVER)
def test_memory_on_redis(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["guards", "redis", "--number", "200"])
    guards.main()
    found = re.fullmatch(
        r"a key of a rate: (\d+) bytes; a connection: (\d+) bytes\n", capsys.readouterr().out
    )
    assert found is not None
    # Which takes more differs from one server to another for so few.
    assert 50 < int(found[1]) < 2000
    assert 50 < int(found[2]) < 2000


def test_the_other_commands(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    counted: list[list[str]] = []

    def per_operation(command: Any, few: int, many: int) -> float:
        counted.append(command(many))
        return 1234.5

    monkeypatch.setattr(guards, "per_operation", per_operation)
    monkeypatch.setattr(sys, "argv", ["guards", "instructions"])
    guards.main()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "handshakes, nothing: 1,234 instructions"
    assert len(lines) == len(counted) == len(guards.GUARDS) + len(guards.METERS)
    for arguments in counted:
        monkeypatch.setattr(sys, "argv", [*arguments[1:-1], "1"])
        guards.main()
    assert capsys.readouterr().out == ""

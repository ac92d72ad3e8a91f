"""The benchmark of the test client: a small run of it, and the ratios that it prints."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks import testing

CLIENTS = ["Starlette", "TestClient", "connect, asyncio", "connect, trio"]


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., list[str]]:
    """What a run with these arguments prints, by lines."""

    def run(*arguments: str) -> list[str]:
        monkeypatch.setattr(sys, "argv", ["testing", *arguments])
        testing.main()
        return capsys.readouterr().out.splitlines()

    return run


def test_every_client_talks_to_the_app(
    said: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    app, talks = testing.app, 0

    async def counted(scope: Any, receive: Any, send: Any) -> None:
        nonlocal talks
        talks += 1
        await app(scope, receive, send)

    monkeypatch.setattr(testing, "app", counted)
    monkeypatch.setattr(testing, "SESSIONS", 3)
    versions, _, _, *rows = said("--rounds", "2")
    assert re.fullmatch(r"\S+ 3\.\S+, starlette \S+, anyio \S+, trio \S+, 2 rounds", versions)
    found = [re.fullmatch(r"(.{24})(.{20}) +(\d+) +(\d+\.\d\d)", row) for row in rows]
    assert all(found), rows
    cells = [[cell.strip() for cell in row.groups()] for row in found if row]
    assert [case for case, *_ in cells if case] == ["client not entered", "client entered"]
    assert [client for _, client, *_ in cells] == CLIENTS * 2
    assert all(int(microseconds) > 0 and float(ratio) > 0 for *_, microseconds, ratio in cells)
    assert [ratio for _, client, _, ratio in cells if client == "Starlette"] == ["1.00", "1.00"]
    # the sessions of each of the clients, in two rounds and in the one that warms up
    assert talks == 3 * len(cells) * 3


def test_ratios_are_of_the_same_round(
    said: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    # The first of each is the round that warms up.
    times = {"Starlette": iter([9e9, 1e6, 4e6, 1e6]), "TestClient": iter([9e9, 5e5, 1e6, 9e5])}
    monkeypatch.setattr(testing, "CASES", {"a case": {name: each.__next__ for name, each in times.items()}})
    assert said("--rounds", "3")[3:] == [
        f"{'a case':24}{'Starlette':20}    1000   1.00",
        f"{'':24}{'TestClient':20}     900   0.50",
    ]


@pytest.mark.parametrize("case", testing.CASES)
@pytest.mark.parametrize("client", CLIENTS)
def test_planted_echo_of_something_else(case: str, client: str, monkeypatch: pytest.MonkeyPatch) -> None:
    app = testing.app

    async def other(scope: Any, receive: Any, send: Any) -> None:
        async def send_other(message: Any) -> None:
            await send({**message, "text": "other"} if "text" in message else message)

        await app(scope, receive, send_other)

    monkeypatch.setattr(testing, "SESSIONS", 1)
    monkeypatch.setattr(testing, "app", other)
    with pytest.raises(AssertionError):
        testing.CASES[case][client]()


def test_it_is_the_package_of_this_checkout() -> None:
    file = testing.ours.__file__
    assert file is not None
    assert Path(file).is_relative_to(Path(__file__).parents[2] / "packages")


def test_no_round_at_all(said: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        said("--rounds", "0")
    assert caught.value.code == 2
    assert "--rounds must be at least 1, got 0" in capsys.readouterr().err

"""The soak test: a short one of the block, and that it finds what it is there for."""

from __future__ import annotations

import re
import sys

import pytest

if sys.platform != "linux":
    pytest.skip("the benchmarks read /proc", allow_module_level=True)

from benchmarks import soak
from benchmarks._peers import uvicorn


@pytest.mark.parametrize("implementation", ["websockets-sansio", "wsproto", "websockets"])
def test_nothing_of_some_hundred_connections_stays_behind(implementation: str) -> None:
    said: list[str] = []
    outcome = soak.run(uvicorn("uvicorn", implementation, soak.SOAKED, ours=True), 480, 240, said.append)
    assert outcome.complaints() == []
    assert outcome.cycles == 480
    assert said[-1].lstrip().startswith("480 cycles")
    assert outcome.before.tasks >= 3  # itself, its reader, and the server
    assert outcome.before.descriptors > 3
    assert outcome.before.memory > 5e6


@pytest.mark.parametrize(
    ("leak", "complaint"),
    [
        ("memory", r"the memory grew by \d,\d{3},\d{3} bytes"),
        ("objects", r"there were \d+ objects of Python, and now there are"),
        ("tasks", r"there were \d+ tasks, and now there are \d{3,}"),
        ("descriptors", r"there were \d+ descriptors, and now there are \d{3,}"),
        ("printed", "the server printed:\nTraceback"),
    ],
)
def test_planted_leak(leak: str, complaint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEAK", leak)
    monkeypatch.setattr(soak, "LIMIT", 0.2)
    peer = uvicorn("leaky", "websockets-sansio", "tests.benchmarks.leaky:app", ours=True)
    outcome = soak.run(peer, 480 if leak == "objects" else 144, 48, lambda line: None)
    found = outcome.complaints()
    assert any(re.match(complaint, each) for each in found), found
    assert len(found) == 1 or leak == "tasks"  # which are objects, too


def test_a_server_that_does_not_start() -> None:
    peer = uvicorn("absent", "websockets-sansio", "absent", ours=True)
    with pytest.raises(RuntimeError, match="the server"):
        soak.run(peer, 1, 1)

"""The page *With Lilya*: what changes, before and after, and what stays."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from . import scenarios

Outcomes = dict[str, Any]


@pytest.fixture(scope="module")
def before() -> Outcomes:
    """Lilya on its own module."""
    script = Path(scenarios.__file__)
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    found: Outcomes = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def after() -> Outcomes:
    """Lilya on this package."""
    return scenarios.outcomes()


def test_the_wrong_kind(before: Outcomes, after: Outcomes) -> None:
    assert before["the_wrong_kind"] == ["KeyError", "go on"]
    assert after["the_wrong_kind"] == ["WebSocketDataError", "go on"]


def test_a_lost_client(before: Outcomes, after: Outcomes) -> None:
    assert before["a_lost_client"] == ["ConnectionResetError"]
    assert after["a_lost_client"] == ["WebSocketDisconnect"]


def test_how_it_ended(before: Outcomes, after: Outcomes) -> None:
    assert before["how_it_ended"] == "unknown"
    assert after["how_it_ended"] == 1001


def test_a_generators_cleanup(before: Outcomes, after: Outcomes) -> None:
    assert before["a_generators_cleanup"] == ["closed", "app ended", "given back"]
    assert after["a_generators_cleanup"] == ["given back", "closed", "app ended"]


def test_a_dependency_that_sends(before: Outcomes, after: Outcomes) -> None:
    assert before["a_dependency_that_sends"] == ["WebSocketRuntimeError"]
    assert after["a_dependency_that_sends"] == ["sent"]


def test_a_dependency_that_accepts(before: Outcomes, after: Outcomes) -> None:
    assert before["a_dependency_that_accepts"] == ["WebSocketRuntimeError"]
    assert after["a_dependency_that_accepts"] == ["hello"]


def test_a_missing_middleware(before: Outcomes, after: Outcomes) -> None:
    assert before["no_session"] == ["ImproperlyConfigured"]
    assert after["no_session"] == ["WebSocketRuntimeError"]


def test_an_exception_that_leaves_the_handler(before: Outcomes, after: Outcomes) -> None:
    name = "an_exception_that_leaves_the_handler"
    assert before[name] == after[name]
    assert after[name] == {"type": "websocket.close", "code": 500, "reason": "LookupError('no such room')"}


def test_each_scenario_is_looked_at(before: Outcomes, after: Outcomes) -> None:
    source = Path(__file__).read_text(encoding="utf-8")
    assert before.keys() == after.keys()
    assert [name for name in after if f'"{name}"' not in source] == []

"""Runs this package's tests on a CPython without sockets, threads and processes: Pyodide, in Node.

Pyodide may have a newer CPython than any that is installed. Its own event loop cannot be run until a
coroutine ends, and asyncio's loop needs a socket to be woken by. So this file has a loop that nobody wakes.
trio does not run there.
"""

from __future__ import annotations

import asyncio
import platform
import sys
import time
from typing import Any

import pytest

# The tests that need no socket, thread, process or trio.
FILES = (
    "accepting",
    "cleanup",
    "closing",
    "connection",
    "contract",
    "conversation",
    "conversation_direct",
    "conversation_time",
    "datastructures",
    "denial",
    "exceptions",
    "hostile",
    "iterating",
    "messages",
    "properties",
    "receiving",
    "second",
    "sending",
    "servers",
    "state",
    "testing_rules",
    "upstream",
)


class Selector:
    """Selects from nothing: it only waits."""

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise RuntimeError("everybody waits, and nobody is left to end it")
        time.sleep(max(0.0, timeout))
        return []

    def close(self) -> None:
        pass


class Loop(asyncio.BaseEventLoop):
    """An event loop for coroutines and timers."""

    def __init__(self, selector: Any = None) -> None:
        super().__init__()
        self._selector = selector or Selector()

    def _process_events(self, events: list[Any]) -> None:
        assert events == []

    def _write_to_self(self) -> None:
        pass


STACK = "V8's stack is full before CPython's limit of nesting is reached"
PROCESS = "there are no processes"
# Parts of the names of tests that cannot run there, and why.
SKIPPED = {
    "what_has_no_end": STACK,
    "nested_too_deep": STACK,
    "[[[[": STACK,
    '{"a":{"a":': STACK,
    "JSON, brackets": STACK,
    "test_any_json": STACK,
    "test_beside_lilya": PROCESS,
    "inside_of_c": "there is no clock of the processor's time",
    "test_a_response[asyncio-File": "there are no threads, in which files are read",
}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is for trio, and skip what cannot run there."""
    config.hook.pytest_deselected(items=[item for item in items if "trio" in _backends(item)])
    items[:] = [item for item in items if "trio" not in _backends(item)]
    for item in items:
        for part, reason in SKIPPED.items():
            if part in item.name:
                item.add_marker(pytest.mark.skip(reason=reason))


def _backends(item: pytest.Item) -> tuple[Any, ...]:
    parameters = getattr(getattr(item, "callspec", None), "params", {})
    return (parameters.get("anyio_backend"), parameters.get("backend"))


def main(arguments: list[str]) -> int:
    """Run the tests; the exit status."""
    print(f"CPython {platform.python_version()} on {sys.platform}")  # noqa: T201 - for who reads the log
    asyncio._set_running_loop(None)  # Pyodide's own, which is always running
    asyncio.events.new_event_loop = Loop
    setattr(asyncio, "SelectorEventLoop", Loop)  # noqa: B010 - which is another type to mypy
    # Named files take the place of all, as with pytest itself.
    files = (
        []
        if any(".py" in argument for argument in arguments)
        else [f"tests/lilya_websockets/test_{name}.py" for name in FILES]
    )
    return int(
        pytest.main(
            [
                *("-c", "tests/pyodide/pytest.ini", "--rootdir=.", "-p", "no:cacheprovider"),
                *("-p", "no:faulthandler", "-p", "no:threadexception"),
                *files,
                *arguments,
            ],
            plugins=[sys.modules[__name__]],
        )
    )

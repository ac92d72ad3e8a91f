"""What a replay reaches of the code that is shown, and what it leaves behind."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

# Threads that somebody keeps for the next function: of executors, AnyIO and trio.
_KEPT_THREADS = ("ThreadPoolExecutor", "asyncio_", "AnyIO worker thread", "Trio thread", "ws-doctest")


# What the gate opens for itself while an app runs, and what it holds meanwhile: else it would be the app's.
OPENING = threading.Lock()
OWN: set[str] = set()


def own(descriptor: int) -> None:
    """Note that a file or socket is the gate's own."""
    with suppress(OSError):
        OWN.add(os.readlink(f"/proc/self/fd/{descriptor}"))


class Reach:
    """The lines and functions that were run, of every file that is shown.

    Args:
        files: the files, examples and pages.
    """

    def __init__(self, files: set[Path]) -> None:
        self.lines: dict[str, set[int]] = {str(path): set() for path in files}
        self.called: dict[str, set[tuple[int, str]]] = {str(path): set() for path in files}

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Note what this thread runs meanwhile."""
        before = sys.gettrace()
        sys.settrace(self._trace)
        try:
            yield
        finally:
            sys.settrace(before)

    def _trace(self, frame: FrameType, event: str, arg: Any) -> Any:
        lines = self.lines.get(frame.f_code.co_filename)
        if lines is None:
            return None
        code = frame.f_code
        self.called[code.co_filename].add((code.co_firstlineno, code.co_name))
        lines.add(frame.f_lineno)

        def trace_line(frame: FrameType, event: str, arg: Any) -> Any:
            lines.add(frame.f_lineno)
            return trace_line

        return trace_line

    def taken(self) -> tuple[dict[str, set[int]], dict[str, set[tuple[int, str]]]]:
        """Return what was run, for `add`, and forget it."""
        taken = {k: v for k, v in self.lines.items() if v}, {k: v for k, v in self.called.items() if v}
        self.lines |= {path: set() for path in taken[0]}
        self.called |= {path: set() for path in taken[1]}
        return taken

    def add(self, lines: dict[str, set[int]], called: dict[str, set[tuple[int, str]]]) -> None:
        """Note what another process has run."""
        for path, numbers in lines.items():
            self.lines[path] |= numbers
        for path, functions in called.items():
            self.called[path] |= functions

    def unreached(self, source: str, path: Path, above: int = 0) -> list[int]:
        """Return the lines of code that nothing has run.

        Args:
            source: the code.
            path: the file that it is in.
            above: the lines of the file before it.
        """
        lines, called = self.lines[str(path)], self.called[str(path)]
        missing: set[int] = set()
        first = {number + above for number in _statement_lines(source)}
        for code in _codes(compile("\n" * above + source, str(path), "exec", FLAGS, dont_inherit=True)):
            own = {number for _, _, number in code.co_lines() if number} & first
            if code.co_name != "<module>" and (code.co_firstlineno, code.co_name) not in called:
                missing |= own or {code.co_firstlineno}
            else:
                missing |= own - lines
        return sorted(missing)


FLAGS = 0x2000  # ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, without which a snippet does not compile


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _statement_lines(source: str) -> set[int]:
    """Return the first lines of statements: those between them do not say anything of their own."""
    import ast

    lines: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.stmt):
            lines.add(node.lineno)
            # A docstring, and a body of `...` or `pass`, is nothing to be run.
            idle = isinstance(node, ast.Pass) or (
                isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            )
            if idle or isinstance(node, ast.Global | ast.Nonlocal):
                lines.discard(node.lineno)
    return lines


class Remains:
    """What was there before a replay, to be compared with what is there after it."""

    def __init__(self) -> None:
        self.threads = set(threading.enumerate())
        self.files = _open_files()
        self.tasks = _tasks()
        self.errors: list[str] = []
        self.handler = _Errors(self.errors)
        logging.getLogger().addHandler(self.handler)

    def problems(self) -> list[str]:
        """Return what the app has left behind, and what it has logged as an error. Ends the watch."""
        logging.getLogger().removeHandler(self.handler)
        found = [f"the app logged an error: {error}" for error in self.errors]
        found += [f"the app left a task behind: {task.get_coro()!r}" for task in _tasks() - self.tasks]
        found += [
            f"the app left a thread behind: {thread.name}"
            for thread in set(threading.enumerate()) - self.threads
            if thread.is_alive()
            and not thread.name.startswith(_KEPT_THREADS)
            and not thread.name.endswith("(_monitor)")  # of `logging.handlers.QueueListener`
        ]
        left = _open_files() - self.files
        if left:
            gc.collect()  # what nobody can reach any more is nobody's
            with OPENING:
                left = _open_files() - self.files
        found += [f"the app left open: {name}" for _, name in sorted(left)]
        return found


class _Errors(logging.Handler):
    def __init__(self, errors: list[str]) -> None:
        super().__init__(logging.ERROR)
        self.errors = errors

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        self.errors.append(f"{record.name}: {record.getMessage()}" + (f" ({error!r})" if error else ""))


def _tasks() -> set[asyncio.Task[Any]]:
    try:
        return {task for task in asyncio.all_tasks() if not task.done()}
    except RuntimeError:  # trio, where no task outlives its nursery
        return set()


def _open_files() -> set[tuple[str, str]]:
    """Return the sockets and files that are open, where the system tells."""
    found = set()
    try:
        numbers = os.listdir("/proc/self/fd")
    except OSError:
        return set()
    for number in numbers:
        try:
            name = os.readlink(f"/proc/self/fd/{number}")
        except OSError:  # the one that listed them
            continue
        # Pipes and the like belong to event loops; temporary files and devices to the gate.
        if name not in OWN and (name.startswith("socket:") or name.endswith((".py", ".txt"))):
            found.add((number, name))
    return found

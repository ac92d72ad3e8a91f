"""Processes that are forked with what the examples import: replays, servers, and runs of pytest.

Importing a framework takes longer than replaying what a page shows. On Linux the modules are imported once,
in the process that `multiprocessing` forks others from: it imports this module, and a variable of its
environment has the names. On other systems forking is not safe, and each process imports what it needs.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import multiprocessing
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any

from ws_doctest import _watch

VARIABLE = "WS_DOCTEST_PRELOAD"

PROCESSES: Any = multiprocessing.get_context("forkserver" if sys.platform == "linux" else "spawn")


def preload(modules: Iterable[str] = ()) -> None:
    """Have the processes find these modules imported; they are imported while other things are done.

    Only the first call counts.
    """
    if sys.platform == "linux":
        from multiprocessing import forkserver

        os.environ[VARIABLE] = ",".join(["pytest", *modules])
        multiprocessing.set_forkserver_preload(["ws_doctest._preload"])
        forkserver.ensure_running()
        del os.environ[VARIABLE]


class Helper:
    """A process that does one thing after the other for the gate, which does others meanwhile.

    Args:
        target: is called in the process, with a pipe and the arguments. It answers what comes from the pipe,
            until that is `None` or the pipe ends.
        arguments: the other arguments.
    """

    def __init__(self, target: Callable[..., None], *arguments: Any) -> None:
        with _watch.OPENING:
            self.pipe, theirs = PROCESSES.Pipe()
            self.process: Any = PROCESSES.Process(target=target, args=(theirs, *arguments))
            self.process.start()
            theirs.close()
            _watch.own(self.pipe.fileno())
        atexit.register(self.stop)

    def ask(self, *question: Any) -> Any:
        """Return the answer.

        Raises:
            EOFError: the process has ended; also an `OSError`.
        """
        self.pipe.send(question)
        return self.pipe.recv()

    def stop(self) -> None:
        """End the process, after what is under way."""
        atexit.unregister(self.stop)
        with suppress(OSError):
            self.pipe.send(None)
        self.process.join(5)
        if self.process.exitcode is None:
            self.process.kill()
            self.process.join()


def replay_in_memory(pipe: Any, *arguments: Any) -> None:
    """Replay in memory until the gate is gone; see `_memory.replay_for`. What is printed is dropped."""
    from ws_doctest import _memory

    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)

    _memory.replay_for(pipe, *arguments)


def replay(pipe: Any, implementation: str, root: str) -> None:
    """Replay over a server until the gate is gone; see `_wire.replay_for`."""
    from ws_doctest import _wire

    if sys.platform == "linux":
        global PROCESSES
        # The server is forked from this process: everything is imported, and no thread runs.
        PROCESSES = multiprocessing.get_context("fork")
    _wire.replay_for(pipe, implementation, root)


def serve(*arguments: str) -> None:
    """Be a server; its modules are not imported where it is only started."""
    from ws_doctest import _server

    _server.main(*arguments)


def run_pytest(arguments: list[str], root: str, output: str, environment: Mapping[str, str]) -> None:
    """Be `python -m pytest`, run in the project's root.

    Args:
        arguments: those of the command line.
        root: the project's root.
        output: the file for what it prints.
        environment: all variables.
    """
    with open(output, "ab", buffering=0) as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(root)
    sys.path[:0] = [root]
    import pytest

    # pytest warns of plugins that were imported before it could rewrite their assertions.
    sys.exit(int(pytest.main([*arguments, "-W", "ignore::pytest.PytestAssertRewriteWarning"])))


if VARIABLE in os.environ:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _name in os.environ[VARIABLE].split(","):
            # An example that cannot be loaded says so itself, where it is replayed.
            with suppress(Exception):
                importlib.import_module(_name)
    gc.freeze()  # it stays: no process that is forked has to look through it for what is not used any more

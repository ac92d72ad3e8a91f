"""Processes that are forked with what the examples import: servers, and runs of pytest.

Importing a framework takes longer than replaying what a page shows. On Linux the modules are imported once,
in the process that `multiprocessing` forks others from: it imports this module, and a variable of its
environment has the names. On other systems forking is not safe, and each process imports what it needs.
"""

from __future__ import annotations

import gc
import importlib
import multiprocessing
import os
import sys
import warnings
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

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

"""What the processes of uvicorn are forked with: the modules that the examples import.

`multiprocessing` imports this module, in the process that forks. A variable of its environment has the names.
"""

from __future__ import annotations

import importlib
import os
import warnings
from contextlib import suppress

VARIABLE = "WS_DOCTEST_PRELOAD"


def serve(*arguments: str) -> None:
    """Be a server; its modules are not imported where it is only started."""
    from ws_doctest import _server

    _server.main(*arguments)


if VARIABLE in os.environ:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _name in os.environ[VARIABLE].split(","):
            # An example that cannot be loaded says so itself, where it is replayed.
            with suppress(Exception):
                importlib.import_module(_name)

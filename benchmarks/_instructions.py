"""Counts processor instructions with valgrind. A noisy machine does not change them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence

from ._report import ROOT

__all__ = ["per_operation"]

LIMIT = 1800.0  # seconds for one run; under valgrind everything takes some fifty times as long


def per_operation(command: Callable[[int], Sequence[str]], few: int, many: int) -> float:
    """Count the instructions of one operation.

    They are the difference of two runs: what starts and ends Python is in both.

    Args:
        command: Gives the arguments for Python that do so many operations.
        few: The operations of the first run, enough for everything to be loaded and warm.
        many: The operations of the second run.

    Raises:
        RuntimeError: A run failed; the message has what it printed.
    """
    return (_counted(command(many)) - _counted(command(few))) / (many - few)


def _counted(arguments: Sequence[str]) -> int:
    if shutil.which("valgrind") is None:
        sys.exit("valgrind is not installed, and it counts the instructions")
    done = subprocess.run(
        [
            *("valgrind", "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"),
            *(sys.executable, *arguments),
        ],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    found = re.search(r"I\s+refs:\s+([\d,]+)", done.stderr)
    if found is None or done.returncode:
        raise RuntimeError(f"{' '.join(arguments)}: counting failed\n{done.stdout}{done.stderr}")
    return int(found[1].replace(",", ""))

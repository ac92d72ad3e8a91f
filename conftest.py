"""For pytest before it collects: settings of a gate that may be absent, and where coverage is measured."""

from __future__ import annotations

import importlib.util
import os

import pytest

# Coverage is measured in pytest's workers, where every line of the core is run. Measuring the hundreds of
# servers and scripts that the tests start, too, would add nothing and make the tests take half as long again.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.pop("COVERAGE_PROCESS_CONFIG", None)

SETTINGS = ("pages", "examples", "receivers", "names", "words", "elsewhere", "asyncio", "servers")


def pytest_addoption(parser: pytest.Parser) -> None:
    if importlib.util.find_spec("ws_doctest") is None:
        for name in SETTINGS:
            parser.addini(f"ws_doctest_{name}", "of the doc gate, which is not installed", type="linelist")

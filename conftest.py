"""Where the doc gate is not installed, its settings in `pyproject.toml` are no mistake."""

from __future__ import annotations

import importlib.util

import pytest

SETTINGS = ("pages", "examples", "receivers", "names", "words", "elsewhere", "asyncio", "servers")


def pytest_addoption(parser: pytest.Parser) -> None:
    if importlib.util.find_spec("ws_doctest") is None:
        for name in SETTINGS:
            parser.addini(f"ws_doctest_{name}", "of the doc gate, which is not installed", type="linelist")

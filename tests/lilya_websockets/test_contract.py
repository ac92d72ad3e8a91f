"""No row of the contract without a test, and no test for a row that is none."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from .contract import ROWS


def claimed_in(source: str) -> Iterator[str]:
    """The rows that the decorators of test functions and test classes claim."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) and (
            node.name.startswith(("test_", "Test"))
        ):
            for decorator in node.decorator_list:
                if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "pytest.mark.contract":
                    yield from (ast.literal_eval(argument) for argument in decorator.args)


@cache
def claimed() -> set[str]:
    files = Path(__file__).parent.glob("test_*.py")
    return {row for file in files for row in claimed_in(file.read_text(encoding="utf-8"))}


@pytest.mark.parametrize("row", ROWS)
def test_every_row_has_a_test(row: str) -> None:
    assert row in claimed()


def test_no_test_claims_what_is_no_row() -> None:
    assert claimed() <= ROWS.keys()


def test_a_dropped_test_is_noticed() -> None:
    source = '@pytest.mark.contract("a", "b")\ndef test_it(): ...\n'
    assert set(claimed_in(source)) == {"a", "b"}
    assert set(claimed_in(source.replace("test_it", "it"))) == set()
    assert set(claimed_in(source.replace("@", "# @"))) == set()

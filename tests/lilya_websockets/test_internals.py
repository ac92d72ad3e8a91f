"""Tells the day on which uvicorn or websockets change what this package uses of their internals.

Neither library promises to keep them. So the source of each name that the package imports is compared with
that of the versions that were read and tested, by the digests in `internals.json`. If a release changes one,
read the change, run `nox -s conformance`, and then add what is installed to the file:

    python -m tests.lilya_websockets.test_internals

Do that with the oldest Python, too, whose newest websockets is an older one.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.metadata
import inspect
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import lilya.websockets

FILE = Path(__file__).with_name("internals.json")
PACKAGE = Path(lilya.websockets.__file__).parent
LIBRARIES = ("uvicorn", "websockets")

Known = dict[str, dict[str, str]]  # name: digest: the version that it was first seen in


def used() -> list[str]:
    """The names that the package imports from the libraries, `module:name`."""
    names = set()
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and not node.level and _library(node.module or ""):
                names |= {f"{node.module}:{alias.name}" for alias in node.names}
            elif isinstance(node, ast.Import):
                names |= {f"{alias.name}:" for alias in node.names if _library(alias.name)}
    return sorted(names)


def _library(module: str) -> bool:
    return module.partition(".")[0] in LIBRARIES


def sources(name: str) -> Iterator[str]:
    """The source of what a name stands for; of a class with that of its bases in the same library."""
    module, _, attribute = name.partition(":")
    found: Any = importlib.import_module(module)
    if attribute:
        found = getattr(found, attribute)
    parts = found.__mro__ if inspect.isclass(found) else [found]
    for part in parts:
        if not inspect.isroutine(part) and not inspect.isclass(part) and not inspect.ismodule(part):
            yield repr(part)  # a constant
        elif _library(getattr(part, "__module__", None) or part.__name__) and not inspect.isbuiltin(part):
            yield inspect.getsource(part)


def digest(name: str) -> str:
    return hashlib.sha256("\n".join(sources(name)).encode()).hexdigest()[:16]


def version_for(name: str) -> str:
    library = name.partition(".")[0].partition(":")[0]
    return f"{library} {importlib.metadata.version(library)}"


def problem(name: str, known: Known) -> str:
    """What has changed about a name; empty if nothing has."""
    try:
        seen = digest(name)
    except (ImportError, AttributeError) as error:
        return f"{version_for(name)} has no {name} any more: {error}"
    if seen in known.get(name, {}):
        return ""
    before = ", ".join(known.get(name, {}).values()) or "no version"
    return f"{version_for(name)}: {name} is not as in {before}. The first lines of this file say what to do"


@pytest.mark.parametrize("name", used())
def test_what_is_used_is_as_it_was_when_it_was_read(name: str) -> None:
    if name.startswith("websockets.speedups"):
        pytest.skip("compiled: it has no source; what it does is tested beside that of websockets.utils")
    assert problem(name, json.loads(FILE.read_text(encoding="utf-8"))) == ""


def test_planted_faults() -> None:
    known: Known = json.loads(FILE.read_text(encoding="utf-8"))
    name = next(name for name in known if name.startswith("uvicorn.protocols.utils:get_"))
    assert problem(name, known) == ""
    assert "is not as in uvicorn" in problem(name, {name: {"0123456789abcdef": "uvicorn 0.1"}})
    assert "is not as in no version" in problem(name, {})
    assert "has no uvicorn.server:Nobody any more" in problem("uvicorn.server:Nobody", known)
    assert "has no uvicorn.nowhere:x any more" in problem("uvicorn.nowhere:x", known)


def write() -> None:
    """Add what is installed, and drop what is no longer used."""
    before: Known = json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else {}
    known = {}
    for name in used():
        if not name.startswith("websockets.speedups"):
            known[name] = before.get(name, {})
            known[name].setdefault(digest(name), version_for(name))
    FILE.write_text(f"{json.dumps(known, indent=1)}\n", encoding="utf-8")


if __name__ == "__main__":
    write()

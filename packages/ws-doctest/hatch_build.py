"""Puts the server in memory into the wheel: those modules of `lilya.websockets` that it is made of.

One source, two packages that are released apart. Which modules these are follows from their imports.
"""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

# What is used of the test client's package, without the client itself.
NEEDED = [f"testing/_{name}.py" for name in ("connection", "errors", "lifespan", "loop", "where")]


class InMemoryServer(BuildHookInterface[Any]):
    """Adds the modules to what is built."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Name the files and where they go; an editable installation takes them from the other package."""
        if version == "editable":
            return
        root = Path(self.root)
        # In an unpacked source distribution they lie beside this file.
        source = root / "in_memory"
        if not source.is_dir():
            source = root.parent / "lilya-websockets" / "src" / "lilya" / "websockets"
        target = "in_memory" if self.target_name == "sdist" else "ws_doctest/_in_memory"
        for name in needed(source):
            build_data["force_include"][str(source / name)] = f"{target}/{name}"


def needed(source: Path) -> list[str]:
    """The modules that are needed, with all that they import of one another."""
    found: list[str] = []
    waiting = list(NEEDED)
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.append(name)
        for node in ast.walk(ast.parse((source / name).read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level:
                folder = Path(name).parent if node.level == 1 else Path(name).parent.parent
                waiting.append((folder / f"{node.module}.py").as_posix())
    return sorted(found)

"""A fault to plant, and a copy of this repository to plant it in."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]


class NotPlantable(Exception):
    """The place of a fault is not there any more, or not once."""


@dataclass(frozen=True)
class Plant:
    """One change of one file.

    Args:
        file: Its name, from the root.
        edit: Makes the new text of the old one; `None` for what is not there.
    """

    file: str
    edit: Callable[[str | None], str | None]

    def line(self, root: Path = ROOT) -> int:
        """The first line that it changes in a repository without it."""
        path = root / self.file
        before = path.read_text(encoding="utf-8") if path.is_file() else ""
        after = self.edit(before if path.is_file() else None) or ""
        lines = list(zip(before.split("\n"), after.split("\n"), strict=False))
        return next((number for number, (old, new) in enumerate(lines, 1) if old != new), len(lines))

    def plant(self, root: Path) -> None:
        """Change the file in a copy."""
        path = root / self.file
        text = self.edit(path.read_text(encoding="utf-8") if path.is_file() else None)
        if text is None:
            path.unlink()
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


@dataclass(frozen=True)
class Fault:
    """What is wrong.

    Args:
        name: In a few words.
        plants: What is changed for it.
        kind: What it is a fault of.
        alone: Whether it is planted without others, because everything depends on what it changes.
    """

    name: str
    plants: tuple[Plant, ...]
    kind: str = "behaviour"
    alone: bool = False

    @property
    def files(self) -> set[str]:
        """What is changed."""
        return {plant.file for plant in self.plants}

    def plant(self, root: Path) -> None:
        """Plant it in a copy."""
        for plant in self.plants:
            plant.plant(root)


def find(file: str) -> str:
    """The path of a page or an example, in whichever folder of the docs it is now."""
    top, *_ = Path(file).parts
    if (ROOT / file).exists() or top not in ("docs", "docs_src"):
        return file
    same = [path for path in sorted((ROOT / top).rglob(Path(file).name)) if path.is_file()]
    beside = [path for path in same if path.parent.name == Path(file).parent.name]
    found = beside or same
    return found[0].relative_to(ROOT).as_posix() if len(found) == 1 else file


def change(file: str, old: str, new: str) -> Plant:
    """Replace a text that stands there once."""
    return substitute(file, re.escape(old), new.replace("\\", r"\\"))


def substitute(file: str, pattern: str, new: str) -> Plant:
    """Replace the only match of a pattern; for texts with a path in them."""
    file = find(file)

    def edit(text: str | None) -> str:
        if text is None or len(re.findall(pattern, text)) != 1:
            raise NotPlantable(f"{file} does not match exactly once {pattern!r}")
        return re.sub(pattern, new, text)

    return Plant(file, edit)


def add(file: str, addition: str) -> Plant:
    """Add a text at the end."""
    file = find(file)

    def edit(text: str | None) -> str:
        if text is None:
            raise NotPlantable(f"there is no {file}")
        return text + addition

    return Plant(file, edit)


def create(file: str, content: str) -> Plant:
    """Create a file."""

    def edit(text: str | None) -> str:
        if text is not None:
            raise NotPlantable(f"{file} is there")
        return content

    return Plant(file, edit)


def copy(target: Path) -> Path:
    """Copy what git knows of this repository, and what it would know."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.splitlines()
    for name in listed:
        source = ROOT / name
        if source.is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target / name)
    return target

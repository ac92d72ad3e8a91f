"""The page *Design*: its tables of layers are what the modules import."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.docs.pages import at

pytestmark = pytest.mark.page("docs/project/design.md", "| `types.py` |")

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "project" / "design.md"
CORE = ROOT / "packages" / "lilya-websockets" / "src" / "lilya" / "websockets"


def imports(module: Path) -> set[str]:
    """The modules beside it that a module imports."""
    tree = ast.parse(module.read_text(encoding="utf-8"))
    return {
        node.module or ""
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        and (node.level == 1 or (node.module or "").startswith("lilya.web"))
    }


def shown(page: str) -> dict[str, set[str] | None]:
    """The modules of a table in order, and what each may import; `None` for all above it."""
    rows = re.findall(r"^\| `(\w+)\.py` \| [^|]+ \| ([^|]+) \|$", page, re.MULTILINE)
    layers: dict[str, set[str] | None] = {}
    for name, cell in rows:
        layers[name] = None if cell == "everything above" else set(re.findall(r"`(\w+)`", cell))
    return layers


def rows_of(page: str, folder: str) -> list[list[str]]:
    """The modules of the rows of a folder's table, in order."""
    table = page.partition(f"| module of `{folder}/` |")[2].partition("\n\n")[0]
    return [re.findall(r"`(\w+)\.py`", row.split("|")[1]) for row in table.splitlines()[2:]]


def _faults_of_channels(page: str) -> list[tuple[str, str]]:
    """How the table of channels differs from the code: imports point up only, or to the left in a row."""
    folder = CORE / "channels"
    rows = rows_of(page, "channels")
    shown = [name for row in rows for name in row]
    modules = {path.stem for path in folder.glob("*.py")}
    problems = [
        (name, f"channels/{name} is on one side only") for name in sorted(modules.symmetric_difference(shown))
    ]
    # The package itself is loaded before each of its modules.
    above = {""}
    for row in rows:
        for name in row:
            found = imports(folder / f"{name}.py") if name in modules else set[str]()
            if not found <= above:
                problems.append((name, f"channels/{name} imports {sorted(found - above)}, not above it"))
            above.add(name)
    return problems


def faults(page: str) -> list[str]:
    """How the tables differ from the code, each with the row that says so."""
    problems = [*_faults(page), *_faults_of_channels(page)]
    return [f"{at(PAGE, f'`{name}.py`', page)}: {problem}" for name, problem in problems]


def _faults(page: str) -> list[tuple[str, str]]:
    page, _, protocol = page.partition("| module of `uvicorn/` |")
    protocol = protocol.partition("\n\n")[0]
    layers = shown(page)
    modules = {path.stem for path in CORE.glob("*.py")}
    problems = [(name, f"{name} is on one side only") for name in sorted(layers.keys() ^ modules)]
    above: set[str] = set()
    for name in (name for name in layers if name in modules and name != "__init__"):
        allowed = layers[name]
        found = imports(CORE / f"{name}.py")
        if not found <= above:
            problems.append((name, f"{name} imports {sorted(found - above)}, which do not stand above it"))
        if allowed is not None and found != allowed:
            problems.append((name, f"{name} imports {sorted(found)}, the page says {sorted(allowed)}"))
        above.add(name)
    rooms = shown(protocol)
    modules = {path.stem for path in (CORE / "uvicorn").glob("*.py")}
    problems += [(name, f"uvicorn/{name} is on one side only") for name in sorted(rooms.keys() ^ modules)]
    for name in rooms.keys() & modules:
        found = imports(CORE / "uvicorn" / f"{name}.py")
        if found != rooms[name]:
            problems.append((name, f"uvicorn/{name} imports {sorted(found)}, the page says {rooms[name]}"))
    return problems


def test_the_layers() -> None:
    assert faults(PAGE.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("| `exceptions` |", "| nothing |"),
        ("| `types.py` |", "| `typing.py` |"),
        ("| `_frames.py` |", "| `_frame.py` |"),
        ("| `_http`, `_protocol` |", "| `_http` |"),
        ("| `datastructures`, `exceptions`, `types` |", "| `datastructures`, `types` |"),
        ("| `_serve.py` |", "| `_server.py` |"),
        ("| `_feed.py` |", "| `_link.py` |"),
    ],
)
def test_planted_fault(old: str, new: str) -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert old in page
    found = faults(page.replace(old, new))
    assert found
    assert all(re.match(r"docs/project/design\.md:\d+: ", each) for each in found)

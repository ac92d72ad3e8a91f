"""The Reference: one page for each namespace, with every name that is public, and no other."""

from __future__ import annotations

import importlib
import inspect
import re
from typing import Any

import pytest
import tomlkit

from lilya.websockets.channels.backends import Backend
from tests.docs.browser import Browser, Tab, needs_chromium
from tests.docs.pages import DOCS, ROOT, line_of, table_of

pytestmark = pytest.mark.page("docs/reference/index.md", "# Reference")

FOLDER = DOCS / "reference"
INDEX = FOLDER / "index.md"
PACKAGE = ROOT / "packages" / "lilya-websockets" / "src" / "lilya" / "websockets"
# Modules whose names users import from `lilya.websockets`.
OF_THE_CORE = {"lilya.websockets.datastructures", "lilya.websockets.exceptions"}

Pages = dict[str, str]  # the text of each, by its file


def namespaces() -> set[str]:
    """The public modules."""
    found = set()
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE.parents[1]).with_suffix("").parts
        parts = parts[:-1] if parts[-1] == "__init__" else parts
        if not any(part.startswith("_") for part in parts):
            found.add(".".join(parts))
    return found - OF_THE_CORE


def pages() -> Pages:
    return {path.name: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.md") if path != INDEX}


def entries(text: str) -> list[str]:
    """What a page shows."""
    return re.findall(r"^::: (\S+)$", text, re.MULTILINE)


def shown(entry: str) -> Any:
    """The object that an entry is about."""
    module, _, name = entry.rpartition(".")
    return getattr(importlib.import_module(module), name, None)


def faults(found: Pages) -> list[str]:
    """Where the pages differ from what is public."""
    titles = {text.partition("\n")[0].removeprefix("# "): file for file, text in found.items()}
    problems = [
        f"docs/reference/index.md:1: no page has {name} as its title" for name in namespaces() - set(titles)
    ]
    objects = [shown(entry) for text in found.values() for entry in entries(text)]
    for title, file in titles.items():
        if title not in namespaces():
            problems.append(f"docs/reference/{file}:1: {title} is no public module")
            continue
        public = {f"{title}.{name}" for name in importlib.import_module(title).__all__}
        own = entries(found[file])
        here = public if title in own else set(own)
        problems += [
            f"docs/reference/{file}:{line_of(INDEX, f'::: {entry}', found[file])}: {entry} is no public name"
            for entry in sorted(here - public)
        ]
        # A name of another module may be on the page of that module.
        problems += [
            f"docs/reference/{file}:1: {name} is public, and on no page"
            for name in sorted(public - here)
            if not any(shown(name) is each for each in objects)
        ]
    return problems


def extras() -> set[str]:
    """What can be installed with the package."""
    project = tomlkit.parse((PACKAGE.parents[2] / "pyproject.toml").read_text(encoding="utf-8")).unwrap()
    return set(project["project"]["optional-dependencies"])


def wrong_rows(text: str) -> list[str]:
    """Where the table differs from the pages, or names an extra that there is not."""
    titles = {text.partition("\n")[0].removeprefix("# "): file for file, text in pages().items()}
    rows = {row.cells[0]: row for row in table_of(INDEX, "namespace", text=text)}
    wanted = {f"[`{title}`]({file})" for title, file in titles.items()}
    problems = [f"{rows[cell].place}: {cell} is no page" for cell in sorted(set(rows) - wanted)]
    problems += [
        f"{row.place}: there is no extra {extra}"
        for row in rows.values()
        for extra in re.findall(r"`(\w+)`", row.cells[2])
        if extra not in extras()
    ]
    return problems + [
        f"docs/reference/index.md:1: {cell} is not listed" for cell in sorted(wanted - set(rows))
    ]


def wrong_methods(text: str) -> list[str]:
    """Where the table of methods differs from the class that authors of a backend subclass."""
    methods = {name: member for name, member in vars(Backend).items() if inspect.isfunction(member)}
    public = {name: signature_of(member) for name, member in methods.items() if name[0] != "_"}
    rows = table_of(FOLDER / "backends.md", "method", text=text)
    told: dict[str, str] = {}
    problems = []
    for row in rows:
        for call in re.findall(r"`(\w+\(.*?\))`", row.cells[0]):
            name = call.partition("(")[0]
            told[name] = call
            if public.get(name) != call:
                problems.append(f"{row.place}: {call} is {public.get(name, 'no method')}")
            elif row.cells[1].startswith("Optional") == (name in Backend.__abstractmethods__):
                problems.append(f"{row.place}: {name} must be called optional only if it is")
    return problems + [f"docs/reference/backends.md:1: {name} is not listed" for name in public.keys() - told]


def signature_of(method: Any) -> str:
    """A method as the table shows it: without defaults and types."""
    parameters = [
        parameter.replace(default=parameter.empty, annotation=parameter.empty)
        for name, parameter in inspect.signature(method).parameters.items()
        if name != "self"
    ]
    return f"{method.__name__}{inspect.Signature(parameters)}"


def test_every_public_name_is_on_a_page() -> None:
    assert len(namespaces()) > 20
    assert faults(pages()) == []


def test_the_first_page_lists_the_others() -> None:
    assert wrong_rows(INDEX.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("name", "page"),
    [
        ("lilya.websockets.WebSocket.accept", "websockets"),
        ("lilya.websockets.channels.Channels.publish", "channels"),
        ("lilya.websockets.channels.backends.Id", "backends"),
        ("lilya.websockets.types.Scope", "types"),
    ],
)
@needs_chromium
@pytest.mark.page("docs/reference/index.md", "<script>")
def test_a_name_is_found_where_all_names_were(name: str, page: str, browser: Browser, address: str) -> None:
    tab = Tab(browser, f"{address}reference/#{name}")
    tab.wait(
        f"location.pathname === '/reference/{page}/' && !!document.getElementById(location.hash.slice(1))"
    )
    tab.close()


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        ("channels.md", "::: lilya.websockets.channels.Gap\n", "", "Gap is public, and on no page"),
        ("backends.md", "backends.Id\n", "backends.Nobody\n", "Nobody is no public name"),
        ("websockets.md", "::: lilya.websockets.URL\n", "", "URL is public, and on no page"),
        (
            "redis.md",
            "# lilya.websockets.redis",
            "# Redis",
            "no page has lilya.websockets.redis as its title",
        ),
        (
            "typed.md",
            "::: lilya.websockets.typed.Codec",
            "::: lilya.websockets.URL",
            "URL is no public name",
        ),
    ],
)
def test_planted_fault(file: str, old: str, new: str, said: str) -> None:
    found = pages()
    assert old in found[file]
    problems = faults({**found, file: found[file].replace(old, new, 1)})
    assert any(said in problem for problem in problems)
    assert all(re.match(r"docs/reference/\w+\.md:\d+: ", problem) for problem in problems)


def test_each_method_of_a_backend_is_in_the_table() -> None:
    assert wrong_methods((FOLDER / "backends.md").read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("`order_of(id)`, `order_in_time(id)`", "`order_of(id)`", "order_in_time is not listed"),
        ("`wake(channel)`", "`wake(name)`", "wake(name) is wake(channel)"),
        ("`read(positions)`", "`reads(positions)`", "reads(positions) is no method"),
        ("Optional: returns members", "Returns members", "status must be called optional"),
        ("Tells `read`", "Optional: tells `read`", "wake must be called optional"),
    ],
)
def test_planted_method(old: str, new: str, said: str) -> None:
    text = (FOLDER / "backends.md").read_text(encoding="utf-8")
    assert old in text
    assert any(said in problem for problem in wrong_methods(text.replace(old, new, 1)))


@pytest.mark.parametrize(
    ("old", "new"), [("(redis.md)", "(limits.md)"), ("| [`lilya.websockets.uvicorn`]", "| [`uvicorn`]")]
)
def test_planted_row(old: str, new: str) -> None:
    text = INDEX.read_text(encoding="utf-8")
    assert old in text
    assert len(wrong_rows(text.replace(old, new, 1))) == 2


def test_planted_extra() -> None:
    text = INDEX.read_text(encoding="utf-8")
    assert "| `uvicorn` |" in text
    (problem,) = wrong_rows(text.replace("| `uvicorn` |", "| `channels` |", 1))
    assert problem.endswith("there is no extra channels")

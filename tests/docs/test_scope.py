"""The gate's own scope: it is on, it sees every page, and it runs no less than it did."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import tomlkit
from pathspec import GitIgnoreSpec

from tests.docs.pages import DOCS, ROOT
from ws_doctest._project import Project
from ws_doctest._snippets import snippets_of

pytestmark = pytest.mark.page("pyproject.toml", "ws_doctest_pages")

SERVERS = ["websockets-sansio", "wsproto", "websockets", "lilya.websockets.uvicorn:WebSocketProtocol"]
READMES = [
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "SECURITY.md",
    "packages/lilya-websockets/README.md",
    "packages/lilya-websockets-js/README.md",
    "packages/ws-doctest/README.md",
]
# Less of anything is a hole in the gate. More is added here when it is there to stay.
AT_LEAST = {
    "pages": 72,
    "apps": 113,
    "transcripts": 147,
    "snippets": 45,
    "signatures": 30,
    "test files": 18,
    "consoles": 2,
}
# What is not run, or not reached, each with its reason on the page. Fewer are welcome.
AT_MOST = {"skipped": 10, "unreached lines": 53}


def configuration() -> dict[str, Any]:
    """The configuration of pytest."""
    table: dict[str, Any] = tomlkit.parse((ROOT / "pyproject.toml").read_text(encoding="utf-8")).unwrap()
    return dict(table["tool"]["pytest"]["ini_options"])


def problems(options: dict[str, Any]) -> list[str]:
    """What is missing of the gate's configuration."""
    wanted = {
        "ws_doctest_pages": ["docs", *READMES],
        "ws_doctest_examples": ["docs_src"],
        "ws_doctest_servers": SERVERS,
        "ws_doctest_receivers": [
            "websocket=lilya.websockets:WebSocket",
            "channels=lilya.websockets.channels:Channels",
            "session=lilya.websockets.testing:WebSocketSession",
        ],
    }
    found = []
    for key, value in wanted.items():
        if options.get(key) != value:
            line = _line_of(key)
            found.append(f"pyproject.toml:{line}: {key} is {options.get(key)!r}, expected {value!r}")
    defaults = ("ws_doctest_backends", "ws_doctest_disconnect", "ws_doctest_unread", "ws_doctest_time_limit")
    found += [
        f"pyproject.toml:{_line_of(key)}: {key} is not the default" for key in defaults if key in options
    ]
    elsewhere = [entry.partition(":")[0] for entry in options.get("ws_doctest_elsewhere", ())]
    if elsewhere != ["docs_src/guides/lilya"]:
        line = _line_of("ws_doctest_elsewhere")
        found.append(f"pyproject.toml:{line}: only docs_src/guides/lilya is run elsewhere, not {elsewhere}")
    return found


def _line_of(key: str) -> int:
    lines = (ROOT / "pyproject.toml").read_text(encoding="utf-8").split("\n")
    return next((number for number, line in enumerate(lines, 1) if line.startswith(key)), 1)


def counts(root: Path) -> dict[str, int]:
    """How much there is to run."""
    project = Project(root, [root / page for page in ("docs", *READMES)], [root / "docs_src"])
    pages = [project.page(path) for path in project.page_files]
    fences = [fence for page in pages for fence in page.fences]
    return {
        "pages": len(pages),
        "apps": len([path for path in project.shown if path.suffix == ".py" and "test_" not in path.name]),
        "transcripts": len([path for path in project.shown if path.suffix == ".ws"]),
        "snippets": sum(
            len(snippets_of(page, path)) for page, path in zip(pages, project.page_files, strict=True)
        ),
        "signatures": sum(len(page.bullets) for page in pages),
        "test files": len(
            [path for path in project.shown if path.name.startswith("test_") and path.suffix == ".py"]
        ),
        "consoles": sum(fence.language == "console" and fence.skip is None for fence in fences),
        "skipped": sum(fence.skip is not None for fence in fences),
        "unreached lines": sum(fence.unreached[0] for fence in fences),
    }


def left_out(root: Path, what: str) -> list[tuple[str, str]]:
    """The places of the pages that say of code that it is not run, or not reached, and why."""
    project = Project(root, [root / page for page in ("docs", *READMES)], [root / "docs_src"])
    return [
        (f"{project.name(path)}:{fence.line}", reason)
        for path in project.page_files
        for fence in project.page(path).fences
        if (reason := (fence.skip or "") if what == "skipped" else fence.unreached[1])
    ]


def test_the_gate_is_on() -> None:
    assert problems(configuration()) == []


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("ws_doctest_pages", []),
        ("ws_doctest_examples", ["docs_src/index"]),
        ("ws_doctest_servers", SERVERS[:2]),
        ("ws_doctest_receivers", []),
        ("ws_doctest_backends", ["asyncio"]),
        ("ws_doctest_disconnect", "normal"),
        ("ws_doctest_elsewhere", ["docs_src/guides/lilya: why", "docs_src/guides/open: too slow"]),
    ],
)
def test_planted_configuration(key: str, value: object) -> None:
    found = problems({**configuration(), key: value})
    assert len(found) == 1
    assert re.match(r"pyproject\.toml:\d+: ", found[0])


def test_no_less_is_run_than_was() -> None:
    found = counts(ROOT)
    few = [what for what, least in AT_LEAST.items() if found[what] < least]
    many = [what for what, most in AT_MOST.items() if found[what] > most]
    place = f"pyproject.toml:{_line_of('ws_doctest_pages')}"
    problems = [f"{place}: {found[what]} {what}, expected {AT_LEAST[what]} or more" for what in few]
    problems += [
        f"{page}: {reason}: {found[what]} {what}, expected {AT_MOST[what]} or fewer"
        for what in many
        for page, reason in left_out(ROOT, what)
    ]
    assert not problems, "\n".join(problems)


def test_what_is_left_out_has_a_place() -> None:
    for what, number in (("skipped", counts(ROOT)["skipped"]), ("unreached lines", 1)):
        places = left_out(ROOT, what)
        assert len(places) >= number
        assert all(re.fullmatch(r"[\w/.-]+\.md:\d+", place) and reason for place, reason in places)


@pytest.mark.page("mkdocs.yml", "nav:")
def test_every_page_is_in_the_navigation() -> None:
    assert not_in_navigation((ROOT / "mkdocs.yml").read_text(encoding="utf-8")) == []
    assert not_in_navigation("nav:\n  - Home: index.md\n") != []


@pytest.mark.page("mkdocs.yml", "exclude_docs:")
def test_no_page_is_left_out_of_the_site() -> None:
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert left_out_of_the_site(text) == []
    # Planted faults.
    for pattern in ("draining.md", "guides/", "/websockets.*"):
        found = left_out_of_the_site(text.replace("exclude_docs: |\n", f"exclude_docs: |\n  {pattern}\n"))
        assert found
        assert all(
            re.match(r"mkdocs\.yml:\d+: exclude_docs leaves out docs/[\w/-]+\.md$", each) for each in found
        )


def left_out_of_the_site(configuration: str) -> list[str]:
    """The pages that `exclude_docs` leaves out, as mkdocs reads it."""
    found = re.search(r"^exclude_docs: \|\n((?: +.*\n)*)", configuration, re.MULTILINE)
    patterns = GitIgnoreSpec.from_lines(textwrap.dedent(found[1] if found else "").split("\n"))
    line = configuration[: found.start()].count("\n") + 1 if found else 1
    return [
        f"mkdocs.yml:{line}: exclude_docs leaves out docs/{page.relative_to(DOCS).as_posix()}"
        for page in sorted(DOCS.rglob("*.md"))
        if patterns.match_file(page.relative_to(DOCS).as_posix())
    ]


def not_in_navigation(configuration: str) -> list[str]:
    """The pages that a reader does not find."""
    pages = [
        path.relative_to(DOCS).as_posix()
        for path in DOCS.rglob("*")
        if path.suffix in (".md", ".markdown", ".mdx")
    ]
    return [
        f"docs/{page}:1: not in the navigation of mkdocs.yml"
        for page in sorted(pages)
        if f": {page}\n" not in configuration
    ]


@pytest.mark.page("noxfile.py", "--strict")
def test_a_build_that_warns_is_not_taken_for_a_good_one() -> None:
    for file in ("noxfile.py", "tests/docs/conftest.py"):
        text = (ROOT / file).read_text(encoding="utf-8")
        assert builds_that_are_not_strict(file, text) == []
        # Planted faults.
        for new in ('"build"', '"build", "--strict", "--quiet"'):
            (found, *_) = builds_that_are_not_strict(file, text.replace('"build", "--strict"', new))
            assert re.match(rf"{re.escape(file)}:\d+: ", found)


def builds_that_are_not_strict(file: str, text: str) -> list[str]:
    """The builds of mkdocs that end well whatever they warn of: so does `--strict --quiet`."""
    return [
        f"{file}:{number}: a build is strict if it has --strict, and no --quiet, which makes it blind"
        for number, line in enumerate(text.split("\n"), 1)
        if '"mkdocs", "build"' in line and ('"--strict"' not in line or '"--quiet"' in line)
    ]


def test_pytest_collects_the_gate() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "docs/index.md", "--collect-only", "-q", "-p", "no:cacheprovider"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    for kind in (
        "memory-asyncio",
        "memory-trio",
        *(f"uvicorn-{server}" for server in SERVERS),
        "[reached]",
        "[lint]",
    ):
        assert kind in done.stdout, done.stdout

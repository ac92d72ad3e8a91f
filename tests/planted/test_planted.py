"""The lists of faults can be planted, and what counts them tells one from another."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from tests.planted import __main__ as main
from tests.planted import planting
from tests.planted.__main__ import Result, batches, failures, place_of, places_of, results_in, stages, summary
from tests.planted.behaviours import BEHAVIOURS, MORE_BEHAVIOURS
from tests.planted.faults import FAULTS
from tests.planted.planting import ROOT, Fault, NotPlantable, add, change, create, find

EVERYTHING = [*BEHAVIOURS, *MORE_BEHAVIOURS, *FAULTS]

OPEN = find("docs/guides/open.md")
CHAT = f"{find('docs/chat.md')}:7"
OUTPUT = f"""\
F.
=================================== FAILURES ===================================
_____________________ docs_src/guides/open/idle.ws[memory-asyncio] _____________________
docs_src/guides/open/idle.ws:6: the session differs from its transcript, shown on {OPEN}:301
------------------------------ Captured log call -------------------------------
INFO
___________________________________ test_it ____________________________________
E   AssertionError: {CHAT}: it is not so
=========================== short test summary info ============================
FAILED {OPEN}::docs_src/guides/open/idle.ws[memory-asyncio]
"""


@pytest.mark.parametrize("fault", EVERYTHING, ids=lambda fault: fault.name)
def test_a_fault_can_be_planted(fault: Fault) -> None:
    for plant in fault.plants:
        path = ROOT / plant.file
        before = path.read_text(encoding="utf-8") if path.is_file() else None
        assert plant.edit(before) != before


def test_the_names_are_different() -> None:
    names = [fault.name for fault in EVERYTHING]
    assert len(set(names)) == len(names)
    assert len(BEHAVIOURS) >= 30
    assert len(FAULTS) >= 60


@pytest.mark.parametrize(
    "plant",
    [
        change("README.md", "no such text", ""),
        change("README.md", "e", ""),
        add("no.md", ""),
        create("README.md", ""),
    ],
)
def test_what_cannot_be_planted_says_so(plant: object, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("here")
    with pytest.raises(NotPlantable):
        plant.plant(tmp_path)  # type: ignore[attr-defined]


def test_planting(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("here\n")
    Fault("x", (change("README.md", "here", "there"), add("README.md", "and so on\n"))).plant(tmp_path)
    Fault("y", (create("docs/new.md", "new\n"),)).plant(tmp_path)
    assert (tmp_path / "README.md").read_text() == "there\nand so on\n"
    assert (tmp_path / "docs/new.md").read_text() == "new\n"


def test_a_place_is_one_of_a_fault() -> None:
    idle = Fault("idle", (change("docs_src/guides/open/idle.py", "async def app", "def app"),))
    shown = Fault("shown", (change("docs/guides/open.md", "open/idle.ws !}", ""),))
    chat = Fault("chat", (change("docs/guides/chat.md", "# A chat room", "# Chat"),))
    far = Fault("far", (add("docs/guides/chat.md", "The end.\n"),))
    at = CHAT.removesuffix(":7")
    assert len(failures(OUTPUT)) == 2
    assert places_of(OUTPUT) == ["docs_src/guides/open/idle.ws:6", f"{OPEN}:301", f"{at}:7"]
    assert place_of(OUTPUT, idle) == "docs_src/guides/open/idle.ws:6"
    script = Fault("script", (add("docs_src/guides/chat/chat.html", ""),))
    assert place_of(OUTPUT, script) == f"{at}:7"
    assert place_of(OUTPUT, chat) == f"{at}:7"
    assert place_of(OUTPUT, far) == ""
    assert place_of(OUTPUT.replace(":301", ":1"), shown) == ""
    assert places_of("E   assert False") == []
    assert failures("INTERNALERROR") == ["INTERNALERROR"]


def test_what_is_likely_to_notice_comes_first() -> None:
    shown = Fault("x", (change("docs_src/guides/open/idle.py", "async def app", "def app"),))
    first, about, *rest = stages(shown, ROOT)
    assert first == [OPEN]
    assert "tests/docs/test_facts.py" in about
    assert rest == [["--ws-pages", "-x"], ["tests/docs", "-x", "-n", "2"]]
    settings, *_ = stages(Fault("y", (add("pyproject.toml", "\n"),)), ROOT)
    assert settings[0] == "tests/docs/test_scope.py"


def test_a_page_is_found_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planting, "ROOT", tmp_path)
    for name in ("docs/guides/open.md", "docs/a/twice.md", "docs/b/twice.md", "docs_src/guides/open/echo.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("here")
    assert find("docs/guides/open.md") == "docs/guides/open.md"
    assert find("docs_src/guides/open/echo.py") == "docs_src/guides/open/echo.py"
    assert find("docs/old/a/twice.md") == "docs/a/twice.md"
    assert find("docs/twice.md") == "docs/twice.md"
    assert find("README.md") == "README.md"


def test_what_is_counted(tmp_path: Path) -> None:
    results = [Result("faults", "k", str(number), "docs", "a.md:1") for number in range(9)]
    missed = Result("faults", "k", "missed")
    nowhere = Result("faults", "k", "nowhere", "docs")
    broken = Result("faults", "k", "broken", problem="gone")
    assert summary("faults", [*results, missed]) == ("9 of 10 noticed\nnot noticed: missed", True)
    text, enough = summary("faults", [*results, nowhere, broken])
    assert text.splitlines()[1:] == ["could not be planted: broken", "noticed without page and line: nowhere"]
    assert not enough
    assert not summary("behaviours", [*results, missed])[1]
    kept = tmp_path / "results.jsonl"
    kept.write_text("".join(json.dumps(asdict(each)) + "\n" for each in [missed, broken]))
    assert results_in(kept) == [missed, broken]
    assert results_in(tmp_path / "none") == results_in(None) == []


def test_a_fault_is_taken_out_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the run that notices is the first of those that can, unless a later one says where."""
    clean, root = tmp_path / "clean", tmp_path / "planted"
    for folder in (clean, root):
        (folder / "docs").mkdir(parents=True)
        (folder / "docs/a.md").write_text("right\n")
    seen = []

    def run(root: Path, *arguments: str) -> tuple[int, str]:
        seen.append((root / "docs/a.md").read_text())
        return 1, "E   docs/a.md:1: it is not so" if arguments[0] == "--ws-pages" else "E   it is not so"

    monkeypatch.setattr(main, "run", run)
    (clean / "tests/docs").mkdir(parents=True)
    there = main.Copy(clean, root, tmp_path)
    fault = Fault("x", (change("docs/a.md", "right", "wrong"), create("docs/b.md", "new\n")), "kind")
    result = main.try_alone("faults", fault, there)
    assert (result.by, result.place) == ("--ws-pages -x", "docs/a.md:1")
    assert seen == ["wrong\n"] * 3
    assert (root / "docs/a.md").read_text() == "right\n"
    assert not (root / "docs/b.md").exists()
    seen.clear()
    (result,) = main.try_together([fault], there)
    assert (result.by, result.place) == ("--ws-pages", "docs/a.md:1")
    assert seen == ["wrong\n"] * 2
    assert (root / "docs/a.md").read_text() == "right\n"
    assert main.cannot_be_planted(fault, clean) == ""
    gone = Fault("y", (change("docs/c.md", "right", "wrong"),))
    assert "docs/c.md does not match" in main.cannot_be_planted(gone, clean)


def test_faults_that_are_close_are_planted_apart(tmp_path: Path) -> None:
    lines = [f"line {number}." for number in range(300)]
    (tmp_path / "a.md").write_text("\n".join(lines))
    (tmp_path / "b.md").write_text("\n".join(lines))
    faults = [
        Fault(f"{file}:{line}", (change(file, f"line {line}.", ""),))
        for file, line in (("a.md", 10), ("a.md", 50), ("a.md", 200), ("b.md", 10))
    ]
    together = [[fault.name for fault in batch] for batch in batches(faults, tmp_path)]
    assert together == [["a.md:10", "a.md:200", "b.md:10"], ["a.md:50"]]
    of_examples = [
        Fault(name, (create(f"docs_src/x/{name}", ""),)) for name in ("a.py", "a.ws", "b.ws", "a.two.ws")
    ]
    assert [len(batch) for batch in batches(of_examples, tmp_path)] == [2, 1, 1]

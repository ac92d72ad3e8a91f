"""The lists of faults can be planted, and what counts them tells one from another."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.planted.__main__ import TOGETHER, batches, failures, is_about, place_of
from tests.planted.behaviours import BEHAVIOURS, MORE_BEHAVIOURS
from tests.planted.faults import FAULTS
from tests.planted.planting import ROOT, Fault, NotPlantable, add, change, create

EVERYTHING = [*BEHAVIOURS, *MORE_BEHAVIOURS, *FAULTS]

OUTPUT = """\
F.
=================================== FAILURES ===================================
_____________________ docs_src/guides/open/idle.ws[memory-asyncio] _____________________
docs_src/guides/open/idle.ws:6: the session differs from its transcript, shown on docs/guides/open.md:301
------------------------------ Captured log call -------------------------------
INFO
___________________________________ test_it ____________________________________
E   AssertionError: docs/guides/chat.md:7: it is not so
=========================== short test summary info ============================
FAILED docs/guides/open.md::docs_src/guides/open/idle.ws[memory-asyncio]
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


def test_a_failure_is_about_one_fault() -> None:
    session, text = failures(OUTPUT)
    idle = Fault("idle", (change("docs_src/guides/open/idle.py", "async def app", "def app"),))
    shown = Fault("shown", (change("docs/guides/open.md", "{!> ../../docs_src/guides/open/idle.ws !}", ""),))
    chat = Fault("chat", (change("docs/guides/chat.md", "# A chat room", "# Chat"),))
    far = Fault("far", (add("docs/guides/chat.md", "The end.\n"),))
    assert [is_about(session, fault) for fault in (idle, shown, chat, far)] == [True, False, False, False]
    assert [is_about(text, fault) for fault in (idle, shown, chat, far)] == [False, False, True, False]
    assert place_of(session) == "docs_src/guides/open/idle.ws:6"
    assert place_of(text) == "docs/guides/chat.md:7"
    assert place_of("E   assert False") == ""
    assert failures("INTERNALERROR") == ["INTERNALERROR"]


def test_faults_of_one_file_are_planted_apart() -> None:
    made = batches(FAULTS)
    assert sorted(fault.name for batch in made for fault in batch) == sorted(fault.name for fault in FAULTS)
    for batch in made:
        files = [name for fault in batch for name in fault.files]
        assert len(files) == len(set(files))
        assert len(batch) <= (1 if batch[0].alone else TOGETHER)

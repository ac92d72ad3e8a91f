"""The phases of a connection of `lilya.websockets.uvicorn`: every step in every phase."""

from __future__ import annotations

import re
from itertools import pairwise, product
from pathlib import Path

import pytest

from lilya.websockets.uvicorn import _phases as subject
from lilya.websockets.uvicorn import _protocol
from lilya.websockets.uvicorn._phases import Phase, after

# Written anew, and not read from the table.
LEGAL = {
    ("REQUEST", "asked"): "ASKED",
    ("REQUEST", "finished"): "DONE",
    ("REQUEST", "lost"): "LOST",
    ("ASKED", "accepted"): "OPEN",
    ("ASKED", "finished"): "DONE",
    ("ASKED", "lost"): "LOST",
    ("OPEN", "closed"): "CLOSING",
    ("OPEN", "failed"): "DONE",
    ("OPEN", "finished"): "DONE",
    ("OPEN", "lost"): "LOST",
    ("CLOSING", "failed"): "DONE",
    ("CLOSING", "finished"): "DONE",
    ("CLOSING", "lost"): "LOST",
    ("DONE", "lost"): "LOST",
    ("LOST", "failed"): "LOST",
    ("LOST", "finished"): "LOST",
}
STEPS = sorted({step for _, step in LEGAL})


@pytest.mark.parametrize(
    ("phase", "step"), list(product(Phase, STEPS)), ids=lambda value: getattr(value, "name", value)
)
def test_every_step_in_every_phase(phase: Phase, step: str) -> None:
    expected = LEGAL.get((phase.name, step))
    if expected is None:
        with pytest.raises(RuntimeError, match=f"in phase {phase.name} cannot be {step}$"):
            after(phase, step)
    else:
        assert after(phase, step) is Phase[expected]


def test_the_table_has_no_other_step() -> None:
    assert {step for steps in subject.AFTER for step in steps} == set(STEPS)
    assert len(subject.AFTER) == len(Phase)


def test_a_phase_never_moves_back() -> None:
    for phase, step in product(Phase, STEPS):
        if step in subject.AFTER[phase]:
            assert after(phase, step) >= phase
    assert all(one < other for one, other in pairwise(Phase))


SOURCE = Path(_protocol.__file__).read_text(encoding="utf-8")


def test_the_protocol_moves_in_one_place() -> None:
    methods = re.split(r"^    (?:async )?def ", SOURCE, flags=re.MULTILINE)
    assert [
        method.split("(")[0] for method in methods for _ in re.findall(r"_phase\b[^=\n]* = ", method)
    ] == [
        "__init__",
        "_move",
    ]


def test_the_protocol_takes_every_step() -> None:
    assert set(re.findall(r"self\._move\(\"(\w+)\"\)", SOURCE)) == set(STEPS)

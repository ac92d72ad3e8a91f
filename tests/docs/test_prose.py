"""The English of the pages: the phrases, and planted faults. The lint session runs all of `prose.py`."""

from __future__ import annotations

import re

import pytest

from tests.docs.pages import ROOT
from tests.docs.prose import Found, configuration, pages, phrases, problems, prose

pytestmark = pytest.mark.page("CONTRIBUTING.md", "`tests/docs/prose.py`")

PAGE = "# Rooms\n\nJoin a room with `join`.\n\n{}\n"


def test_no_page_has_a_phrase_that_was_replaced() -> None:
    allowed = [(each["rule"], each["text"]) for each in configuration()["exceptions"]]
    found = [each for each in phrases(pages()) if ("phrases", each.text) not in allowed]
    assert [str(each) for each in found] == []


FAULTS = [
    ("A member receives an message.", "AnA", "an"),
    ("Every member recieves the message.", "SpellCheck", "recieves"),
    ("Every member receives the the message.", "RepeatedWords", "the the"),
    ("| call | effect |\n| --- | --- |\n| `join` | an room is entered |", "AnA", "an"),
    ("* An id that is none raises `ValueError`.", "phrases", "that is none"),
    ("Whoever joins sees itself come.", "phrases", "Whoever"),
    ("An nginx configuration, in the\nwords of a proxy.", "phrases", "in the words of"),
    ("Values that are others each time have a name.", "phrases", "others each time"),
    ("What to do before it is yours.", "phrases", "before it is yours"),
    ("The room waits. Who publishes meanwhile waits.", "phrases", ". Who publishes"),
    ("Whose outbox is full is slow itself.", "phrases", "Whose outbox is full is"),
]
FINE = [
    "```python\nan = 'recieves'\n```",
    "{!> ../recieves.py !}",
    "<!-- figures load -->\n\nan recieves\n\n<!-- end of load -->",
    "Call `recieves`, or LimitGuard's `open`, in Lilya's `Channels`.",
    "## a heading in lower case\n\nit has 3 MiB.",
]


def test_planted_faults() -> None:
    # Together: to start Harper takes longer than to read a page.
    texts = {
        f"docs/rooms/{number}.md": PAGE.replace("{}", fault) for number, (fault, *_) in enumerate(FAULTS)
    }
    found = problems(texts)
    for number, (fault, rule, text) in enumerate(FAULTS):
        line = 7 if fault.startswith("| call") else 5
        place = rf"docs/rooms/{number}\.md:{line}: '{re.escape(text)}': .*\({rule}\)$"
        assert any(re.match(place, each) for each in found), (fault, found)


def test_code_generated_parts_names_and_rules_that_are_off() -> None:
    assert (
        problems({f"docs/rooms/{number}.md": PAGE.replace("{}", text) for number, text in enumerate(FINE)})
        == []
    )


def test_an_exception_is_for_its_line_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        configuration(), "exceptions", [{"rule": "AnA", "text": "receives an message", "reason": "a test"}]
    )
    text = PAGE.replace("{}", "A member receives an message.\n\nA member sends an message.")
    (found,) = problems({"docs/rooms.md": text})
    assert found.startswith("docs/rooms.md:7: 'an': ")


def test_an_exception_that_nothing_needs_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        configuration(), "exceptions", [{"rule": "AnA", "text": "an message", "reason": "a test"}]
    )
    monkeypatch.setattr("tests.docs.prose.pages", dict)
    assert problems({}) == ["tests/docs/prose.toml:1: nothing needs the exception 'an message'"]


def test_the_lines_stay() -> None:
    for name, text in pages().items():
        assert prose(text).count("\n") == text.count("\n"), name


def test_a_finding_names_page_and_line() -> None:
    assert str(Found("docs/rooms.md", 5, "AnA", "an", "wrong")) == "docs/rooms.md:5: 'an': wrong (AnA)"


def test_the_lint_session_runs_it() -> None:
    assert '"tests.docs.prose"' in (ROOT / "noxfile.py").read_text(encoding="utf-8")

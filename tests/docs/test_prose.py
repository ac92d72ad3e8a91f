"""The English of the pages. The lint session runs all of `prose.py` over all pages; here are its phrases and its faults."""

from __future__ import annotations

import re

import pytest

from tests.docs.pages import ROOT
from tests.docs.prose import Found, configuration, harper, pages, phrases, problems, prose

pytestmark = pytest.mark.page("CONTRIBUTING.md", "`tests/docs/prose.py`")

PAGE = "# Rooms\n\nJoin a room with `join`.\n\n{}\n"


def test_no_page_has_a_phrase_that_was_replaced() -> None:
    allowed = [(each["rule"], each["text"]) for each in configuration()["exceptions"]]
    found = [each for each in phrases(pages()) if ("phrases", each.text) not in allowed]
    assert [str(each) for each in found] == []


@pytest.mark.parametrize(
    ("fault", "rule", "text"),
    [
        ("This are the members of a room.", "PronounVerbAgreement", "are"),
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
    ],
)
def test_planted_fault(fault: str, rule: str, text: str) -> None:
    found = problems({"docs/rooms.md": PAGE.format(fault)})
    line = 7 if fault.startswith("| call") else 5
    assert any(
        re.match(rf"docs/rooms\.md:{line}: '{re.escape(text)}': .*\({rule}\)$", each) for each in found
    ), found


@pytest.mark.parametrize(
    "fault",
    [
        "```python\nan = 'recieves'\n```",
        "{{!> ../recieves.py !}}",
        "<!-- figures load -->\n\nan recieves\n\n<!-- end of load -->",
        "Call `recieves`, or LimitGuard's `open`, in Lilya's `Channels`.",
    ],
)
def test_code_and_generated_parts_are_not_read(fault: str) -> None:
    assert problems({"docs/rooms.md": PAGE.format(fault)}) == []


def test_a_rule_that_is_off_is_not_reported() -> None:
    off = set(configuration()["off"])
    found = list(harper({"docs/rooms.md": PAGE.format("## a heading in lower case\n\nit has 3 MiB.\n")}))
    assert not [each for each in found if each.rule in off]


def test_an_exception_is_for_its_line_only(monkeypatch: pytest.MonkeyPatch) -> None:
    line = "A member receives an message."
    monkeypatch.setitem(
        configuration(), "exceptions", [{"rule": "AnA", "text": "receives an message", "reason": "a test"}]
    )
    assert problems({"docs/rooms.md": PAGE.format(line)}) == []
    assert problems({"docs/rooms.md": PAGE.format(f"{line}\n\nA member sends an message.")}) != []


def test_an_exception_that_nothing_needs_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        configuration(), "exceptions", [{"rule": "AnA", "text": "an message", "reason": "a test"}]
    )
    monkeypatch.setattr("tests.docs.prose.pages", lambda: {"docs/rooms.md": ""})
    assert problems({"docs/rooms.md": PAGE.format("")}) == [
        "tests/docs/prose.toml:1: nothing needs the exception 'an message'"
    ]


def test_the_lines_stay() -> None:
    for name, text in pages().items():
        assert prose(text).count("\n") == text.count("\n"), name


def test_a_finding_names_page_and_line() -> None:
    assert str(Found("docs/rooms.md", 5, "AnA", "an", "wrong")) == "docs/rooms.md:5: 'an': wrong (AnA)"


def test_the_lint_session_runs_it() -> None:
    assert '"tests.docs.prose"' in (ROOT / "noxfile.py").read_text(encoding="utf-8")

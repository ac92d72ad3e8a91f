"""The page *Transcripts*: the parser takes each line of its grammar, and its error is the real one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.pages import PAGES, at, parts
from ws_doctest.transcript import TranscriptError, parse

pytestmark = pytest.mark.page("docs/project/transcripts.md", "| `> connect")

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "project" / "transcripts.md"
TOLD = [*PAGES, ROOT / "CHANGELOG.md", *sorted(ROOT.glob("packages/*/README.md"))]
PLACES = {  # what stands above a line that is no step of its own
    "> header": "> connect /",
    "> subprotocol": "> connect /",
    "> connect": "",
    "< accept": "> connect /",
    "> GET": "",
    "> body": "> POST /login",
    "< 200": "> GET /login",
    "< deny": "> connect /",
    "< header": "> connect /\n< accept",
    "< body": "> connect /\n< deny 401",
    "< body-bytes": "> connect /\n< deny 401",
}
SHORT = {"< text": "< text Hello", "< json": "< json {}", "< json-binary": "< json-binary {}"}


def lines(page: str) -> list[str]:
    """Every line of a transcript that the text of the page shows, in tables and between the words."""
    prose = re.sub(r"^(`{3,})[^`]*?^\1$", "", page, flags=re.MULTILINE | re.DOTALL)
    return [SHORT.get(line, line) for line in re.findall(r"`([<>] [^`]+)`", prose)]


def problem(line: str) -> str | None:
    """What the parser says of a line at its place, or `None`."""
    above = PLACES.get(" ".join(line.split()[:2]), "> connect /\n< accept")
    try:
        parse(f"{above}\n{line}\n".lstrip("\n"), "page")
    except TranscriptError as error:
        return error.problem
    return None


def test_the_grammar() -> None:
    found = lines(PAGE.read_text(encoding="utf-8"))
    assert len(found) > 20
    wrong = {line: f"{at(PAGE, line)}: {problem(line)}" for line in found if problem(line)}
    assert wrong == {"> connect": wrong.get("> connect")}


# Words for what stands in a line, on pages that tell the grammar.
EXAMPLES = {
    "NAME: VALUE": "a: b", "STATUS": "401", "PATH": "/chat", "NAME": "chat", "TEXT": "hi", "JSON": "{}",
    "HEX": "00 ff", "CODE": "4000", "REASON": "bye", "…": "x",
}  # fmt: skip


def wrong_lines(path: Path, text: str) -> list[str]:
    """The lines of transcripts in code spans that the parser does not take, on any page."""
    found = []
    for part in parts(path, text):
        for span in part.spans if part.kind != "fence" else ():
            if not re.match(r"(?:\w+ )?(?:> (?:[a-z]|[A-Z]+ /)|< [a-z\d])", span):
                continue
            line = re.sub(r"^\w+ (?=[<>])", "", span)
            line = SHORT.get(line, line)
            for word, example in EXAMPLES.items():
                line = line.replace(word, example)
            said = problem(line)
            # Half a line may stand in a sentence, as `< deny`.
            if said and (said.startswith("after") or len(line.split()) > 2):
                found.append(f"{part.place}: `{span}`: {said}")
    return found


@pytest.mark.parametrize("page", TOLD, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_a_line_on_any_page(page: Path) -> None:
    assert wrong_lines(page, page.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("planted", ["> stall", "ann > stall 2s", "< denied 403", "> wait forever"])
def test_planted_line_on_any_page(planted: str) -> None:
    text = f"# Page\n\nWrite `{planted}`, and it waits.\n"
    (found,) = wrong_lines(ROOT / "docs" / "x.md", text)
    assert found.startswith(f"docs/x.md:3: `{planted}`: ")


@pytest.mark.parametrize(
    "planted", ["> txt Hello", "< accept chat v2", "> bytes 0", "< close 99", "< deny 101", "> bdy x"]
)
def test_planted_fault(planted: str) -> None:
    found = lines(f"| line | meaning |\n| --- | --- |\n| `{planted}` | Nothing. |\n")
    assert [problem(line) is not None for line in found] == [True]


@pytest.mark.parametrize(
    ("name", "old", "new"), [("room", "> json", "> jsn"), ("story", "bob > text", "carl > text")]
)
@pytest.mark.page("docs/project/transcripts.md", "docs_src/project/transcripts/room.ws:")
def test_the_errors_that_the_page_shows(name: str, old: str, new: str) -> None:
    page = PAGE.read_text(encoding="utf-8")
    file = ROOT / "docs_src" / "project" / "transcripts" / f"{name}.ws"
    text = file.read_text(encoding="utf-8")
    assert old in text
    with pytest.raises(TranscriptError) as caught:
        parse(text.replace(old, new, 1), file.relative_to(ROOT).as_posix())
    assert f"\n{caught.value}\n" in page

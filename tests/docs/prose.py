"""The English of the pages: what Harper finds, and phrases that no page should have.

`python -m tests.docs.prose` checks all pages; the lint session runs it. `prose.toml` lists the exceptions,
each with its reason, and the phrases. Harper runs offline, and reads no configuration of the user's.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import tomlkit

from tests.docs.pages import PAGES, ROOT, name_of

CONFIGURATION = Path(__file__).with_name("prose.toml")
OTHERS = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "packages/*/README.md")
# Parts of a page that are no prose, or that a program writes.
GENERATED = re.compile(
    r"<!-- (?:figures|servers) (?P<name>[\w-]+) -->.*?<!-- end of (?P=name) -->"
    r"|^(?P<indent> *)(?P<mark>`{3,}|~{3,}).*?^(?P=indent)(?P=mark)`*\s*?$"
    r"|^\s*\\?\{!>.*?!\}$"
    r"|<!--.*?-->"
    r"|<figure.*?</figure>"
    r"|\{ \.[^}\n]*\}"
    r"|^::: \S+$"
    r"|\b(?:CVE|GHSA|PYSEC)(?:-\w+)+\b",
    re.DOTALL | re.MULTILINE,
)

# Rules about single words, which take a name for an ordinary word.
NAMING = ("SpellCheck", "SplitWords", "OrthographicConsistency")


@dataclass(frozen=True)
class Found:
    """A finding in a page."""

    page: str
    line: int
    rule: str
    text: str
    message: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}: {self.text!r}: {self.message} ({self.rule})"


@cache
def configuration() -> dict[str, Any]:
    """The exceptions and the phrases."""
    return tomlkit.parse(CONFIGURATION.read_text(encoding="utf-8")).unwrap()


def pages() -> dict[str, str]:
    """All pages by name."""
    files = [*PAGES, *(file for pattern in OTHERS for file in sorted(ROOT.glob(pattern)))]
    return {name_of(file): file.read_text(encoding="utf-8") for file in files}


def prose(text: str) -> str:
    """The prose of a page, in the same lines."""
    return GENERATED.sub(lambda found: "\n" * found[0].count("\n"), text)


def harper(texts: Mapping[str, str]) -> Iterator[Found]:
    """What Harper finds, apart from the rules that are off."""
    if not texts:
        return
    names = list(texts)
    with tempfile.TemporaryDirectory() as folder:
        # Harper tells only the last part of a file's name.
        files = [Path(folder, f"{number}.md") for number in range(len(names))]
        for file, name in zip(files, names, strict=True):
            file.write_text(prose(texts[name]), encoding="utf-8")
        command = [sys.executable, "-m", "harper", "--no-color", "lint", "--quiet", "--format", "json"]
        command += ["--dialect", "gb", "--ignore", ",".join(configuration()["off"])]
        command += ["--user-dict-path", f"{folder}/words.txt", "--file-dict-path", folder]
        done = subprocess.run(
            [*command, *map(str, files)], capture_output=True, text=True, timeout=300, check=False
        )
    if not done.stdout.startswith("["):
        raise RuntimeError(f"Harper wrote no JSON: {done.stderr or done.stdout}")
    for file in json.loads(done.stdout):
        for lint in file["lints"]:
            page = names[int(file["file"].removesuffix(".md"))]
            yield Found(page, lint["line"], lint["rule"], lint["matched_text"], lint["message"])


def phrases(texts: Mapping[str, str]) -> Iterator[Found]:
    """Phrases that no page should have, in prose and in tables, however they are broken into lines."""
    for phrase in configuration()["phrases"]:
        pattern = re.compile(phrase["pattern"].replace(" ", r"\s+"), re.IGNORECASE)
        for page, text in texts.items():
            shown = prose(text)
            for found in pattern.finditer(shown):
                line = shown.count("\n", 0, found.start()) + 1
                yield Found(page, line, "phrases", " ".join(found[0].split()), f"write {phrase['write']!r}")


def named(word: str, words: set[str]) -> bool:
    """Whether a word is in the list, the end of a genitive, or a name in the manner of classes."""
    return word in words or word == "s" or re.fullmatch(r"(?:[A-Z]+[a-z]+){2,}", word) is not None


def problems(texts: Mapping[str, str]) -> list[str]:
    """All findings without the exceptions, and the exceptions that nothing needs."""
    words = set(configuration()["words"].split())
    used: set[int] = set()
    kept = []
    for found in [*harper(texts), *phrases(texts)]:
        if found.rule in NAMING and all(named(word, words) for word in re.findall(r"[^\W_]+", found.text)):
            continue
        line = texts[found.page].split("\n")[found.line - 1]
        fits = [
            number
            for number, each in enumerate(configuration()["exceptions"])
            if each["rule"] == found.rule and each["text"] in line and found.text.strip() in each["text"]
        ]
        used.update(fits)
        if not fits:
            kept.append(found)
    result = [str(found) for found in sorted(kept, key=lambda found: (found.page, found.line))]
    if texts.keys() >= pages().keys():
        result += [
            f"{name_of(CONFIGURATION)}:1: nothing needs the exception {each['text']!r}"
            for number, each in enumerate(configuration()["exceptions"])
            if number not in used
        ]
    return result


if __name__ == "__main__":
    sys.exit("\n".join(problems(pages())) or 0)

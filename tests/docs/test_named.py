"""What pages and READMEs name beside Python: files, the subprotocol, JavaScript, extras, fields, a prefix."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lilya.websockets.channels import Channels
from lilya.websockets.channels._serve_messages import SUBPROTOCOL
from tests.docs.pages import DOCS, PAGES, ROOT, at, name_of, table_of

CLIENT = ROOT / "packages" / "lilya-websockets-js"
SOURCES = ROOT / "packages" / "lilya-websockets" / "src"
READ = sorted({*PAGES, *ROOT.glob("*.md"), *ROOT.glob("packages/*/README.md")})
# A path of this repository, of its core package, or beside the page.
PATH = re.compile(r"`((?:[\w.-]+/)+[\w.-]+\.(?:py|js|ts|md|toml|json|html|yml))`")
# What readers have, what Lilya has, and what is made.
THEIRS = re.compile(
    r"docs/chat\.md|docs_src/chat/|PAGE\.md|PAGE/|lilya/websockets\.py|lilya-websockets/min\.js"
)
TYPES = (CLIENT / "lilya-websockets.d.ts").read_text(encoding="utf-8")

Read = Callable[[Path], str]


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def lost_files(read: Read = read) -> Iterator[str]:
    """The files that a page names and that are not there."""
    for page in READ:
        text = read(page)
        for found in PATH.finditer(text):
            places = [root / found[1] for root in (ROOT, SOURCES, DOCS, page.parent, ROOT / "packages")]
            if not THEIRS.search(found[1]) and not any(place.exists() for place in places):
                yield f"{at(page, found[0], text)}: there is no file {found[1]}"


def other_subprotocols(read: Read = read) -> Iterator[str]:
    """The versions of the subprotocol that `serve` does not speak."""
    for page in READ:
        text = read(page)
        # The name of a version to come is said to be one.
        for found in re.finditer(r"(?<!gets the name `)\blilya\.channels\.v\w+", text):
            if found[0] != SUBPROTOCOL:
                yield f"{at(page, found[0], text)}: {found[0]} is not {SUBPROTOCOL}"


def unknown_options(read: Read = read) -> Iterator[str]:
    """The options that JavaScript gives to `connect` and `join`, and that the client does not have."""
    for page in READ:
        text = read(page)
        for function, interface in (("connect", "Options"), ("join", "JoinOptions")):
            body = TYPES[TYPES.index(f"export interface {interface} ") :].split("\n}", 1)[0]
            known = set(re.findall(r"^  (\w+)\??:", body, re.MULTILINE))
            for found in re.finditer(rf"\b{function}\([^(){{}}]+, \{{([^{{}}]*)\}}\)", text):
                for name in re.findall(r"(?:^|,)\s*(\w+)\s*(?::|,|$)", found[1]):
                    if name not in known:
                        place = at(page, found[0], text)
                        yield f"{place}: {function} has no option {name}; it has {sorted(known)}"


def wrong_extras(read: Read = read) -> Iterator[str]:
    """The extras that a page of the reference names and that its module does not ask for."""
    for page in sorted((DOCS / "reference").glob("*.md")):
        text = read(page)
        found = re.search(r"Needs the extra `(\w+)`", text)
        if found:
            module = importlib.import_module(f"lilya.websockets.{page.stem}")
            folder = Path(inspect.getfile(module))
            files = folder.parent.rglob("*.py") if folder.name == "__init__.py" else [folder]
            asked = {name for file in files for name in re.findall(r"lilya-websockets\[(\w+)\]", read(file))}
            if found[1] not in asked:
                yield f"{at(page, found[0], text)}: the module asks for {sorted(asked)}"


def wrong_fields(read: Read = read) -> Iterator[str]:
    """The fields of a `join` that the table leaves out or has too many."""
    page = DOCS / "guides" / "browser-wire.md"
    source = read(SOURCES / "lilya" / "websockets" / "channels" / "_serve_messages.py")
    start = source.index('since, history = message.get("since")')
    taken = set(re.findall(r'message\.get\("(\w+)"', "\n".join(source[start:].split("\n")[:2])))
    for row in table_of(page, "`type`", "fields", "answer", text=read(page)):
        if row.cells[0] == "`join`":
            shown = set(re.findall(r"`(\w+)`", row.cells[1].partition("optional")[2]))
            if shown != taken:
                yield f"{row.place}: the optional fields of join are {sorted(taken)}"


def wrong_prefix(read: Read = read) -> Iterator[str]:
    """The default prefix of keys, where the page on permissions says it."""
    page = DOCS / "guides" / "redis-rights.md"
    text, default = read(page), inspect.signature(Channels).parameters["prefix"].default
    found = re.search(r"default prefix, `(\w+)`", text)
    if not found or found[1] != default:
        yield f"{at(page, 'default prefix', text)}: the default prefix is {default}"
    for form in (f"~{{{default}:*", f"&{{{default}:*"):
        if form not in text:
            yield f"{at(page, 'ACL SETUSER', text)}: {form} is missing"


CHECKS = {
    lost_files: [
        ("packages/lilya-websockets-js/README.md", "channels/client.js", "client.js"),
        ("SECURITY.md", "docs/concepts/security.md", "docs/security.md"),
        ("CONTRIBUTING.md", "tests/docs/places.py", "tests/docs/lines.py"),
    ],
    other_subprotocols: [
        ("packages/lilya-websockets-js/README.md", "lilya.channels.v1", "lilya.channels.v2")
    ],
    unknown_options: [
        ("packages/lilya-websockets-js/README.md", "history: 50", "recent: 50"),
    ],
    wrong_extras: [("docs/reference/redis.md", "Needs the extra `redis`", "Needs the extra `limits`")],
    wrong_fields: [
        ("docs/guides/browser-wire.md", "`history`, `latest`, `presence`", "`history`, `presence`")
    ],
    wrong_prefix: [
        ("docs/guides/redis-rights.md", "default prefix, `lilya`", "default prefix, `channels`"),
        ("docs/guides/redis-rights.md", "&{lilya:*", "&{lilya.*"),
    ],
}
PLANTED = [(check, *plant) for check, plants in CHECKS.items() for plant in plants]


@pytest.mark.page("packages/lilya-websockets-js/README.md", "# lilya-websockets for browsers")
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_what_is_named_is_there(check: Callable[[], Iterator[str]]) -> None:
    assert list(check()) == []


@pytest.mark.parametrize(
    ("check", "page", "old", "new"), PLANTED, ids=lambda value: getattr(value, "__name__", str(value)[:30])
)
@pytest.mark.page("packages/lilya-websockets-js/README.md", "# lilya-websockets for browsers")
def test_planted_name(check: Callable[[Read], Iterator[str]], page: str, old: str, new: str) -> None:
    def planted(path: Path) -> str:
        text = read(path)
        if name_of(path) != page:
            return text
        assert old in text
        return text.replace(old, new)

    found = list(check(planted))
    assert found
    assert all(each.startswith(f"{page}:") for each in found)

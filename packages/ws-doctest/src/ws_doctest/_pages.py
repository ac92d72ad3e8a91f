"""The Markdown scanner: what a page shows, and where.

One scanner for everything (the Markdown extension, the gate, the check of the built site), so that
they cannot disagree. It reads lines, not Markdown: it finds fences of every form that some
Markdown renders as one, include directives, comments that skip a fence, and bullets that show a
signature. What looks like one of these and is none is a `Problem` of the page, never silently
text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

# The names under which Pygments highlights Python, and what people write instead.
PYTHON = {"bazel", "ipython", "py", "py3", "pyi", "python", "python3", "sage", "starlark"}
PYTHON_CONSOLE = {"pycon", "python-console"}
CONSOLES = {"console", "shell-session"}
RUN = {"ws", "nginx", *CONSOLES}  # what is run beside Python

# The endings of pages that are read, and of those that nobody must take for read.
SUFFIXES = (".md", ".markdown", ".mdx")
UNREAD = (".rst", ".adoc", ".ipynb", ".qmd")

# Blanks, block quotes and a list marker may stand before a fence.
_PREFIX = r"(?P<prefix>[ \t>]*(?:(?:[-*+]|\d{1,9}[.)])[ \t]+)?[ \t>]*)"
_FENCE = re.compile(_PREFIX + r"(?P<mark>`{3,}|~{3,})(?P<info>.*)$")
_INCLUDE = re.compile(r"(?P<prefix>[ \t>]*)\{!>[ \t]*(?P<target>[^\s!][^!]*?)[ \t]*!\}[ \t]*$")
# What other projects include with: FastAPI's form, and that of pymdownx.snippets.
_FOREIGN_INCLUDE = re.compile(
    r"(?P<prefix>[ \t>]*)(?:\{\*[ \t]*(?P<file>[^\s*]+)[^*]*\*\}"
    r"|-+8<-+[ \t]+[\"'](?P<snippet>[^\"':]+)[^\"']*[\"'])[ \t]*$"
)
# MyST's directives: ```{code-cell} python, and the file of ```{literalinclude} FILE.
_MYST = re.compile(
    r"\{(?P<directive>code|code-cell|code-block|sourcecode|literalinclude)\}[ \t]*(?P<argument>\S*)"
)
_MYST_OPTION = re.compile(r"[ \t]*:[\w-]+:|[ \t]*$")
_TITLE = re.compile(r"\btitle=([\"'])(.*?)\1")
_PRE = re.compile(r"<pre\b", re.IGNORECASE)
_ESCAPED = re.compile(r"\\(?=\{!)")
_CODE_SPAN = re.compile(r"(?<!`)(`+)(?!`).*?(?<!`)\1(?!`)")
_CODE_IN_TEXT = re.compile(r"(?<!`)(`+)(?!`)(.*?)(?<!`)\1(?!`)")
_SKIP = re.compile(r"[ \t>]*<!--\s*ws-doctest:\s*skip\b(?P<reason>.*?)-->\s*$")
_UNREACHED = re.compile(r"[ \t>]*<!--\s*ws-doctest:\s*unreached\s+(?P<lines>\d+)\s*:?(?P<reason>.*?)-->\s*$")
_NO_BUTTON = re.compile(r"[ \t>]*<!--\s*ws-doctest:\s*no\s+button\b(?P<reason>.*?)-->\s*$")
_COMMENT_FOR_US = re.compile(r"<!--\s*ws[-_ ]?doctest\b", re.IGNORECASE)
_HEADING = re.compile(r" {0,3}#{1,6}[ \t]+(?P<title>.*?)(?:[ \t]+#+)?(?:[ \t]*\{[^}]*\})?[ \t]*$")
_BULLET = re.compile(r"[ \t>]*(?:[-*+]|\d{1,9}[.)])[ \t]+(`+)[ \t]?(?P<code>.+?)[ \t]?\1(?!`)")
# A call of a method of something that has a name. Its arguments are parsed elsewhere.
_CALL = re.compile(
    r"(?P<awaited>await\s+)?(?:(?P<receiver>[A-Za-z_]\w*)\.)?(?P<method>\w+)\((?P<parameters>.*)\)"
)


class PageError(Exception):
    """Something on a page is wrong; the message names page and line."""


@dataclass(frozen=True)
class Problem:
    """Something that is wrong in a line of a page."""

    line: int
    message: str
    include: bool = False  # about an include directive, so that not even the site can be built

    def at(self, page: str) -> str:
        """Return the message with its place."""
        return f"{page}:{self.line}: {self.message}"


@dataclass
class Include:
    """An include directive."""

    line: int
    prefix: str
    target: str
    path: Path  # resolved; exists, and lies within the root, or there is a problem
    fence: Fence | None = None
    foreign: bool = False  # written in the form of another tool, which expands it


@dataclass
class Fence:
    """A fenced code block."""

    line: int
    prefix: str
    mark: str
    info: str
    heading: str
    skip: str | None = None
    unreached: tuple[int, str] = (0, "")  # how many lines nothing runs, and why
    no_button: str | None = None  # why it does not run in a browser
    end: int = 0  # the line of the closing fence
    lines: list[str] = field(default_factory=list)  # without the prefix
    includes: list[Include] = field(default_factory=list)

    @property
    def language(self) -> str:
        """The language named after the opening fence, in any of the forms, in lower case."""
        info = self.info.strip()
        myst = _MYST.match(info)
        if myst and myst["directive"] == "literalinclude":
            return {".py": "python", ".ws": "ws"}.get(Path(myst["argument"]).suffix, "")
        if myst:
            return myst["argument"].lower() or ("python" if myst["directive"] == "code-cell" else "")
        if info.startswith("{"):
            classes = re.findall(r"(?:^|\s)\.?([\w#.+-]+)(?=\s|$)", info.strip("{} "))
            return classes[0].lower() if classes else ""
        found = re.match(r"\.?([\w#.+-]+)", info)
        return found.group(1).lower() if found else ""

    @property
    def title(self) -> str:
        """The title that a reader sees above it, as `title="app.py"`; empty if there is none."""
        found = _TITLE.search(self.info)
        return found[2] if found else ""

    @property
    def source(self) -> str:
        """What the page itself says between the fences, lines of options left empty."""
        lines = list(self.lines)
        if _MYST.match(self.info):
            for number, line in enumerate(lines):
                if not _MYST_OPTION.match(line):
                    break
                lines[number] = ""
        return "".join(line + "\n" for line in lines)

    def expanded(self) -> str:
        """Return what a reader sees between the fences: includes expanded, escapes removed."""
        included = {include.line: include.path for include in self.includes}
        text = ""
        for number, line in enumerate(self.lines, self.line + 1):
            text += read_included(included[number]) if number in included else unescape(line) + "\n"
        return text


@dataclass(frozen=True)
class Bullet:
    """A list item that shows how a method is called."""

    line: int
    code: str
    awaited: bool
    receiver: str
    method: str
    parameters: str
    skip: str | None


@dataclass
class Page:
    """Everything that the scanner found on a page."""

    name: str
    fences: list[Fence] = field(default_factory=list)
    includes: list[Include] = field(default_factory=list)
    bullets: list[Bullet] = field(default_factory=list)
    spans: list[tuple[int, str]] = field(default_factory=list)  # code in the text, with its line
    problems: list[Problem] = field(default_factory=list)


def read_page(path: Path, root: Path) -> Page:
    """Scan a page's file."""
    text = path.read_text(encoding="utf-8")
    name = path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)
    # Front matter is not Markdown, but its lines count.
    lines = text.split("\n")
    if lines[0].rstrip() == "---":
        for number, line in enumerate(lines[1:], 1):
            if line.rstrip() in ("---", "..."):
                lines[: number + 1] = [""] * (number + 1)
                break
    return scan(lines, name=name, folder=path.parent, root=root)


def scan(lines: Sequence[str], *, name: str, folder: Path, root: Path) -> Page:
    """Find what a page shows.

    Args:
        lines: the page's lines.
        name: the page's name, for messages.
        folder: the folder that include directives are relative to.
        root: the folder that no include may leave.
    """
    return _Scanner(name, folder, root).scan(lines)


def read_included(path: Path) -> str:
    """Return an included file's text as it is shown: with one line break at its end."""
    text = path.read_text(encoding="utf-8").replace("\x02", "").replace("\x03", "")
    return text.rstrip("\n") + "\n" if text.strip() else ""


def unescape(line: str) -> str:
    r"""Remove the backslash of a directive that is only talked about, ``\{!> … !}``."""
    return _ESCAPED.sub("", line)


class _Scanner:
    def __init__(self, name: str, folder: Path, root: Path) -> None:
        self.page = Page(name)
        self.folder = folder
        self.root = root.resolve()
        self.fence: Fence | None = None
        self.heading = ""
        self.comment: int | None = None  # the line in which an HTML comment began
        self.skip: tuple[int, str] | None = None
        self.unreached: tuple[int, int, str] | None = None  # the line of the comment, and what it says
        self.no_button: tuple[int, str] | None = None

    def scan(self, lines: Sequence[str]) -> Page:
        for number, raw in enumerate(lines, 1):
            line = raw.rstrip("\r\n")
            if self.fence is not None:
                self.inside(number, line, self.fence)
            else:
                self.outside(number, line)
        if self.fence is not None:
            self.problem(self.fence.line, f"the fence {self.fence.mark}{self.fence.info} is never closed")
        if self.comment is not None:  # to Markdown it is none then, and what follows is shown
            self.problem(self.comment, "the comment <!-- is never closed")
        self.unused_skip()
        self.unused_no_button()
        return self.page

    def problem(self, line: int, message: str, include: bool = False) -> None:
        self.page.problems.append(Problem(line, message, include))

    def inside(self, number: int, line: str, fence: Fence) -> None:
        closing = _FENCE.match(line)
        if (
            closing
            and closing["mark"][0] == fence.mark[0]
            and len(closing["mark"]) >= len(fence.mark)
            and not closing["info"].strip()
            and closing["prefix"].strip(" \t>") == ""
        ):
            fence.end = number
            self.fence = None
            self.check_fence(fence)
            return
        width = len(fence.prefix)
        # An outdented line ends the block for some Markdown; the check of the built site finds that.
        fence.lines.append(line.lstrip() if line[:width].strip(" \t>") else line[width:])
        self.directive(number, line, fence)

    def outside(self, number: int, line: str) -> None:
        if self.comment is not None:
            if "-->" in line:
                self.comment = None
            return
        fence = _FENCE.match(line)
        if fence and not (fence["mark"][0] == "`" and "`" in fence["info"]):
            prefix = re.sub(r"[-*+.)\d]", " ", fence["prefix"])
            self.fence = Fence(
                number,
                prefix,
                fence["mark"],
                fence["info"].strip(),
                self.heading,
                self.take_skip(),
                self.take_unreached(),
                self.take_no_button(),
            )
            self.page.fences.append(self.fence)
            myst = _MYST.match(self.fence.info)
            if myst and myst["directive"] == "literalinclude":
                self.include(number, prefix, myst["argument"], self.fence, foreign=True)
            return
        foreign = _FOREIGN_INCLUDE.match(line)
        if foreign:
            target = foreign["file"] or foreign["snippet"]
            suffix = {".py": "python", ".ws": "ws"}.get(Path(target).suffix, "")
            shown = Fence(number, foreign["prefix"], "```", suffix, self.heading, self.take_skip())
            shown.unreached, shown.end = self.take_unreached(), number
            shown.no_button = self.take_no_button()
            self.page.fences.append(shown)
            self.include(number, foreign["prefix"], target, shown, foreign=True)
            return
        unreached = _UNREACHED.match(line)
        if unreached:
            reason = unreached["reason"].strip(" \t:-")
            if not reason or not int(unreached["lines"]):
                self.problem(
                    number, "expected the lines and the reason: `<!-- ws-doctest: unreached 2: REASON -->`"
                )
            self.unused_skip()
            self.unreached = (number, int(unreached["lines"]), reason)
            return
        no_button = _NO_BUTTON.match(line)
        if no_button:
            reason = no_button["reason"].strip(" \t:-.")
            if not reason:
                self.problem(number, "expected the reason: `<!-- ws-doctest: no button: REASON -->`")
            self.unused_no_button()
            self.no_button = (number, reason)
            return
        skip = _SKIP.match(line)
        if skip:
            self.unused_skip()
            reason = skip["reason"].strip(" \t:-")
            if not reason:
                self.problem(number, "a skip says why: `<!-- ws-doctest: skip REASON -->`")
            self.skip = (number, reason)
            return
        self.page.spans += [(number, found[2].strip()) for found in _CODE_IN_TEXT.finditer(line)]
        bare = _CODE_SPAN.sub("", line)
        if _COMMENT_FOR_US.search(bare):
            self.problem(
                number,
                f"expected `<!-- ws-doctest: skip REASON -->` on a line of its own; came {line.strip()!r}",
            )
        if "<!--" in bare and "-->" not in bare.rpartition("<!--")[2]:
            self.comment = number
        if _PRE.search(bare):
            self.problem(number, "code in HTML is not run: put it into a fence")
        heading = _HEADING.match(line)
        if heading:
            self.heading = re.sub(r"[`*]", "", heading["title"])
        bullet = _BULLET.match(line)
        call = _CALL.fullmatch(bullet["code"]) if bullet else None
        if call:
            self.page.bullets.append(
                Bullet(
                    number,
                    call[0],
                    bool(call["awaited"]),
                    call["receiver"] or "",
                    call["method"],
                    call["parameters"].strip(),
                    self.take_skip(),
                )
            )
        if line.strip():
            self.unused_skip()
            self.unused_no_button()
        self.directive(number, line, None)

    def take_skip(self) -> str | None:
        skip, self.skip = self.skip, None
        return skip[1] if skip else None

    def take_unreached(self) -> tuple[int, str]:
        unreached, self.unreached = self.unreached, None
        return unreached[1:] if unreached else (0, "")

    def take_no_button(self) -> str | None:
        no_button, self.no_button = self.no_button, None
        return no_button[1] if no_button else None

    def unused_no_button(self) -> None:
        if self.no_button is not None:
            self.problem(self.no_button[0], "directly below comes no app that could have a button")
            self.no_button = None

    def unused_skip(self) -> None:
        if self.unreached is not None:
            self.problem(self.unreached[0], "directly below comes no fence of which lines are not reached")
            self.unreached = None
        if self.skip is not None:
            self.problem(
                self.skip[0], "nothing to skip: directly below comes neither a fence nor a signature"
            )
            self.skip = None

    def directive(self, number: int, line: str, fence: Fence | None) -> None:
        found = _INCLUDE.match(line)
        foreign = _FOREIGN_INCLUDE.match(line) if fence is not None else None
        if foreign:
            self.include(
                number, foreign["prefix"], foreign["file"] or foreign["snippet"], fence, foreign=True
            )
            return
        if not found:
            if _looks_like_directive(line, in_fence=fence is not None):
                self.problem(
                    number,
                    f"expected an include directive `{{!> FILE !}}` on a line of its own; "
                    f"came {line.strip()!r} (a backslash before `{{!` shows it as text)",
                    include=True,
                )
            return
        self.include(number, found["prefix"], found["target"], fence)

    def include(
        self, number: int, prefix: str, target: str, fence: Fence | None, foreign: bool = False
    ) -> None:
        path = (self.folder / target).resolve()
        if foreign:  # those are relative to where the other tool runs
            folders = [self.folder, *self.folder.parents]
            found = ((folder / target).resolve() for folder in folders if folder.is_relative_to(self.root))
            path = next((file for file in found if file.is_file()), path)
        include = Include(number, prefix, target, path, fence, foreign)
        if not path.is_relative_to(self.root):
            self.problem(number, f"the included file {target} lies outside the repository", include=True)
        elif not path.is_file():
            relative = path.relative_to(self.root).as_posix()
            self.problem(
                number, f"the included file {target} does not exist (looked for {relative})", include=True
            )
        else:
            self.page.includes.append(include)
            if fence is not None:
                fence.includes.append(include)
            self.check_included(include)

    def check_included(self, include: Include) -> None:
        try:
            lines = read_included(include.path).split("\n")
        except UnicodeDecodeError as exc:
            self.problem(
                include.line, f"the included file {include.target} is not UTF-8: {exc}", include=True
            )
            return
        fences = [match for line in lines if (match := _FENCE.match(line))]
        if include.fence is None and fences:
            self.problem(
                include.line,
                f"the included file {include.target} has fences, which nobody would check",
                include=True,
            )
        elif include.fence is not None and any(
            match["mark"].startswith(include.fence.mark) and not match["info"].strip() for match in fences
        ):
            self.problem(
                include.line,
                f"the included file {include.target} would close the fence: use a longer one than "
                f"{include.fence.mark}",
                include=True,
            )

    def check_fence(self, fence: Fence) -> None:
        is_python = fence.language in PYTHON | PYTHON_CONSOLE
        if fence.skip is not None and not (is_python or fence.language in RUN):
            self.problem(
                fence.line, "nothing to skip: this fence is neither Python, a transcript, a console nor nginx"
            )
        if (is_python or fence.language == "ws") and fence.includes:
            rest = [line for line in fence.lines if line.strip()]
            if len(rest) > 1:
                self.problem(
                    fence.line,
                    "a fence holds one include directive and nothing else, or none",
                )


def _looks_like_directive(line: str, *, in_fence: bool) -> bool:
    """Tell whether somebody meant an include directive and wrote something else."""
    bare = line.strip()
    if in_fence:
        # Code may contain `{!`, as in "{!r}"; a line of code neither starts nor ends like a
        # directive.
        return (
            bool(re.match(r"[{(\[]+\s*!|\{\s*>|<!>", bare) or re.search(r"!\s*\}$", bare))
            and "\\{!" not in bare
        )
    bare = _CODE_SPAN.sub("", bare)
    return bool(re.search(r"(?<!\\)\{\s*!|^\{\s*>|^[(\[]!>|!\s*\}$", bare)) and not (
        "\\{!" in bare and bare.count("{!") == bare.count("\\{!")
    )

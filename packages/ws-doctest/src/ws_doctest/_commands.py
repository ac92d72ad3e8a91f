"""Commands and data that a page shows: what can be parsed is parsed, by the program that would read it.

Commands are found in fences of a shell and in code spans. Known are the programs of this trade: uvicorn,
pytest, nox, pip, mkdocs, and `python -m` of a module; of any other program nothing is said. Fences of JSON,
TOML, YAML, JavaScript and nginx are parsed.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import importlib
import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Collection, Iterator
from contextlib import suppress
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import tomlkit
import tomlkit.exceptions

from ws_doctest import _nginx
from ws_doctest._pages import CONSOLES, Fence, Page

SHELLS = {"bash", "sh", "shell", "zsh"}
SCRIPTS = {"js", "javascript"}
DATA = {"json", "toml", "yaml", "yml", *SCRIPTS, "nginx"}

# Of `mkdocs build` and `mkdocs serve`, where it is not installed.
MKDOCS = (
    "--config-file",
    "--dev-addr",
    "--site-dir",
    "--strict",
    "--theme",
    "--quiet",
    "--verbose",
    "--clean",
)

_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=")
_PROGRAMS = re.compile(r"(?:python3?|py) |(?:uvicorn|pytest|nox|uvx|pip|uv|mkdocs) ")
_REQUIREMENT = re.compile(r"(?P<name>[^\[\]]+?)(?:\[(?P<extras>[^\]]*)\])?(?:[<>=!~ ].*)?$")


def commands_of(page: Page) -> Iterator[tuple[int, str]]:
    """Yield the commands that a page shows, and their lines."""
    for fence in page.fences:
        # A console that is not run is read all the same.
        if fence.language in SHELLS | CONSOLES and not fence.includes:
            yield from _commands_in(fence)
    for number, code in page.spans:
        if _PROGRAMS.match(code):
            yield number, code


def _commands_in(fence: Fence) -> Iterator[tuple[int, str]]:
    pending, start = "", 0
    for number, line in enumerate(fence.lines, fence.line + 1):
        text = line.strip()
        if fence.language in CONSOLES and not pending:
            if not text.startswith("$ "):
                continue
            text = text[2:]
        if not text or text.startswith("#"):
            continue
        start = start if pending else number
        pending = f"{pending} {text.removesuffix(chr(92))}".strip()
        if not text.endswith("\\"):
            yield start, pending
            pending = ""


class Commands:
    """What the commands of a project may be.

    Args:
        root: the project's root.
        examples: the names of the folders of examples.
        pytest_parser: the parser of the pytest that runs.
    """

    def __init__(self, root: Path, examples: list[str], pytest_parser: Any) -> None:
        self.root = root
        self.examples = examples
        self.pytest_parser = pytest_parser

    def problem(self, command: str) -> str | None:
        """Return why a command cannot be run, or ``None``."""
        try:
            words = shlex.split(command, comments=True)
        except ValueError as exc:
            return f"`{command}`: no shell can read this ({exc})"
        while words and _ASSIGNMENT.match(words[0]):
            words.pop(0)
        for stop in ("|", "&&", ";", "&", ">"):
            if stop in words:
                words = words[: words.index(stop)]
        if not words or "…" in command or "..." in words:
            return None
        found = self._of(words)
        return f"`{command}`: {found}" if found else None

    def _of(self, words: list[str]) -> str | None:
        program, *arguments = words
        if program in ("uvx", "uv") and arguments[:1] and arguments[0] in ("nox", "pip"):
            program, *arguments = arguments
        if re.fullmatch(r"python3?|py", program):
            if arguments[:1] == ["noxfile.py"]:
                return self._nox(arguments[1:])
            if arguments[:1] == ["-m"] and len(arguments) > 1:
                return self._module(arguments[1], arguments[2:])
            if arguments and arguments[0].endswith(".py") and "/" in arguments[0]:
                return None if (self.root / arguments[0]).is_file() else f"there is no {arguments[0]}"
            return None
        known = {
            "uvicorn": self._uvicorn,
            "pytest": self._pytest,
            "nox": self._nox,
            "pip": self._pip,
            "mkdocs": self._mkdocs,
        }
        return known[program](arguments) if program in known else None

    @cached_property
    def options(self) -> dict[str, str]:
        """The options of the programs that are known, and of the project's own scripts."""
        known = {name: "pytest" for action in _actions(self.pytest_parser) for name in action.option_strings}
        known |= dict.fromkeys(MKDOCS, "mkdocs")
        known |= dict.fromkeys(self._own_options(), "")
        with suppress(ImportError):
            for parameter in importlib.import_module("uvicorn.main").main.params:
                known |= dict.fromkeys([*parameter.opts, *parameter.secondary_opts], "uvicorn")
        return known

    def _own_options(self) -> Iterator[str]:
        from ws_doctest.__main__ import make_parser

        for parser in _subparsers(make_parser()):
            for action in parser._actions:
                yield from action.option_strings
        for folder, folders, files in os.walk(self.root):
            folders[:] = [
                name
                for name in folders
                if name[0] != "."
                and name not in ("tests", "site", "node_modules", "__pycache__")
                and not (Path(folder) / name / "pyvenv.cfg").exists()
            ]
            for file in files:
                if file.endswith(".py"):
                    text = (Path(folder) / file).read_text(encoding="utf-8", errors="replace")
                    yield from re.findall(r"[\"'](--[a-z][\w-]*)", text)

    def option_problem(self, code: str) -> str | None:
        """Return what is wrong with a code span that shows an option alone, or ``None``."""
        try:
            words = shlex.split(code)
        except ValueError:
            return f"`{code}`: no shell can read this"
        name = words[0].partition("=")[0]
        if name not in self.options:
            near = difflib.get_close_matches(name, self.options, 1)
            hint = f"; it is close to {near[0]}" if near else ""
            return f"`{code}`: no program that is known has the option {name}{hint}"
        if self.options[name] == "uvicorn" and (len(words) > 1 or "=" in words[0]):
            problem = self._uvicorn([*words, "app:app"])
            return f"`{code}`: {problem}" if problem else None
        return None

    def _module(self, module: str, arguments: list[str]) -> str | None:
        if module in ("pip", "pytest", "nox", "mkdocs", "uvicorn"):
            return self._of([module, *arguments])
        try:
            spec = importlib.util.find_spec(module)
        except (ImportError, ValueError):
            spec = None
        if spec is None and not (self.root / Path(*module.split("."))).with_suffix(".py").is_file():
            return f"there is no module {module}" if self._is_ours(module) else None
        if module == "ws_doctest":
            from ws_doctest.__main__ import make_parser

            problem = _argparse(make_parser(), arguments)
            # The text may name a command without what it needs.
            return None if problem and len(arguments) == 1 and "are required" in problem else problem
        return None

    def _is_ours(self, module: str) -> bool:
        top = module.partition(".")[0]
        return (self.root / top).is_dir() or top in ("ws_doctest", "lilya")

    def _uvicorn(self, arguments: list[str]) -> str | None:
        command = importlib.import_module("uvicorn.main").main
        try:
            context = command.make_context("uvicorn", list(arguments) or ["app:app"])
        except Exception as exc:
            message = getattr(exc, "format_message", None)
            if message is None:
                raise
            if "Missing argument" in message():  # a span may show an option alone
                return self._uvicorn([*arguments, "app:app"]) if "app:app" not in arguments else message()
            return f"uvicorn does not take it: {message()}"
        for option in ("ws", "http"):
            value = context.params.get(option) or ""
            problem = _object(str(value)) if ":" in str(value) else None
            if problem:
                return problem
        return self._app(context.params["app"])

    def _app(self, target: str) -> str | None:
        """Say what is wrong with MODULE:ATTRIBUTE, where it is an example."""
        module, _, attribute = target.partition(":")
        if module.partition(".")[0] not in self.examples:
            return None  # the reader's own
        file = (self.root / Path(*module.split("."))).with_suffix(".py")
        if not file.is_file():
            return f"there is no {file.relative_to(self.root).as_posix()}"
        from ws_doctest import _apps

        if attribute == "app" and not _apps.has_app(file):
            return f"{file.relative_to(self.root).as_posix()} does not define `app`"
        return None

    def _pytest(self, arguments: list[str]) -> str | None:
        names = {name for action in _actions(self.pytest_parser) for name in action.option_strings}
        for word in arguments:
            name = word.partition("=")[0]
            if name.startswith("--") and name not in names:
                return f"pytest has no option {name}"
        takes = {
            name
            for action in _actions(self.pytest_parser)
            if action.nargs != 0
            for name in action.option_strings
        }
        for before, word in zip(["", *arguments], arguments, strict=False):
            path = word.partition("::")[0]
            # What follows an option may be its value.
            if before not in takes and not path.startswith("-") and not (self.root / path).exists():
                return f"there is no {path}"
            if "::" in word and path.endswith(".py"):
                test = word.split("::")[-1].partition("[")[0]
                if test not in (self.root / path).read_text(encoding="utf-8"):
                    return f"there is no {test} in {path}"
        return None

    def _nox(self, arguments: list[str]) -> str | None:
        file = self.root / "noxfile.py"
        if not file.is_file():
            return None
        sessions = _sessions(file.read_text(encoding="utf-8"))
        options = arguments[: arguments.index("--")] if "--" in arguments else arguments
        for index, word in enumerate(options):
            if word in ("-s", "--session", "--sessions", "-e"):
                for name in options[index + 1 :]:
                    if name.startswith("-"):
                        break
                    if re.split(r"[-(]", name)[0] not in sessions:
                        return f"noxfile.py has no session {name!r}; it has {', '.join(sorted(sessions))}"
            elif word.startswith("-") and word not in ("-l", "--list", "-p", "-k", "-t", "-r", "-R", "-x"):
                return f"nox has no option {word}"
        return None

    def _pip(self, arguments: list[str]) -> str | None:
        if arguments[:1] != ["install"]:
            return None
        words = arguments[1:]
        while words:
            word = words.pop(0)
            if word == "--group":
                group = words.pop(0) if words else ""
                groups = _toml(self.root / "pyproject.toml").get("dependency-groups", {})
                if group not in groups:
                    return f"there is no dependency group {group!r}"
            elif not word.startswith("-"):
                problem = self.requirement(word)
                if problem:
                    return problem
        return None

    def requirement(self, text: str) -> str | None:
        """Return what is wrong with a requirement of pip, or ``None``."""
        found = _REQUIREMENT.match(text)
        if not found:
            return f"{text!r} is no requirement"
        name, extras = found["name"].strip(), [extra.strip() for extra in (found["extras"] or "").split(",")]
        if name.startswith((".", "/")) or "/" in name:
            folder = (self.root / name).resolve()
            if not (folder / "pyproject.toml").is_file():
                return f"there is no package in {name}"
        else:
            found_folder = self._package(name)
            if found_folder is None:
                return None  # somebody else's
            folder = found_folder
        known = _toml(folder / "pyproject.toml").get("project", {}).get("optional-dependencies", {})
        for extra in filter(None, extras):
            if extra not in known:
                return f"{name} has no extra {extra!r}; it has {', '.join(sorted(known)) or 'none'}"
        return None

    def _package(self, name: str) -> Path | None:
        """Return the folder of a package of this repository."""
        for file in (self.root / "pyproject.toml", *sorted(self.root.glob("packages/*/pyproject.toml"))):
            if file.is_file() and _toml(file).get("project", {}).get("name") == name:
                return file.parent
        return None

    def _mkdocs(self, arguments: list[str]) -> str | None:
        try:
            cli: Any = importlib.import_module("mkdocs.__main__").cli
        except ImportError:
            return None
        command = cli.commands.get(arguments[0]) if arguments else None
        if command is None:
            return f"mkdocs has no command {arguments[:1]}"
        names = {
            name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)
        }
        return next(
            (
                f"mkdocs {arguments[0]} has no option {word}"
                for word in arguments[1:]
                if word.startswith("-") and word.partition("=")[0] not in names
            ),
            None,
        )


def requirement_spans(page: Page) -> Iterator[tuple[int, str]]:
    """Yield the code spans that name a package with extras."""
    for number, code in page.spans:
        if re.fullmatch(r"\"?[\w./-]+\[[\w, -]+\]\"?", code):
            yield number, code.strip('"')


def data_problem(fence: Fence) -> tuple[int, str] | None:
    """Return what is wrong with a fence of data, and in which line of the page; or ``None``."""
    text, above = fence.expanded(), fence.line
    if fence.language == "json":
        try:
            json.loads(text)
        except ValueError as exc:
            return above + getattr(exc, "lineno", 1), f"this is no JSON: {exc}"
    elif fence.language == "toml":
        try:
            tomlkit.parse(text)
        except tomlkit.exceptions.ParseError as exc:
            return above + exc.line, f"this is no TOML: {exc}"
    elif fence.language in ("yaml", "yml"):
        try:
            yaml: Any = importlib.import_module("yaml")
        except ImportError:  # nobody here reads YAML
            return None
        try:
            list(yaml.parse(text))
        except yaml.YAMLError as exc:
            mark = getattr(exc, "problem_mark", None)
            return above + (mark.line + 1 if mark else 1), f"this is no YAML: {getattr(exc, 'problem', exc)}"
    elif fence.language == "nginx":
        found_in_nginx = _nginx.problem(text)
        return (above + found_in_nginx[0], found_in_nginx[1]) if found_in_nginx else None
    elif fence.language in SCRIPTS:
        node = shutil.which("node")
        if node is None:
            return None
        done = subprocess.run(
            [node, "--check", "--input-type=module", "-"],
            input=text,
            capture_output=True,
            encoding="utf-8",
            timeout=60,
        )
        if done.returncode:
            found = re.search(r":(\d+)\n", done.stderr)
            error = next((line for line in done.stderr.splitlines() if "Error" in line), "it is not")
            return above + (int(found[1]) if found else 1), f"this is no JavaScript: {error}"
    return None


# Says of each text whether it is a module. In which line it is none, only `node --check` says.
_PARSE = """\
const { SourceTextModule } = require("node:vm");
const parses = (text) => { try { new SourceTextModule(text); return true; } catch { return false; } };
console.log(JSON.stringify(JSON.parse(require("node:fs").readFileSync(0, "utf8")).map(parses)));
"""


def scripts_that_parse(texts: Collection[str]) -> set[str]:
    """Return the modules of JavaScript that Node can read. It starts once: that takes most of the time."""
    node = shutil.which("node")
    if node is None:
        return set()
    try:
        done = subprocess.run(
            [node, "--no-warnings", "--experimental-vm-modules", "--eval", _PARSE],
            input=json.dumps(list(texts)),
            capture_output=True,
            encoding="utf-8",
            timeout=60,
        )
        parses = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):  # a Node without this: each is checked alone
        return set()
    return {text for text, good in zip(texts, parses, strict=True) if good is True}


def unknown_settings(fence: Fence, known: set[str]) -> Iterator[tuple[int, str]]:
    """Yield the settings of this gate in a fence of TOML that it does not have."""
    for number, line in enumerate(fence.lines, fence.line + 1):
        found = re.match(r"\s*(ws_doctest_\w+)\s*=", line)
        if found and found[1] not in known:
            yield number, f"there is no setting {found[1]}"


def _argparse(parser: argparse.ArgumentParser, arguments: list[str]) -> str | None:
    parser.exit_on_error = False

    def error(message: str) -> Any:
        raise ValueError(message)

    for each in [parser, *_subparsers(parser)]:
        each.error = error  # type: ignore[method-assign]  # it would end the process
    try:
        parser.parse_args([word for word in arguments if word not in ("-h", "--help")])
    except (ValueError, argparse.ArgumentError) as exc:
        return str(exc)
    return None


def _subparsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            yield from action.choices.values()


def _actions(parser: Any) -> list[argparse.Action]:
    """Return the options of a parser of pytest's."""
    made: argparse.ArgumentParser = getattr(parser, "optparser", None) or parser._getparser()
    return made._actions


@lru_cache
def _sessions(noxfile: str) -> set[str]:
    """Return the sessions of a noxfile, read and not run."""
    found = set()
    for node in ast.walk(ast.parse(noxfile)):
        if isinstance(node, ast.FunctionDef):
            for decorator in node.decorator_list:
                called = decorator.func if isinstance(decorator, ast.Call) else decorator
                if ast.unparse(called) in ("nox.session", "session"):
                    names = [
                        keyword.value.value
                        for keyword in (decorator.keywords if isinstance(decorator, ast.Call) else ())
                        if keyword.arg == "name" and isinstance(keyword.value, ast.Constant)
                    ]
                    found.add(str(names[0]) if names else node.name)
    return found


def _object(target: str) -> str | None:
    module, _, name = target.partition(":")
    try:
        found: Any = importlib.import_module(module)
    except ImportError as exc:
        return f"there is no module {module} ({exc})" if module.partition(".")[0] in sys.modules else None
    return None if hasattr(found, name) else f"{module} has no {name}"


@lru_cache
def _toml(path: Path) -> dict[str, Any]:
    return tomlkit.parse(path.read_text(encoding="utf-8")).unwrap() if path.is_file() else {}

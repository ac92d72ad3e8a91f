"""Names in code spans: what is named exists, what is called takes those arguments.

What a span names is looked up in the modules that the project documents. A name that is in none of them may
be anybody's; one that is almost in them is a slip.
"""

from __future__ import annotations

import ast
import difflib
import importlib
import inspect
import re
import typing
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from typing import Any

from ws_doctest._pages import PYTHON, Page

_NAME = re.compile(r"[A-Za-z_]\w*")
_CALL = re.compile(r"(?:await\s+)?(?P<path>[A-Za-z_][\w.]*)\((?P<arguments>.*)\)")
_OPTION = re.compile(r"(?P<name>[a-z_]\w*)=(?P<value>[^=].*|)")
CLOSE = 0.85  # of two names, from which on one is taken for a slip of the other


def defined_in(page: Page, documented: Collection[str] = ()) -> set[str]:
    """Return the names that the code on a page defines or imports: they are no slips of others.

    Args:
        page: the page.
        documented: modules whose names are looked up all the same.
    """
    found: set[str] = set()
    for fence in page.fences:
        if fence.language in PYTHON:
            with suppress(SyntaxError, ValueError):
                for node in ast.walk(ast.parse(fence.expanded())):
                    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                        found.add(node.name)
                    elif isinstance(node, ast.ImportFrom) and node.module in documented:
                        continue
                    elif isinstance(node, ast.Import | ast.ImportFrom):
                        found |= {alias.asname or alias.name for alias in node.names}
    return found


def calls_in(page: Page) -> Iterator[tuple[int, str]]:
    """Yield the calls in code that is not run: in Python that is skipped, and in fences of text."""
    for fence in page.fences:
        if fence.includes or not (fence.language == "text" or (fence.language in PYTHON and fence.skip)):
            continue
        try:
            tree = ast.parse(fence.source)
        except (SyntaxError, ValueError):  # of text, most is no code; of code, a part of something
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                yield fence.line + node.lineno, ast.unparse(_made_by(node))


def _made_by(call: ast.Call) -> ast.Call:
    """Return the call that a call comes to: `add_middleware(Guard, rate=1)` makes a `Guard(rate=1)`."""
    if isinstance(call.func, ast.Attribute) and call.func.attr == "add_middleware" and call.args:
        return ast.Call(call.args[0], call.args[1:], call.keywords)
    return call


class Names:
    """The public names of what is documented.

    Args:
        modules: the modules, by name.
        receivers: names such as ``websocket``, and the classes they stand for.
        words: names that are meant, though they are close to another one.
    """

    def __init__(self, modules: list[str], receivers: Mapping[str, type], words: set[str]) -> None:
        self.receivers = receivers
        self.objects: dict[str, Any] = {}
        for module in modules:
            found = importlib.import_module(module)
            for name in getattr(found, "__all__", None) or vars(found):
                if not name.startswith("_"):
                    self.objects.setdefault(name, getattr(found, name))
        self.words = words
        self.known = {*self.objects, *receivers}
        self.options: set[str] = set()
        self.nearest: dict[tuple[str, bool], list[str]] = {}  # of names that are none
        # Methods of one kind, such as `send_text` and `send_bytes`: another would be taken for one of them.
        methods = sorted({name for cls in receivers.values() for name in dir(cls) if "_" in name.strip("_")})
        kinds = [name.partition("_")[0] + "_" for name in methods if name[0] != "_"]
        self.families = {
            kind: [name for name in methods if name.startswith(kind)]
            for kind in kinds
            if kinds.count(kind) > 2
        }
        for each in [*self.objects.values(), *receivers.values()]:
            self._learn(each)

    def _learn(self, found: Any) -> None:
        callables = [found]
        if inspect.isclass(found):
            for name in dir(found):
                if not name.startswith("_") or name in ("__init__", "__new__"):
                    self.known.add(name)
                    callables.append(getattr(found, name, None))
            for cls in found.__mro__:
                self.known |= {name for name in vars(cls).get("__annotations__", {}) if name[0] != "_"}
                self.known |= {name for name in vars(cls).get("__slots__", ()) if name[0] != "_"}
        for each in callables:
            if callable(each):
                try:
                    self.options |= set(inspect.signature(each).parameters)
                except (TypeError, ValueError):
                    continue

    def near(self, name: str, *, options: bool) -> list[str]:
        """Return the name that another one is close to, if there is one."""
        if (name, options) not in self.nearest:
            # Of names so close, the lengths differ by less than a third.
            candidates = [
                each
                for each in (self.options | self.known if options else self.known)
                if abs(len(each) - len(name)) * 3 < len(name) + len(each)
            ]
            self.nearest[name, options] = difflib.get_close_matches(name, candidates, 1, CLOSE)
        return self.nearest[name, options]

    def problem(self, code: str) -> str | None:
        """Return what is wrong with a code span, or ``None``."""
        call = _CALL.fullmatch(code)
        option = _OPTION.fullmatch(code)
        path = call["path"] if call else option["name"] if option else code.removeprefix("await ")
        if not all(_NAME.fullmatch(part) for part in path.split(".")):
            return None
        if path in self.words or path.startswith("_"):  # what is private is not documented
            return None
        receiver, _, rest = path.partition(".")
        if rest and receiver in self.receivers:
            cls: type | None = self.receivers[receiver]
            for part in rest.split("."):
                problem = self._attribute(cls, part, code) if cls else None
                if problem:
                    return problem
                cls = _type_of(cls, part) if cls else None
        if option and option["name"] in self.options:
            return None
        name = path.rpartition(".")[2]
        # A name of one or two letters, or a word of a language, is close to many.
        if "." not in path and len(name) > 5 and name not in self.known | self.options:
            near = self.near(name, options=bool(option) or name.islower())
            if near and name not in vars(__import__("builtins")):
                return f"`{code}`: there is no {name}; it is close to {near[0]}"
            if call and name[0].isupper() and name not in vars(__import__("builtins")):
                return f"`{code}`: there is no {name}; one of somebody else's belongs into ws_doctest_words"
            family = name.partition("_")[0] + "_"
            if not option and family in self.families:
                return (
                    f"`{code}`: there is no {name}; of {family}… there are {', '.join(self.families[family])}"
                )
        return self._arguments(call, path) if call else None

    def _attribute(self, cls: type, name: str, code: str) -> str | None:
        if (
            name.startswith("_")
            or hasattr(cls, name)
            or any(name in vars(each).get("__annotations__", {}) for each in cls.__mro__)
        ):
            return None
        near = difflib.get_close_matches(name, dir(cls), 1)
        hint = f"; it is close to {near[0]}" if near else ""
        return f"`{code}`: {cls.__name__} has no {name}{hint}"

    def _arguments(self, call: re.Match[str], path: str) -> str | None:
        """Compare the names of the arguments with those of what is called."""
        receiver, _, method = path.partition(".")
        target: Any = None
        if method and "." not in method and receiver in self.receivers:
            target = getattr(self.receivers[receiver], method, None)
        elif not method:
            target = self.objects.get(path)
        if target is None or not callable(target):
            return None
        try:
            signature = inspect.signature(target)
            tree = ast.parse(f"_({call['arguments']})", mode="eval").body
        except (TypeError, ValueError, SyntaxError):
            return None  # a signature, with `*` and defaults, is compared where it is one
        if not isinstance(tree, ast.Call):
            return None
        takes_any = any(each.kind is each.VAR_KEYWORD for each in signature.parameters.values())
        for keyword in tree.keywords:
            if keyword.arg is not None and keyword.arg not in signature.parameters and not takes_any:
                names = ", ".join(signature.parameters)
                return f"`{call[0]}`: {path} has no argument {keyword.arg}; it has {names}"
        return None


def _type_of(cls: type, name: str) -> type | None:
    """Return the class of what a property gives, if it is said."""
    found = inspect.getattr_static(cls, name, None)
    if not isinstance(found, property) or found.fget is None:
        return None
    try:
        kind = typing.get_type_hints(found.fget).get("return")
    except (NameError, TypeError):
        return None
    return kind if inspect.isclass(kind) else None

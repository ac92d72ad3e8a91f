"""Signatures: a bullet such as ``await websocket.close(code=1000)`` equals the method it names."""

from __future__ import annotations

import ast
import enum
import importlib
import inspect
from collections.abc import Iterable, Mapping
from typing import Any

from ws_doctest._pages import Bullet


class ReceiverError(Exception):
    """The configured class of a receiver cannot be found."""


def load_receiver(target: str) -> type:
    """Return the class named by ``module:Class``."""
    module, colon, name = target.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, ValueError) as exc:
        raise ReceiverError(f"expected a class as module:Class, came {target!r}: {exc}") from exc
    if not colon or not inspect.isclass(found):
        raise ReceiverError(f"expected a class as module:Class, came {target!r}")
    return found


def check(bullet: Bullet, receivers: Mapping[str, str], functions: Mapping[str, Any]) -> str | None:
    """Compare a bullet with what it shows; return how they differ, or ``None``.

    Args:
        bullet: the bullet.
        receivers: names such as ``websocket``, and the classes they stand for, as
            ``module:Class``.
        functions: what is called without a receiver, by name.
    """
    if not bullet.receiver:
        function = functions.get(bullet.method)
        if function is None:
            return None  # somebody else's
        try:
            shown = _shown(bullet)
        except SyntaxError as exc:
            return f"`{bullet.code}`: these are no parameters of a Python function ({exc.msg})"
        parameters = inspect.signature(function).parameters
        arguments = ast.parse(f"def _({bullet.parameters}): ...").body[0].args  # type: ignore[attr-defined]
        if len([*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]) < len(parameters):
            return None  # a call, with some of them: its names are looked up as in any other code span
        awaited = "await " if inspect.iscoroutinefunction(inspect.unwrap(function)) else ""
        real = f"{awaited}{bullet.method}({spelt(parameters.values())})"
        return None if shown == real else f"the page shows `{shown}`; the code is `{real}`"
    target = receivers.get(bullet.receiver)
    if target is None:
        known = ", ".join(sorted(receivers)) or "none"
        return (
            f"`{bullet.code}` shows a call on {bullet.receiver!r}, which is not configured (known: {known}): "
            "add it to ws_doctest_receivers, or skip the line with a reason"
        )
    try:
        method = inspect.getattr_static(load_receiver(target), bullet.method)
    except ReceiverError as exc:
        return str(exc)
    except AttributeError:
        return f"`{bullet.code}`: {target} has no {bullet.method!r}"
    if isinstance(method, property) or not callable(getattr(load_receiver(target), bullet.method)):
        return f"`{bullet.code}`: {target}.{bullet.method} is not called, it is a {type(method).__name__}"
    try:
        shown = _shown(bullet)
    except SyntaxError as exc:
        return f"`{bullet.code}`: these are no parameters of a Python function ({exc.msg})"
    real = _real(bullet, load_receiver(target), method)
    if shown != real:
        return f"the page shows `{shown}`; the code of {target} is `{real}`"
    return None


def _shown(bullet: Bullet) -> str:
    """Return the bullet in the one spelling in which both sides are compared."""
    # The parameters of a definition, not the arguments of a call: `*` and `/` may stand among
    # them.
    function = ast.parse(f"def _({bullet.parameters}): ...").body[0]
    assert isinstance(function, ast.FunctionDef)  # that is what the text above is
    arguments = function.args
    for argument in [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]:
        argument.annotation = None
    # Spelt by ast on both sides: `"text"` and `'text'` are the same default.
    parameters = ast.unparse(arguments)
    called = f"{bullet.receiver}.{bullet.method}".lstrip(".")
    return f"{'await ' if bullet.awaited else ''}{called}({parameters})"


def _real(bullet: Bullet, owner: type, method: object) -> str:
    bound = getattr(owner, bullet.method)
    parameters = list(inspect.signature(bound).parameters.values())
    if not isinstance(method, staticmethod | classmethod):
        parameters = parameters[1:]  # self
    awaited = "await " if inspect.iscoroutinefunction(inspect.unwrap(bound)) else ""
    return f"{awaited}{bullet.receiver}.{bullet.method}({spelt(parameters)})"


def spelt(parameters: Iterable[inspect.Parameter]) -> str:
    """Return parameters as a page shows them: without annotations, with the defaults."""
    shown = [
        parameter.replace(
            annotation=inspect.Parameter.empty,
            default=parameter.default
            if parameter.default is inspect.Parameter.empty
            else _Spelt(parameter.default),
        )
        for parameter in parameters
    ]
    function = ast.parse(f"def _{inspect.Signature(shown)}: ...").body[0]
    assert isinstance(function, ast.FunctionDef)  # that is what the text above is
    return ast.unparse(function.args)


class _Spelt:
    """A default value whose repr is how one writes it."""

    def __init__(self, value: object) -> None:
        self.value = value

    def __repr__(self) -> str:
        if isinstance(self.value, enum.Enum):
            return f"{type(self.value).__name__}.{self.value.name}"
        text = repr(self.value)
        try:
            ast.parse(text, mode="eval")
        except SyntaxError:
            return "..."  # no literal: the page shows an ellipsis, as stubs do
        return text

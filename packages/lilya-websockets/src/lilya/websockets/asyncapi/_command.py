"""The subcommand `asyncapi` of `python -m lilya.websockets`."""

from __future__ import annotations

import argparse
import contextlib
import difflib
import importlib
import sys
import traceback
from pathlib import Path
from typing import Any

from ._app import AsyncAPI

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the subcommand takes."""
    parser.add_argument(
        "app",
        metavar="MODULE:NAME",
        help="an app, a mapping of paths to handlers, or an AsyncAPI object, such as main:app",
    )
    parser.add_argument(
        "--format", choices=("json", "yaml"), help="default: by the name of FILE, otherwise json"
    )
    parser.add_argument(
        "--check",
        metavar="FILE",
        type=Path,
        help="write nothing; fail with a diff if FILE is not the document",
    )


def run(options: argparse.Namespace) -> int:
    """Write the document, or compare it.

    Returns:
        The exit status, which is 0, 1 if the file is another document, or 2 if there is none.
    """
    try:
        # What an app prints when it is imported is no part of the document.
        with contextlib.redirect_stdout(sys.stderr):
            found = _load(options.app)
    except _NoApp as error:
        sys.stderr.write(f"{error}\n")
        return 2
    except Exception:
        sys.stderr.write(f"{options.app} cannot be imported:\n{traceback.format_exc()}")
        return 2
    is_yaml = options.format == "yaml" or (
        options.format is None and options.check is not None and options.check.suffix in (".yaml", ".yml")
    )
    try:
        asyncapi = found if isinstance(found, AsyncAPI) else AsyncAPI(found)
        text = asyncapi.to_yaml() if is_yaml else asyncapi.to_json()
        written = None if options.check is None else options.check.read_text("utf-8")
    except (OSError, TypeError, ValueError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    if written is None:
        sys.stdout.buffer.write(text.encode())
        sys.stdout.buffer.flush()
        return 0
    if written == text:
        return 0
    name = options.check.as_posix()
    diff = difflib.unified_diff(
        written.splitlines(keepends=True),
        text.splitlines(keepends=True),
        name,
        f"{options.app}, as it is now",
    )
    sys.stdout.buffer.write("".join(diff).encode())
    sys.stdout.buffer.flush()
    return 1


class _NoApp(Exception):
    """What is named is not there; the text says all there is to say."""


def _load(target: str) -> Any:
    """What is named.

    Raises:
        _NoApp: It is no name, or there is no such module, or nothing of that name in it.
        Exception: What the module raises when it is imported.
    """
    module, colon, name = target.partition(":")
    if not (module and colon and name):
        raise _NoApp(f"name the app as MODULE:NAME, such as main:app; got {target!r}")
    try:
        found: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{module}.".startswith(f"{error.name}."):
            raise _NoApp(str(error)) from error
        raise  # one that the app imports
    for part in name.split("."):
        try:
            found = getattr(found, part)
        except AttributeError as error:
            raise _NoApp(str(error)) from error
    return found

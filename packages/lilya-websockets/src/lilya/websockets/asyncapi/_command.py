"""The subcommand `asyncapi` of `python -m lilya.websockets`."""

from __future__ import annotations

import argparse
import difflib
import importlib
import sys
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
        The exit status: 0, 1 if the file is another document, 2 if there is none.
    """
    try:
        asyncapi = _load(options.app)
        is_yaml = options.format == "yaml" or (
            options.format is None and options.check is not None and options.check.suffix in (".yaml", ".yml")
        )
        text = asyncapi.to_yaml() if is_yaml else asyncapi.to_json()
        if options.check is None:
            sys.stdout.buffer.write(text.encode())
            sys.stdout.buffer.flush()
            return 0
        written = options.check.read_text("utf-8")
    except (AttributeError, ImportError, OSError, TypeError, ValueError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
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


def _load(target: str) -> AsyncAPI:
    """The document of what is named.

    Raises:
        AttributeError: The module has no such name.
        ImportError: There is no such module, or it cannot be imported.
        ValueError: It is no name.
    """
    module, colon, name = target.partition(":")
    if not (module and colon and name):
        raise ValueError(f"name the app as MODULE:NAME, such as main:app; got {target!r}")
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    return found if isinstance(found, AsyncAPI) else AsyncAPI(found)

"""`python -m lilya.websockets COMMAND …`. Each command lives in the package that it is for."""

from __future__ import annotations

import argparse
import os
import sys
from importlib import import_module
from typing import Final

__all__ = ["COMMANDS", "main"]

COMMANDS: Final = {
    "asyncapi": (".asyncapi._command", "Write the AsyncAPI document of an app, or compare it with a file."),
    "channels": (".channels._command", "Look into channels, publish, and close sockets."),
}
"""By name: the module that has `add_arguments` and `run`, and what the command does."""


def main(arguments: list[str] | None = None) -> int:
    """Run a command. Only the module of this command is imported.

    Args:
        arguments: Those of the command line. Default: `sys.argv`.

    Returns:
        The exit status.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            # The shell has closed it, with `>&-`. What is written to it goes nowhere, as with `print`.
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - until the end
    try:
        try:
            return _run(sys.argv[1:] if arguments is None else arguments)
        finally:
            sys.stdout.flush()  # `--help` has not done it
    except KeyboardInterrupt:
        return 130
    except OSError as error:  # of standard output: `head` has ended, or the disk is full
        if not isinstance(error, BrokenPipeError):
            sys.stderr.write(f"{error}\n")
        # What is still in the buffer cannot be written, too, and Python would say so at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _run(arguments: list[str]) -> int:
    program = "python -m lilya.websockets"
    parser = argparse.ArgumentParser(
        prog=program,
        usage=f"{program} COMMAND …",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="\n".join(["commands:", *(f"  {name:<10} {text}" for name, (_, text) in COMMANDS.items())]),
    )
    parser.add_argument("command", metavar="COMMAND", choices=list(COMMANDS), help="one of those below")
    name = parser.parse_args(arguments[:1]).command
    module, text = COMMANDS[name]
    room = import_module(module, __package__)
    command = argparse.ArgumentParser(prog=f"{program} {name}", description=text)
    room.add_arguments(command)
    return int(room.run(command.parse_args(arguments[1:])))


if __name__ == "__main__":
    sys.exit(main())

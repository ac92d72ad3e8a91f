"""The command line: ``python -m ws_doctest COMMAND``; `make_parser` has the commands."""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(prog="python -m ws_doctest", description="Doctest for WebSockets.")
    commands = parser.add_subparsers(dest="command", required=True)
    serving = commands.add_parser("serve", help="serve the built site and every example live")
    serving.add_argument("--site", type=Path, required=True, help="the folder of the built site")
    serving.add_argument("--examples", type=Path, required=True, help="the folder of the examples")
    serving.add_argument("--host", default="127.0.0.1", help="default: %(default)s")
    serving.add_argument("--port", type=int, default=8000, help="default: %(default)s; 0: a free one")
    site = commands.add_parser("site", help="compare the built site with the pages that were executed")
    site.add_argument("--site", type=Path, required=True, help="the folder of the built site")
    site.add_argument("--pages", type=Path, required=True, help="the folder of the pages")
    buttons = commands.add_parser("buttons", help="add Run buttons to the built site; needs npm")
    buttons.add_argument("--site", type=Path, required=True, help="the folder of the built site")
    buttons.add_argument("--pages", type=Path, required=True, help="the folder of the pages")
    buttons.add_argument("--examples", type=Path, required=True, help="the folder of the examples")
    buttons.add_argument(
        "--package",
        action="append",
        default=[],
        help="what the examples import: a requirement, or the folder of a package; may be repeated",
    )
    buttons.add_argument(
        "--pure",
        action="append",
        default=[],
        help="a package without a wheel for the browser: use its own without compiled parts; may be repeated",
    )
    buttons.add_argument(
        "--disconnect",
        choices=("framework", "normal", "error"),
        default="framework",
        help="as the setting ws_doctest_disconnect; default: %(default)s",
    )
    for name, text in (
        ("check", "check pages, as `pytest PAGES` does"),
        ("update", "rewrite transcripts and expectations to what is seen now"),
        ("watch", "check pages whenever something in them, or in the examples, has changed"),
    ):
        command = commands.add_parser(name, help=text)
        command.add_argument("pages", nargs="*", help="folders of pages, or pages; default: ws_doctest_pages")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run a command; return the exit status."""
    options = make_parser().parse_args(arguments)

    if options.command == "serve":
        return _serve(options)
    if options.command == "site":
        from ws_doctest.site import check_site

        return _complain(check_site(options.site, options.pages))
    if options.command == "buttons":
        return _buttons(options)
    if options.command == "watch":
        return _watch(options.pages)
    # A process of its own: pytest rewrites its plugins on import, and this one is imported already.
    update = ["--ws-update"] if options.command == "update" else []
    return subprocess.run([*_pytest(options.pages), *update]).returncode


def _pytest(pages: list[str]) -> list[str]:
    """Return the command that checks these pages, or those that are configured."""
    return [sys.executable, "-m", "pytest", *(pages or ["--ws-pages"])]


def _serve(options: argparse.Namespace) -> int:
    try:
        from ws_doctest import serve
    except ModuleNotFoundError as exc:
        return _complain([f"serve needs {exc.name}: install ws-doctest[serve]"])
    try:
        serve.serve(options.site, options.examples, host=options.host, port=options.port)
    except serve.ServeError as exc:
        return _complain([str(exc)])
    except KeyboardInterrupt:  # the usual end
        pass
    return 0


def _buttons(options: argparse.Namespace) -> int:
    if shutil.which("npm") is None:
        sys.stdout.write("The site has no Run buttons: npm is not installed, which brings Pyodide.\n")
        return 0
    try:
        from ws_doctest import buttons
    except ModuleNotFoundError as exc:
        return _complain([f"buttons needs {exc.name}: install ws-doctest[buttons]"])
    try:
        found = buttons.add_buttons(
            options.site,
            options.pages,
            options.examples,
            options.package,
            pure=options.pure,
            disconnect=options.disconnect,
        )
    except buttons.ButtonsError as exc:
        return _complain([str(exc)])
    without = [button for button in found if button.reason]
    sys.stdout.write(f"The site has {len(found) - len(without)} Run buttons.\n")
    for button in without:
        sys.stdout.write(f"No button: {button.file}: {button.reason}\n")
    return 0


def _watch(pages: list[str]) -> int:
    """Check the pages again and again, until interrupted."""
    seen: dict[Path, float] = {}
    try:
        while True:
            now = _times(Path.cwd())
            if now != seen:
                seen = now
                subprocess.run([*_pytest(pages), "-q"])
                sys.stdout.write("ws-doctest waits for changes; Ctrl-C ends it\n")
                sys.stdout.flush()
            time.sleep(0.3)
    except KeyboardInterrupt:  # the usual end
        return 0


def _times(root: Path) -> dict[Path, float]:
    """Return when each file that a check may read was changed."""
    found = {}
    for folder, folders, files in os.walk(root):
        folders[:] = [
            name for name in folders if not name.startswith(".") and name not in ("site", "__pycache__")
        ]
        for name in files:
            if name.endswith((".md", ".markdown", ".mdx", ".py", ".ws", ".toml", ".out")):
                path = Path(folder) / name
                with contextlib.suppress(OSError):  # it is gone
                    found[path] = path.stat().st_mtime
    return found


def _complain(problems: list[str]) -> int:
    for problem in problems:
        sys.stderr.write(f"{problem}\n")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())

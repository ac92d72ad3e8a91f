"""What tests of the client share: the package as `npm pack` makes it.

`nox -s client` brings esbuild, TypeScript and the packages that the client is compared with, in a folder that
it names in the variable `CLIENT_TOOLS`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "packages" / "lilya-websockets-js"
LIMIT = 300.0


def npm(*arguments: str, cwd: Path) -> str:
    """What npm says."""
    done = subprocess.run(
        ["npm", *arguments], cwd=cwd, capture_output=True, text=True, timeout=LIMIT, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def packed() -> Path:
    """The folder of `nox -s client`, with the package in its `node_modules` as it is published."""
    tools = Path(os.environ["CLIENT_TOOLS"])
    source = tools / "source"
    shutil.rmtree(source, ignore_errors=True)
    shutil.copytree(PACKAGE, source, ignore=shutil.ignore_patterns("node_modules", "*.min.js", "*.tgz"))
    # `prepack` finds esbuild, because it is beside one of the folders above.
    name = npm("pack", "--silent", cwd=source).split()[-1]
    installed = tools / "node_modules" / "lilya-websockets"
    shutil.rmtree(installed, ignore_errors=True)
    with tarfile.open(source / name) as archive:
        archive.extractall(source / "packed", filter="data")
    shutil.copytree(source / "packed" / "package", installed)
    return tools

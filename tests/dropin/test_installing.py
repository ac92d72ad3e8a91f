"""Beside Lilya in every order of installing: which `lilya.websockets` is it, with pip and with uv?

What is installed is real, and comes from nowhere: Lilya's wheel is put together again from what is installed
here, in two versions, and this package's is built by its own build system.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import subprocess
import sys
import zipfile
from importlib.metadata import distribution
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "packages" / "lilya-websockets"
OURS = "lilya/websockets/__init__.py"
LILYAS = "lilya/websockets.py"


def run(*command: str | Path, **environment: str) -> str:
    done = subprocess.run(
        [str(part) for part in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def wheel_of_lilya(folder: Path, version: str) -> Path:
    """Lilya's wheel, from its installed files, under a version of ours."""
    installed = distribution("lilya")
    path = folder / f"lilya-{version}-py3-none-any.whl"
    old, new = f"lilya-{installed.version}.dist-info", f"lilya-{version}.dist-info"
    record = f"{new}/RECORD,,\n"
    with zipfile.ZipFile(path, "w") as wheel:
        for file in installed.files or ():
            name = file.as_posix()
            if not name.startswith(("lilya/", f"{old}/METADATA", f"{old}/WHEEL")) or name.endswith(".pyc"):
                continue
            data = Path(str(file.locate())).read_bytes()
            name = name.replace(old, new)
            if name.endswith("/METADATA"):
                data = re.sub(rb"(?m)^Version: .*$", b"Version: " + version.encode(), data, count=1)
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            record += f"{name},sha256={digest},{len(data)}\n"
            wheel.writestr(name, data)
        wheel.writestr(f"{new}/RECORD", record)
    return path


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("wheels")
    build = (
        "import os, sys; from hatchling import build; os.chdir(sys.argv[1]); "
        "getattr(build, sys.argv[2])(sys.argv[3])"
    )
    built = {}
    for name, how in (("ours", "build_wheel"), ("editable", "build_editable")):
        (folder / name).mkdir()
        run(sys.executable, "-c", build, PACKAGE, how, folder / name)
        (built[name],) = (folder / name).iterdir()
    return {
        **built,
        "older": wheel_of_lilya(folder, "0.29.0.dev1"),
        "lilya": wheel_of_lilya(folder, "0.29.0.dev2"),
    }


class Environment:
    """A new environment that sees what is installed here, Lilya and this package apart."""

    def __init__(self, folder: Path, installer: str) -> None:
        run(sys.executable, "-m", "venv", "--without-pip", folder)
        self.folder = folder
        self.python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
        self.uses_pip = installer == "pip"
        # Lilya is not run here, only found: what either package needs is multidict.
        multidict = distribution("multidict").locate_file("multidict")
        (self.site / "multidict").symlink_to(str(multidict))

    @property
    def site(self) -> Path:
        return next(self.folder.rglob("site-packages"))

    def install(self, *wheels: Path, again: bool = False) -> None:
        if self.uses_pip:
            more = ["--force-reinstall"] if again else []
            run(*self.pip, "install", "--no-deps", "--no-index", "--no-compile", *more, *wheels)
        else:
            more = ["--reinstall"] if again else []
            run(*self.uv, "install", "--python", self.python, "--no-deps", "--offline", *more, *wheels)

    def uninstall(self, name: str) -> None:
        if self.uses_pip:
            run(*self.pip, "uninstall", "--yes", name)
        else:
            run(*self.uv, "uninstall", "--python", self.python, name)

    @property
    def pip(self) -> list[str | Path]:
        return [sys.executable, "-m", "pip", "--python", self.python, "--disable-pip-version-check"]

    @property
    def uv(self) -> list[str | Path]:
        return [sys.executable, "-m", "uv", "pip"]

    def found(self, **environment: str) -> str:
        """Which `lilya.websockets` Python finds, without running it."""
        code = "from importlib.util import find_spec; print(find_spec('lilya.websockets').origin)"
        origin = run(self.python, "-c", code, **environment).strip()
        return "/".join(Path(origin).parts[-3 if origin.endswith("__init__.py") else -2 :])


@pytest.fixture(params=["pip", "uv"])
def environment(request: pytest.FixtureRequest, tmp_path: Path) -> Environment:
    return Environment(tmp_path / "environment", request.param)


Wheels = dict[str, Path]


def test_after_lilya(environment: Environment, wheels: Wheels) -> None:
    environment.install(wheels["older"])
    assert environment.found() == LILYAS
    environment.install(wheels["ours"])
    assert environment.found() == OURS
    environment.install(wheels["lilya"])  # an upgrade
    assert environment.found() == OURS
    environment.install(wheels["lilya"], again=True)
    assert environment.found() == OURS
    environment.uninstall("lilya-websockets")
    assert environment.found() == LILYAS
    assert not (environment.site / "lilya" / "websockets").exists()


def test_before_lilya(environment: Environment, wheels: Wheels) -> None:
    environment.install(wheels["ours"])
    environment.install(wheels["lilya"])
    assert environment.found() == OURS
    assert (environment.site / LILYAS).is_file()
    environment.uninstall("lilya")
    assert environment.found() == OURS
    assert {path.parent.name for path in (environment.site / "lilya").glob("*/*.py")} == {"websockets"}
    code = "import lilya.websockets as it; print(it.WebSocketRuntimeError.__module__)"
    assert run(environment.python, "-c", code).strip() == "lilya.websockets.exceptions"


def test_both_at_once_and_then_editable(environment: Environment, wheels: Wheels) -> None:
    environment.install(wheels["lilya"], wheels["ours"])
    assert environment.found() == OURS
    environment.install(wheels["editable"], again=True)
    assert environment.found() == LILYAS


def test_another_place_than_lilyas(wheels: Wheels, tmp_path: Path) -> None:
    environment = Environment(tmp_path / "environment", "none")
    for name, folder in (("lilya", environment.site), ("ours", tmp_path / "elsewhere")):
        with zipfile.ZipFile(wheels[name]) as wheel:
            wheel.extractall(folder)
    assert environment.found(PYTHONPATH=str(tmp_path / "elsewhere")) == LILYAS


def test_no_file_is_in_both_wheels(wheels: Wheels) -> None:
    names = [set(zipfile.ZipFile(wheels[name]).namelist()) for name in ("lilya", "ours")]
    assert names[0] & names[1] == set()
    assert LILYAS in names[0]
    assert OURS in names[1]

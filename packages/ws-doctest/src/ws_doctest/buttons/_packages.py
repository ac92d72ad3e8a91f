"""What an example imports, as wheels for the browser; Pyodide, and who brings it."""

from __future__ import annotations

import ast
import base64
import gzip
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

# One version of Pyodide, and its CPython. The checksum is that of the package on npm.
PYODIDE = "314.0.7"
INTEGRITY = "sha512-0YvXxEhfEdpLfb/XkM2BFAeMROq0iMUX2bzzH9pOttyMcWkwq+HbE5uyuGD82LN7y2q+SNvi/6V5JEsOlD2R1A=="
PYTHON = (3, 14)
PACKAGES = f"/lib/python{PYTHON[0]}.{PYTHON[1]}/site-packages"
PLATFORM = "pyemscripten_2026_0_wasm32"

# What a browser needs of the package. The compiled part is kept compressed, whoever serves it.
_FILES = ("pyodide.mjs", "pyodide.asm.mjs", "pyodide.asm.wasm", "pyodide-lock.json", "python_stdlib.zip")

# What the replay itself imports.
REPLAY = ("anyio>=4.4", "multidict>=6,<8")

# For the markers of requirements: where the code will run.
_ENVIRONMENT = {
    "implementation_name": "cpython",
    "os_name": "posix",
    "platform_machine": "wasm32",
    "platform_python_implementation": "CPython",
    "platform_system": "Emscripten",
    "python_full_version": f"{PYTHON[0]}.{PYTHON[1]}.0",
    "python_version": f"{PYTHON[0]}.{PYTHON[1]}",
    "sys_platform": "emscripten",
}


class ButtonsError(Exception):
    """The buttons cannot be made; the message is for whoever builds the site."""


@dataclass(frozen=True)
class Wheel:
    """A wheel that the browser can unpack."""

    path: Path

    @property
    def name(self) -> str:
        """The name of the distribution, in its canonical form."""
        return canonicalize_name(self.path.name.partition("-")[0])

    @cached_property
    def modules(self) -> set[str]:
        """The dotted names of its modules and packages."""
        with zipfile.ZipFile(self.path) as archive:
            names = archive.namelist()
        found = set()
        for name in names:
            path = re.sub(r"(?:/__init__)?(?:\.[\w-]+)?\.(?:py|so)$", "", name)
            if path != name and ".dist-info/" not in name:
                parts = path.split("/")
                found |= {".".join(parts[:length]) for length in range(1, len(parts) + 1)}
        return found

    @cached_property
    def requirements(self) -> list[Requirement]:
        """What it requires in the browser, with the extras that it has still to be asked for."""
        with zipfile.ZipFile(self.path) as archive:
            member = next((name for name in archive.namelist() if name.endswith(".dist-info/METADATA")), "")
            text = archive.read(member).decode() if member else ""
        head = text.partition("\n\n")[0]
        return [Requirement(found[1]) for found in re.finditer(r"(?m)^Requires-Dist: (.+)$", head)]

    def requires(self, extras: Iterable[str]) -> Iterator[Requirement]:
        """Yield what it requires there, with these extras."""
        for requirement in self.requirements:
            marker = requirement.marker
            if marker is None or any(
                marker.evaluate({**_ENVIRONMENT, "extra": extra}) for extra in ("", *extras)
            ):
                yield requirement


class Wheels:
    """The wheels of everything that examples import.

    Args:
        wheels: the wheels.
        root: the folder of the project, whose own modules are no wheels.
    """

    def __init__(self, wheels: Iterable[Wheel], root: Path) -> None:
        self.by_name = {wheel.name: wheel for wheel in wheels}
        self.root = root

    def needed(self, names: Iterable[str]) -> list[str]:
        """Return the file names of these distributions, and of all that they require."""
        found: dict[str, set[str]] = {}
        waiting = [Requirement(name) for name in names]
        while waiting:
            requirement = waiting.pop()
            name = canonicalize_name(requirement.name)
            if name in found and found[name] >= requirement.extras:
                continue
            if name not in self.by_name:
                raise ButtonsError(f"a package requires {requirement}, of which there is no wheel")
            found.setdefault(name, set()).update(requirement.extras)
            waiting += self.by_name[name].requires(found[name])
        return sorted(self.by_name[name].path.name for name in found)

    def of_example(self, example: Path) -> list[str]:
        """Return the file names of the wheels that an example needs.

        Raises:
            ButtonsError: it imports something that no wheel has.
        """
        names: set[str] = set()
        for module, is_from in imports_of(example, self.root):
            if module.partition(".")[0] in sys.stdlib_module_names:
                continue
            found = self.with_module(module.rpartition(".")[0] if is_from else module)
            exact = {wheel for wheel in found if module in self.by_name[wheel].modules}
            if not found:
                raise ButtonsError(
                    f"{example.relative_to(self.root).as_posix()} imports {module}, which no package has: "
                    "name one with --package, or say above the example why it has no button: "
                    "`<!-- ws-doctest: no button: REASON -->`"
                )
            names |= exact or found
        return self.needed(names)

    def with_module(self, module: str) -> set[str]:
        """Return the distributions that have a module."""
        return {name for name, wheel in self.by_name.items() if module in wheel.modules}


def imports_of(example: Path, root: Path, seen: set[Path] | None = None) -> Iterator[tuple[str, bool]]:
    """Yield the dotted names that an example imports, also by way of other files of the project.

    Each comes with whether its last part may be something in a module, instead of a module.
    """
    seen = {example} if seen is None else seen
    for node in ast.walk(ast.parse(example.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [(alias.name, False) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [(f"{node.module}.{alias.name}", True) for alias in node.names]
        else:
            continue
        for name, is_from in names:
            base = root / Path(*name.split(".")[: -1 if is_from else None])
            if base.is_dir():
                base = base / (name.rpartition(".")[2] if is_from else "__init__")
            own = base.with_suffix(".py")
            if own.is_file() and own not in seen:
                seen.add(own)
                yield from imports_of(own, root, seen)
            elif not own.is_file() and not (root / name.partition(".")[0]).is_dir():
                yield name, is_from


def bring_pyodide(folder: Path) -> None:
    """Put the files of Pyodide into a folder; `npm` brings them.

    Raises:
        ButtonsError: npm fails, or brings something else.
    """
    npm = shutil.which("npm")
    assert npm is not None  # as was looked at before
    with tempfile.TemporaryDirectory(prefix="ws-doctest-") as temporary:
        _run([npm, "pack", "--silent", "--pack-destination", temporary, f"pyodide@{PYODIDE}"])
        (package,) = Path(temporary).glob("*.tgz")
        content = package.read_bytes()
        digest = "sha512-" + base64.b64encode(hashlib.sha512(content).digest()).decode()
        if digest != INTEGRITY:
            raise ButtonsError(f"npm brought a pyodide {PYODIDE} of another checksum: {digest}")
        folder.mkdir(parents=True, exist_ok=True)
        with tarfile.open(package) as archive:
            for name in _FILES:
                member = archive.extractfile(f"package/{name}")
                assert member is not None, name
                data = member.read()
                if name.endswith(".wasm"):
                    name, data = f"{name}.gz", gzip.compress(data, 9, mtime=0)
                (folder / name).write_bytes(data)


def bring_wheels(packages: Sequence[str], pure: Sequence[str], folder: Path) -> list[Wheel]:
    """Put wheels of packages, and of all that they require, into a folder; `pip` brings them.

    Args:
        packages: requirements, and folders of packages, of which wheels are built.
        pure: requirements that have no wheel for the browser. Their wheels for this machine are used, without
            what is compiled in them.
        folder: the folder.

    Raises:
        ButtonsError: pip fails.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    folders = [package for package in packages if os.sep in package or package == "."]
    rest = [package for package in packages if package not in folders]
    if folders:
        _run([*pip, "wheel", "--no-deps", f"--wheel-dir={folder}", *folders])
    if pure:
        with tempfile.TemporaryDirectory(prefix="ws-doctest-") as temporary:
            _run([*pip, "download", "--no-deps", "--only-binary=:all:", f"--dest={temporary}", *pure])
            for path in Path(temporary).glob("*.whl"):
                name, version = path.name.split("-")[:2]
                _without_compiled(path, folder / f"{name}-{version}-py3-none-any.whl")
    built = [str(path) for path in folder.glob("*.whl")]
    _run(
        [
            *(*pip, "download", "--only-binary=:all:", f"--dest={folder}", f"--platform={PLATFORM}"),
            *("--implementation=cp", f"--abi=cp{PYTHON[0]}{PYTHON[1]}", "--abi=abi3", "--abi=none"),
            *(f"--python-version={PYTHON[0]}.{PYTHON[1]}", *REPLAY, *built, *rest),
        ]
    )
    return [Wheel(path) for path in sorted(folder.glob("*.whl"))]


def pack_ourselves(folder: Path) -> Wheel:
    """Make a wheel of this package as it is installed here."""
    ours = Path(__file__).parents[1]
    version = metadata.version("ws-doctest")
    path = folder / f"ws_doctest-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for source in sorted(ours.rglob("*.py")):
            archive.write(source, source.relative_to(ours.parent))
    return Wheel(path)


def _without_compiled(wheel: Path, target: Path) -> None:
    """Copy a wheel, but for its compiled modules."""
    with zipfile.ZipFile(wheel) as source, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as copy:
        for name in source.namelist():
            if not name.endswith((".so", ".pyd", ".dylib")):
                copy.writestr(name, source.read(name))


def _run(command: list[str]) -> None:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        said = "\n".join(done.stdout.strip().split("\n")[-12:])
        raise ButtonsError(f"`{' '.join(command[:6])} …` failed:\n{said}")

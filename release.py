"""Checks whether this project can be released, and builds what is published.

    python release.py owner [OWNER]          is `owner.toml` filled in?
    python release.py check [TAG]            do all versions agree, and with a tag: can it be released?
    python release.py build FOLDER [OWNER]   the distributions, with `owner.toml` in their metadata

It prints what is missing, one problem a line, and exits with 1. `nox -s release` runs all of it.
OWNER is another file like `owner.toml`, for a rehearsal.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import tomlkit

ROOT = Path(__file__).parent.resolve()
OWNER = ROOT / "owner.toml"

# Where each package keeps its version.
VERSION = re.compile(r'^__version__ = "(.+)"$', re.MULTILINE)
HEADING = re.compile(r"^## (?P<version>\S+), (?P<when>.+)$", re.MULTILINE)
DATE = re.compile(r"\d{4}-\d{2}-\d{2}")


def read_owner(file: Path = OWNER) -> dict[str, dict[str, str]]:
    """The settings, by table and name."""
    settings: dict[str, dict[str, str]] = tomlkit.parse(file.read_text(encoding="utf-8")).unwrap()
    return settings


def missing(owner: dict[str, dict[str, str]]) -> list[str]:
    """What is not filled in, or cannot be right."""
    problems = []
    for name in ("name", "email"):
        value = owner["author"][name].strip()
        if not value:
            problems.append(f"{OWNER.name}: `{name}` of [author] is empty")
        elif name == "email" and not re.fullmatch(r"[^@\s]+@[^@\s]+\.[^@\s]+", value):
            problems.append(f"{OWNER.name}: `email` of [author] is no address: {value}")
    for name, value in owner["urls"].items():
        if not value.strip():
            problems.append(f"{OWNER.name}: `{name}` of [urls] is empty")
        elif not re.fullmatch(r"https://[^\s/]+\.[^\s/]+/\S*", value):
            problems.append(
                f"{OWNER.name}: `{name}` of [urls] is no address that begins with https://: {value}"
            )
    return problems


def packages(root: Path = ROOT) -> list[Path]:
    """The folders of all packages, those of Python and those of npm."""
    return sorted(
        {
            file.parent
            for name in ("pyproject.toml", "package.json")
            for file in root.glob(f"packages/*/{name}")
        }
    )


def version_of(folder: Path) -> str:
    """The version of a package."""
    if (folder / "package.json").is_file():
        return str(json.loads((folder / "package.json").read_text(encoding="utf-8"))["version"])
    project = tomlkit.parse((folder / "pyproject.toml").read_text(encoding="utf-8")).unwrap()
    file = folder / project["tool"]["hatch"]["version"]["path"]
    (version,) = VERSION.findall(file.read_text(encoding="utf-8"))
    return str(version)


def differing(versions: dict[str, str], changelog: str, tag: str = "") -> list[str]:
    """How versions, changelog and tag contradict each other.

    Args:
        versions: the version of each package.
        changelog: the text of the changelog.
        tag: the tag of the release, such as `v0.1.0`. Without one, the newest version may be unreleased.
    """
    (version, *others) = sorted(set(versions.values()))
    if others:
        each = ", ".join(f"{name} {its}" for name, its in versions.items())
        return [f"the packages have different versions: {each}"]
    heading = HEADING.search(changelog)
    if heading is None:
        return ["CHANGELOG.md has no heading such as `## 0.1.0, not released yet`"]
    problems = []
    if heading["version"] != version:
        problems.append(f"CHANGELOG.md begins with {heading['version']}, and the packages are {version}")
    released = DATE.fullmatch(heading["when"])
    if not released and (tag or heading["when"] != "not released yet"):
        problems.append(
            f"CHANGELOG.md says `{heading[0]}`: the heading of a release ends with its date, as in "
            f"`## {version}, 2026-01-31`"
        )
    if tag and tag != f"v{version}":
        problems.append(f"the tag is {tag}, and the packages are {version}: it must be v{version}")
    return problems


def stamp(folder: Path, owner: dict[str, dict[str, str]]) -> None:
    """Write who publishes a package into its metadata."""
    author, urls = owner["author"], owner["urls"]
    file = folder / "package.json"
    if file.is_file():
        package: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        package |= {
            "author": f"{author['name']} <{author['email']}>",
            "homepage": urls["Documentation"],
            "bugs": {"url": urls["Issues"]},
            # npm compares it with the repository that the workflow ran for
            "repository": {
                "type": "git",
                "url": f"git+{urls['Source'].rstrip('/').removesuffix('.git')}.git",
                "directory": f"packages/{folder.name}",
            },
        }
        file.write_text(json.dumps(package, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        return
    file = folder / "pyproject.toml"
    document: Any = tomlkit.parse(file.read_text(encoding="utf-8"))
    document["project"]["authors"] = [author]
    document["project"]["urls"] = urls
    file.write_text(tomlkit.dumps(document), encoding="utf-8")


def build(target: Path, owner: dict[str, dict[str, str]]) -> None:
    """Build all packages from copies, each into a folder of its name: what is here stays as it is."""
    with tempfile.TemporaryDirectory() as temporary:
        copy = Path(temporary)
        shutil.copytree(
            ROOT / "packages",
            copy / "packages",
            ignore=shutil.ignore_patterns("__pycache__", "node_modules", "dist", "*.egg-info"),
        )
        for folder in packages(copy):
            stamp(folder, owner)
            into = target.resolve() / folder.name
            into.mkdir(parents=True)
            if (folder / "package.json").is_file():
                # what its `prepack` runs
                subprocess.run(["npm", "install", "--silent"], cwd=folder, check=True)
                command = ["npm", "pack", f"--pack-destination={into}"]
            else:
                command = [sys.executable, "-m", "build", f"--outdir={into}"]
            subprocess.run(command, cwd=folder, check=True)


def main(arguments: list[str]) -> int:
    """Run a command; return the exit status."""
    match arguments:
        case ["owner", *file] if len(file) < 2:
            problems = missing(read_owner(*map(Path, file)))
        case ["check", *tag] if len(tag) < 2:
            versions = {folder.name: version_of(folder) for folder in packages()}
            changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
            problems = [*(missing(read_owner()) if tag else []), *differing(versions, changelog, *tag)]
        case ["build", folder, *file] if len(file) < 2:
            owner = read_owner(*map(Path, file))
            problems = missing(owner)
            if not problems:
                build(Path(folder), owner)
        case _:
            problems = [str(__doc__)]
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""What must be right before a release: who publishes, one version everywhere, metadata that is whole."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from email.message import Message
from email.parser import Parser
from pathlib import Path
from typing import Any

import pytest
import tomlkit

import lilya.websockets
import release
import ws_doctest

ROOT = Path(__file__).parent.parent
PACKAGES = release.packages()
PYTHON = [folder for folder in PACKAGES if (folder / "pyproject.toml").is_file()]
CHANGELOG = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
VERSION = lilya.websockets.__version__

FILLED = release.read_owner(ROOT / "tests" / "owner.toml")


def settings(**changes: str) -> dict[str, dict[str, str]]:
    """Settings that are filled in, with changes."""
    return {
        table: {name: changes.get(name, value) for name, value in values.items()}
        for table, values in FILLED.items()
    }


# Who publishes, and where


def test_the_settings_have_what_a_release_needs() -> None:
    owner = release.read_owner()
    assert {table: list(values) for table, values in owner.items()} == {
        table: list(values) for table, values in FILLED.items()
    }


def test_settings_that_are_filled_in() -> None:
    assert release.missing(FILLED) == []


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("name", "", "owner.toml: `name` of [author] is empty"),
        ("email", " ", "owner.toml: `email` of [author] is empty"),
        ("email", "ada", "owner.toml: `email` of [author] is no address: ada"),
        ("Documentation", "", "owner.toml: `Documentation` of [urls] is empty"),
        ("Source", "", "owner.toml: `Source` of [urls] is empty"),
        ("Changelog", "", "owner.toml: `Changelog` of [urls] is empty"),
        ("Issues", "", "owner.toml: `Issues` of [urls] is empty"),
        ("Source", "http://code.example.org/ada", "owner.toml: `Source` of [urls] is no address that begins"),
        ("Source", "https://OWNER/sockets", "owner.toml: `Source` of [urls] is no address that begins"),
    ],
)
def test_what_is_missing_is_said(name: str, value: str, said: str) -> None:
    (problem,) = release.missing(settings(**{name: value}))
    assert problem.startswith(said)


def run(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(project / "release.py"), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of what a release is made of."""
    for name in ("release.py", "owner.toml", "CHANGELOG.md"):
        shutil.copy(ROOT / name, tmp_path)
    ignored = shutil.ignore_patterns("__pycache__", "node_modules", "dist")
    shutil.copytree(ROOT / "packages", tmp_path / "packages", ignore=ignored)
    return tmp_path


def write(project: Path, owner: dict[str, dict[str, str]]) -> None:
    (project / "owner.toml").write_text(tomlkit.dumps(owner), encoding="utf-8")


def test_nothing_is_released_without_an_owner(project: Path) -> None:
    write(project, settings(email="", Issues=""))
    for command in (["owner"], ["check", f"v{VERSION}"], ["build", str(project / "built")]):
        done = run(project, *command)
        assert done.returncode == 1
        assert "`email` of [author] is empty" in done.stderr
        assert "`Issues` of [urls] is empty" in done.stderr
        assert "Traceback" not in done.stderr
    assert not (project / "built").exists()


def test_a_project_that_can_be_released(project: Path) -> None:
    assert run(project, "check").returncode == 0
    write(project, FILLED)
    changelog = project / "CHANGELOG.md"
    released = changelog.read_text(encoding="utf-8").replace("not released yet", "2026-01-31", 1)
    changelog.write_text(released, encoding="utf-8")
    for command in (["owner"], ["check"], ["check", f"v{VERSION}"]):
        done = run(project, *command)
        assert (done.returncode, done.stderr) == (0, "")


def test_a_command_that_is_none(project: Path) -> None:
    done = run(project, "publish")
    assert done.returncode == 1
    assert "python release.py check [TAG]" in done.stderr


# One version


def test_the_versions_and_the_changelog_agree() -> None:
    versions = {folder.name: release.version_of(folder) for folder in PACKAGES}
    assert {"lilya-websockets", "ws-doctest"} <= set(versions)
    assert release.differing(versions, CHANGELOG) == []
    assert lilya.websockets.__version__ == versions["lilya-websockets"]
    assert ws_doctest.__version__ == versions["ws-doctest"]


SAME = {"one": "1.2.0", "two": "1.2.0"}
RELEASED = "# Changelog\n\n## 1.2.0, 2026-01-31\n\n* New.\n\n## 1.1.0, not released yet\n"


def test_a_release() -> None:
    assert release.differing(SAME, RELEASED, "v1.2.0") == []
    assert release.differing(SAME, RELEASED) == []
    assert release.differing(SAME, RELEASED.replace("2026-01-31", "not released yet")) == []


@pytest.mark.parametrize(
    ("versions", "changelog", "tag", "said"),
    [
        ({"one": "1.2.0", "two": "1.3.0"}, RELEASED, "v1.2.0", "different versions: one 1.2.0, two 1.3.0"),
        (SAME, RELEASED, "v1.2.1", "the tag is v1.2.1, and the packages are 1.2.0: it must be v1.2.0"),
        (SAME, RELEASED, "1.2.0", "the tag is 1.2.0"),
        (SAME, RELEASED.replace("1.2.0", "1.1.9"), "v1.2.0", "begins with 1.1.9, and the packages are 1.2.0"),
        (SAME, RELEASED.replace("2026-01-31", "not released yet"), "v1.2.0", "ends with its date"),
        (SAME, RELEASED.replace("2026-01-31", "soon"), "", "ends with its date"),
        (SAME, "# Changelog\n", "v1.2.0", "has no heading"),
    ],
)
def test_planted_contradictions(versions: dict[str, str], changelog: str, tag: str, said: str) -> None:
    (problem,) = release.differing(versions, changelog, tag)
    assert said in problem


# Metadata


def incomplete(project: dict[str, Any], readme: str) -> list[str]:
    """What the metadata of a package of Python lacks."""
    problems = [
        f"no {name}"
        for name in ("description", "readme", "license", "license-files", "keywords", "classifiers")
        if not project.get(name)
    ]
    problems += [
        f"no classifier {prefix}"
        for prefix in (
            *("Development Status", "Framework", "Intended Audience", "Operating System", "Topic"),
            *("Programming Language :: Python :: 3.10", "Typing"),
        )
        if not any(
            name == prefix or name.startswith(f"{prefix} ::") for name in project.get("classifiers", ())
        )
    ]
    # On PyPI there is nothing beside the text.
    problems += [
        f"a link that leads nowhere on PyPI: {target}"
        for target in re.findall(r"\]\(([^)]*)\)", readme)
        if not target.startswith(("https://", "#"))
    ]
    return problems


@pytest.mark.parametrize("folder", PYTHON, ids=lambda folder: folder.name)
def test_the_metadata_is_whole(folder: Path) -> None:
    project: Any = tomlkit.parse((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    readme = (folder / str(project["readme"])).read_text(encoding="utf-8")
    assert incomplete(project, readme) == []
    # These are the owner's, and are written in when a release is built.
    assert not {"authors", "maintainers", "urls"} & set(project)


@pytest.mark.parametrize(
    ("change", "readme", "said"),
    [
        ({"keywords": []}, "", "no keywords"),
        ({"license": ""}, "", "no license"),
        ({"classifiers": ["Typing :: Typed"]}, "", "no classifier Topic"),
        ({}, "See [the page](docs/open.md).", "a link that leads nowhere on PyPI: docs/open.md"),
    ],
)
def test_planted_gaps_in_the_metadata(change: dict[str, Any], readme: str, said: str) -> None:
    project: Any = tomlkit.parse((PYTHON[0] / "pyproject.toml").read_text(encoding="utf-8")).unwrap()
    assert said in incomplete(project["project"] | change, readme)


def metadata(wheel_of: Path, folder: Path) -> Message:
    """The metadata of the wheel of a package, as PyPI is told it."""
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            f"from hatchling.build import prepare_metadata_for_build_wheel as p; print(p({str(folder)!r}))",
        ],
        cwd=wheel_of,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return Parser().parsestr((folder / done.stdout.split()[-1] / "METADATA").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", [folder.name for folder in PYTHON])
def test_the_owner_is_in_the_metadata(project: Path, name: str, tmp_path: Path) -> None:
    folder = project / "packages" / name
    before = metadata(folder, tmp_path)
    assert before.get_all("Project-URL") is before["Author-email"] is None
    release.stamp(folder, FILLED)
    after = metadata(folder, tmp_path)
    assert after["Version"] == VERSION
    assert after["Author-email"] == "Ada Example <ada@example.org>"
    assert after.get_all("Project-URL") == [f"{label}, {url}" for label, url in FILLED["urls"].items()]
    # Everything else is as it was.
    for message in (before, after):
        del message["Author-email"], message["Project-URL"]
    assert after.items() == before.items()
    assert after.get_payload() == before.get_payload()


def test_the_owner_of_a_package_for_npm(tmp_path: Path) -> None:
    folder = tmp_path / "packages" / "client"
    folder.mkdir(parents=True)
    (folder / "package.json").write_text('{"name": "client", "version": "1.2.0"}', encoding="utf-8")
    assert release.packages(tmp_path) == [folder]
    assert release.version_of(folder) == "1.2.0"
    release.stamp(folder, FILLED)
    assert json.loads((folder / "package.json").read_text(encoding="utf-8")) == {
        "name": "client",
        "version": "1.2.0",
        "author": "Ada Example <ada@example.org>",
        "homepage": "https://ada.example.org/sockets/",
        "bugs": {"url": "https://code.example.org/ada/sockets/issues"},
        "repository": {
            "type": "git",
            "url": "git+https://code.example.org/ada/sockets.git",
            "directory": "packages/client",
        },
    }

"""The workflows of GitHub: what they run is fixed by commit, and only what runs no code of ours may write."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

import release

ROOT = Path(__file__).parent.parent
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.y*ml"))

# An action by its commit, and behind it the release that this commit is.
PINNED = re.compile(r"[\w.-]+/[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+")
# What a job that may write may do: it takes an artifact, and runs nothing of the repository.
DEPLOYS = (
    "actions/deploy-pages",
    "actions/download-artifact",
    "actions/setup-node",
    "npm publish --ignore-scripts --provenance --access public ./dist/*/*.tgz",
    "pypa/gh-action-pypi-publish",
)


def problems(text: str) -> list[str]:
    """What is wrong with a workflow."""
    found = []
    for line in text.splitlines():
        uses = re.match(r"\s*(?:- )?uses:\s*(.*)", line)
        own = uses and uses[1].startswith("./") and is_own(ROOT / uses[1].strip())
        if uses and not own and not PINNED.fullmatch(uses[1].strip()):
            found.append(f"not pinned by a commit, with its release: {uses[1]}")
    workflow = yaml.safe_load(text)
    triggers = workflow[True]  # YAML 1.1 reads `on` as a boolean
    if "pull_request_target" in triggers or "workflow_run" in triggers:
        found.append("runs with the repository's rights what others have sent")
    if writes(workflow.get("permissions", "write-all")):
        found.append("every job may write")
    for name, job in workflow["jobs"].items():
        # A job that is another workflow of ours has the steps and the time limits of that one.
        steps: list[dict[str, Any]] = job.get("steps", [])
        found += [
            f"{name}: the token stays in the checkout"
            for step in steps
            if step.get("uses", "").startswith("actions/checkout@")
            and step.get("with", {}).get("persist-credentials") is not False
        ]
        if writes(job.get("permissions", {})) and not all(
            step.get("uses", step.get("run", "")).partition("@")[0] in DEPLOYS for step in steps or [{}]
        ):
            found.append(f"{name}: may write, and runs more than a deployment")
        if "timeout-minutes" not in job and "uses" not in job:
            found.append(f"{name}: has no time limit")
    return found


def is_own(place: Path) -> bool:
    """Whether a place in this repository is an action or a workflow."""
    return (place / "action.yml").is_file() or place in WORKFLOWS


def writes(permissions: Any) -> bool:
    """Whether some permission is more than reading."""
    if isinstance(permissions, str):
        return permissions != "read-all"
    return any(access not in ("read", "none") for access in permissions.values())


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.name)
def test_a_workflow(file: Path) -> None:
    assert problems(file.read_text(encoding="utf-8")) == []


def test_there_are_workflows() -> None:
    assert [file.name for file in WORKFLOWS] == ["docs.yml", "release.yml", "tests.yml"]


def unpublished(text: str, packages: list[Path]) -> list[str]:
    """What a release does not do for each package: build it once, publish it without a token, attest it."""
    jobs = yaml.safe_load(text)["jobs"]
    build, pypi, npm = jobs["build"], jobs["pypi"], jobs["npm"]
    found = []
    python = sorted(folder.name for folder in packages if (folder / "pyproject.toml").is_file())
    if pypi["strategy"]["matrix"]["package"] != python:
        found.append(f"pypi: publishes other packages than {', '.join(python)}")
    found += [
        f"{name}: has no identity that PyPI or npm could trust"
        for name, job in (("pypi", pypi), ("npm", npm))
        if job.get("permissions") != {"id-token": "write"} or job.get("environment", {}).get("name") != name
    ]
    found += [
        f"{name}: does not wait for {before}"
        for name, before in (("build", "tests"), ("pypi", "build"), ("npm", "build"))
        if jobs[name].get("needs") != before
    ]
    if not any("-s release" in step.get("run", "") for step in build["steps"]):
        found.append("build: does not check what is released")
    if pypi["steps"][-1]["with"].get("attestations") is not True:
        found.append("pypi: makes no attestations")
    if re.search(r"secrets\.|password|token:(?! write)", text, re.IGNORECASE):
        found.append("there is a token")
    return found


def unused(texts: list[str]) -> list[str]:
    """What this repository offers to others and does not use in a workflow of its own."""
    offered = {
        "the action": "uses: ./.github/actions/ws-doctest",
        "the hook": "pre_commit try-repo . ws-doctest",
    }
    return [name for name, used in offered.items() if not any(used in text for text in texts)]


def test_the_action_and_the_hook_are_used_here() -> None:
    texts = [file.read_text(encoding="utf-8") for file in WORKFLOWS]
    assert unused(texts) == []
    for name, word in (("the action", "actions/ws-doctest"), ("the hook", "try-repo")):
        assert unused([text.replace(word, "other") for text in texts]) == [name]


def test_every_package_is_published() -> None:
    text = (ROOT / ".github" / "workflows" / "release.yml").read_text(encoding="utf-8")
    assert unpublished(text, release.packages()) == []


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("[lilya-websockets, ws-doctest]", "[lilya-websockets]", "pypi: publishes other packages"),
        ("      id-token: write", "      contents: read", "pypi: has no identity"),
        ("      name: npm\n", "      name: pypi\n", "npm: has no identity"),
        ("    needs: tests\n", "", "build: does not wait for tests"),
        ("attestations: true", "attestations: false", "pypi: makes no attestations"),
        ("attestations: true", "attestations: true\n          password: x", "there is a token"),
        ("-s release -- ", "-s docs -- ", "build: does not check"),
    ],
)
def test_planted_faults_in_a_release(old: str, new: str, said: str) -> None:
    text = (ROOT / ".github" / "workflows" / "release.yml").read_text(encoding="utf-8")
    assert old in text
    (problem,) = unpublished(text.replace(old, new, 1), release.packages())
    assert said in problem


def test_the_same_action_is_the_same_commit_everywhere() -> None:
    pins = {pin for file in WORKFLOWS for pin in PINNED.findall(file.read_text(encoding="utf-8"))}
    assert len({pin.partition("@")[0] for pin in pins}) == len(pins)


CHECKOUT = "@fbc6f3992d24b796d5a048ff273f7fcc4a7b6c09 # v5.1.0"


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        ("tests.yml", CHECKOUT, "@v5", "not pinned"),
        ("tests.yml", CHECKOUT, CHECKOUT.replace("fbc6f3992d24b796", "fbc6"), "not pinned"),
        ("tests.yml", " # v5.1.0", "", "not pinned"),
        ("tests.yml", "persist-credentials: false", "fetch-depth: 1", "tests: the token stays"),
        ("docs.yml", "persist-credentials: false", "persist-credentials: true", "build: the token stays"),
        ("tests.yml", "permissions:\n  contents: read\n", "", "every job may write"),
        ("tests.yml", "contents: read", "contents: write", "every job may write"),
        ("docs.yml", "permissions: {}", "permissions: write-all", "every job may write"),
        ("docs.yml", "contents: read", "pages: write", "build: may write"),
        ("docs.yml", "      - id: deployment", "      - run: make\n      - id: x", "deploy: may write"),
        ("tests.yml", "  pull_request:", "  pull_request_target:", "what others have sent"),
        ("docs.yml", "    timeout-minutes: 10\n", "", "deploy: has no time limit"),
        ("release.yml", "--ignore-scripts ", "", "npm: may write"),
        ("release.yml", "./.github/workflows/tests.yml", "./.github/workflows/test.yml", "not pinned"),
        ("release.yml", "      contents: read", "      contents: write", "tests: may write"),
    ],
)
def test_planted_faults(file: str, old: str, new: str, said: str) -> None:
    text = next(each for each in WORKFLOWS if each.name == file).read_text(encoding="utf-8")
    assert old in text
    (problem,) = problems(text.replace(old, new, 1))
    assert said in problem

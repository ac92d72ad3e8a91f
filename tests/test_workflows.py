"""The workflows of GitHub: what they run is fixed by commit, and only what runs no code of ours may write."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parent.parent
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.y*ml"))

# An action by its commit, and behind it the release that this commit is.
PINNED = re.compile(r"[\w.-]+/[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+")
# What a job that may write may use: it takes an artifact, and runs nothing of the repository.
DEPLOYS = ("actions/deploy-pages",)


def problems(text: str) -> list[str]:
    """What is wrong with a workflow."""
    found = []
    for line in text.splitlines():
        uses = re.match(r"\s*(?:- )?uses:\s*(.*)", line)
        own = uses and uses[1].startswith("./") and (ROOT / uses[1].strip() / "action.yml").is_file()
        if uses and not own and not PINNED.fullmatch(uses[1].strip()):
            found.append(f"not pinned by a commit, with its release: {uses[1]}")
    workflow = yaml.safe_load(text)
    triggers = workflow[True]  # YAML 1.1 reads `on` as a boolean
    if "pull_request_target" in triggers or "workflow_run" in triggers:
        found.append("runs with the repository's rights what others have sent")
    if writes(workflow.get("permissions", "write-all")):
        found.append("every job may write")
    for name, job in workflow["jobs"].items():
        steps: list[dict[str, Any]] = job["steps"]
        found += [
            f"{name}: the token stays in the checkout"
            for step in steps
            if step.get("uses", "").startswith("actions/checkout@")
            and step.get("with", {}).get("persist-credentials") is not False
        ]
        if writes(job.get("permissions", {})) and not all(
            step.get("uses", "").partition("@")[0] in DEPLOYS for step in steps
        ):
            found.append(f"{name}: may write, and runs more than a deployment")
        if "timeout-minutes" not in job:
            found.append(f"{name}: has no time limit")
    return found


def writes(permissions: Any) -> bool:
    """Whether some permission is more than reading."""
    if isinstance(permissions, str):
        return permissions != "read-all"
    return any(access not in ("read", "none") for access in permissions.values())


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.name)
def test_a_workflow(file: Path) -> None:
    assert problems(file.read_text(encoding="utf-8")) == []


def test_there_are_workflows() -> None:
    assert [file.name for file in WORKFLOWS] == ["docs.yml", "tests.yml"]


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
    ],
)
def test_planted_faults(file: str, old: str, new: str, said: str) -> None:
    text = next(each for each in WORKFLOWS if each.name == file).read_text(encoding="utf-8")
    assert old in text
    (problem,) = problems(text.replace(old, new, 1))
    assert said in problem

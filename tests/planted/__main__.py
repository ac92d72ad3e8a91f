"""Plant faults in a copy of this repository, and count how many the checks of the docs notice.

    python -m tests.planted behaviours
    python -m tests.planted faults
    python -m tests.planted faults "the limit of a reason"

A change of behaviour is planted alone, and `pytest docs` alone has to notice it. Faults in what is written
are planted together, one in a file. `pytest --ws-pages` (the docs and the READMEs) or `pytest tests/docs` has
to notice each, with page and line. The exit status is 1 if too few are noticed.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from tests.docs.places import PLACE
from tests.planted.behaviours import BEHAVIOURS, MORE_BEHAVIOURS
from tests.planted.faults import FAULTS
from tests.planted.planting import ROOT, Fault, copy

LIMIT = 900.0  # seconds for one run of pytest
TOGETHER = 12  # faults at a time
NEAR = 40  # lines between a fault and what is said about it: it may be the table or the snippet
# Of thirty changes of behaviour, 28; of ten faults, nine.
LEAST = {"behaviours": 28 / 30, "more": 9 / 10, "faults": 9 / 10}
# What is noticed without a server is noticed sooner, and on the pages that are about the class soonest.
SOON = ["docs/websockets.md", "docs/guides/open.md", "docs/concepts/errors.md", "docs"]
SOON += ["-k", "memory or snippet or page or signature"]


def run(root: Path, *arguments: str) -> tuple[int, str]:
    """Run pytest on a copy; return its exit status, and what it printed."""
    sources = [root / "packages" / package / "src" for package in ("lilya-websockets", "ws-doctest")]
    # The copy's packages, and not those that are installed editable. With CI, the summary is not cut.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, sources)), "CI": "1"}
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *arguments, "-q", "-p", "no:cacheprovider", "--no-header"],
            cwd=root,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=LIMIT,
        )
    except subprocess.TimeoutExpired:
        return 1, f"it took longer than {LIMIT:g} s"
    return done.returncode, done.stdout


def failures(output: str) -> list[str]:
    """Each failure of a run, with all that is said about it."""
    each = []
    for section in re.split(r"(?m)^=+ (?:FAILURES|ERRORS) =+$", output)[1:]:
        # What follows the last one is about all of them.
        section = re.split(r"(?m)^(?:=+ .+ =+|-+ ws-doctest -+)$", section)[0]
        each += re.split(r"(?m)^_{3,} .+ _{3,}$", section)[1:]
    return each or [output]


def place_of(failure: str) -> str:
    """The first place that a failure names; empty if it names none."""
    found = PLACE.search(failure)
    return found[0] if found else ""


def is_about(failure: str, fault: Fault, clean: Path = ROOT) -> bool:
    """Whether a failure is about a fault, of several that were planted."""
    failure = re.sub(r"shown on [\w./:, -]+", "", failure)
    for plant in fault.plants:
        path = PurePosixPath(plant.file)
        if plant.file.startswith("docs_src/"):
            # Of an example it is the transcript that differs.
            if f"{path.parent}/{path.name.partition('.')[0]}." in failure:
                return True
            continue
        lines = [int(line) for line in re.findall(rf"(?<![\w/.-]){re.escape(plant.file)}:(\d+)", failure)]
        if any(abs(line - plant.line(clean)) <= NEAR for line in lines):
            return True
    return fault.alone


def behaviours(faults: list[Fault], clean: Path, folder: Path) -> Iterator[tuple[Fault, str, str]]:
    """Plant one after the other; yield each, what has noticed it, and the place."""
    for fault in faults:
        root = planted([fault], clean, folder)
        for arguments in (SOON, ["docs"]):
            status, output = run(root, *arguments, "-x")
            if status:
                break
        keep(folder, fault.name, output)
        yield fault, "pytest docs" if status else "", place_of(failures(output)[0]) if status else ""


def written(faults: list[Fault], clean: Path, folder: Path) -> Iterator[tuple[Fault, str, str]]:
    """Plant several together; yield each, what has noticed it, and the place."""
    for batch in batches(faults):
        root = planted(batch, clean, folder)
        left = list(batch)
        for name, arguments in (("--ws-pages", ["--ws-pages"]), ("tests/docs", ["tests/docs", "-n", "2"])):
            if not left:
                break
            status, output = run(root, *arguments)
            keep(folder, f"{batch[0].name} {name.partition('/')[0]}", output)
            for fault in list(left):
                about = (
                    [failure for failure in failures(output) if is_about(failure, fault, clean)]
                    if status
                    else []
                )
                if about:
                    left.remove(fault)
                    yield fault, f"pytest {name}", next(filter(None, map(place_of, about)), "")
        for fault in left:
            yield fault, "", ""


def batches(faults: Iterable[Fault]) -> list[list[Fault]]:
    """Put faults of different files together."""
    made: list[list[Fault]] = []
    for fault in faults:
        for batch in made:
            files = set().union(*(other.files for other in batch))
            crowded = len(batch) >= TOGETHER or fault.alone or batch[0].alone
            if not crowded and not files & fault.files:
                batch.append(fault)
                break
        else:
            made.append([fault])
    return sorted(made, key=lambda batch: batch[0].alone)


def planted(faults: list[Fault], clean: Path, folder: Path) -> Path:
    """Return a copy of the repository with faults in it."""
    root = folder / "planted"
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(clean, root)
    for fault in faults:
        fault.plant(root)
    return root


def keep(folder: Path, name: str, output: str) -> None:
    """Keep what a run has printed."""
    (folder / f"{re.sub(r'[^a-z]+', '-', name)}.txt").write_text(output, encoding="utf-8")


def main() -> int:
    """Count, and say what is not noticed."""
    parser = argparse.ArgumentParser(prog="python -m tests.planted")
    lists = {"behaviours": BEHAVIOURS, "more": MORE_BEHAVIOURS, "faults": FAULTS}
    parser.add_argument("list", choices=lists)
    parser.add_argument("name", nargs="*", help="of faults; default: all of them")
    parser.add_argument("--keep", type=Path, help="a folder for what the checks print")
    options = parser.parse_args()
    faults = [fault for fault in lists[options.list] if not options.name or fault.name in options.name]
    count = written if options.list == "faults" else behaviours
    missed, nowhere = [], []
    with tempfile.TemporaryDirectory(prefix="planted-") as name:
        folder = options.keep or Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        for fault, by, place in count(faults, copy(Path(name) / "clean"), folder):
            missed += [] if by else [fault.name]
            nowhere += [fault.name] if by and not place else []
            sys.stdout.write(f"{fault.kind}: {fault.name}: {by or 'NOT NOTICED'} {place}\n")
            sys.stdout.flush()
    noticed = len(faults) - len(missed)
    sys.stdout.write(f"{noticed} of {len(faults)} noticed; not noticed: {', '.join(missed) or 'none'}\n")
    if options.list == "faults":
        sys.stdout.write(f"without page and line: {', '.join(nowhere) or 'none'}\n")
    few = noticed < LEAST[options.list] * len(faults)
    return int(few or (options.list == "faults" and bool(nowhere)))


if __name__ == "__main__":
    sys.exit(main())

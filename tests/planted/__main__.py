"""Plant faults in a copy of this repository, one at a time, and count how many the checks of the docs notice.

    python -m tests.planted behaviours
    python -m tests.planted faults
    python -m tests.planted faults "the limit of a reason"
    python -m tests.planted faults --results faults.jsonl     # goes on where it was interrupted

`pytest docs` alone has to notice a change of behaviour. `pytest --ws-pages` (the docs and the READMEs) or
`pytest tests/docs` has to notice a fault in what is written, with page and line. The checks that are most
likely to notice run first. The exit status is 1 if too few faults are noticed.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.docs.places import PLACE
from tests.planted.behaviours import BEHAVIOURS, MORE_BEHAVIOURS
from tests.planted.faults import FAULTS
from tests.planted.planting import ROOT, Fault, NotPlantable, copy, find

LIMIT = 900.0  # seconds for one run of pytest
NEAR = 40  # lines between a fault and what is said about it: it may be the table or the snippet
# Of thirty changes of behaviour, 28; of ten faults, nine.
LEAST = {"behaviours": 28 / 30, "more": 28 / 30, "faults": 9 / 10}
# What needs no server runs sooner, and the pages that are about the class soonest.
SOON = [*map(find, ["docs/websockets.md", "docs/open.md", "docs/errors.md"]), "docs"]
SOON += ["-k", "memory or snippet or page or signature", "-x"]


@dataclass(frozen=True)
class Result:
    """What became of a fault.

    Args:
        list: The list that it is on.
        kind: What it is a fault of.
        name: Its name.
        by: The arguments of pytest that noticed it; empty if nothing did.
        place: The page and line that the failure names; empty if it names none of this fault.
        problem: Why it could not be planted.
        seconds: How long it took.
    """

    list: str
    kind: str
    name: str
    by: str = ""
    place: str = ""
    problem: str = ""
    seconds: float = 0.0

    def __str__(self) -> str:
        if self.problem:
            return f"{self.kind}: {self.name}: NOT PLANTED: {self.problem}"
        if not self.by:
            return f"{self.kind}: {self.name}: NOT NOTICED ({self.seconds:.0f} s)"
        return (
            f"{self.kind}: {self.name}: {self.place or 'NO PLACE'}: pytest {self.by} ({self.seconds:.0f} s)"
        )


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


def places_of(output: str) -> list[str]:
    """The places that the failures of a run name, in order."""
    return [found[0] for failure in failures(output) for found in PLACE.finditer(failure)]


def place_of(output: str, fault: Fault, clean: Path = ROOT) -> str:
    """The first place that is one of this fault; empty if none is."""
    for place in places_of(output):
        file, _, line = place.rpartition(":")
        for plant in fault.plants:
            # Of an example it is the transcript that differs.
            if plant.file.startswith("docs_src/") and file.startswith(plant.file.partition(".")[0] + "."):
                return place
            if file == plant.file and abs(int(line) - plant.line(clean)) <= NEAR:
                return place
    return ""


def stages(fault: Fault, clean: Path) -> Iterator[list[str]]:
    """Yield the arguments of pytest that may notice a fault in what is written, the quickest first."""
    pages = [path for path in pages_of(clean) if shows(clean / path, fault)]
    if pages:
        yield pages
    names = {Path(file).name for file in fault.files} | {Path(page).name for page in pages}
    tests = sorted((clean / "tests/docs").glob("test_*.py"))
    about = [path for path in tests if any(name in path.read_text(encoding="utf-8") for name in names)]
    yield ["tests/docs/test_scope.py", *(f"tests/docs/{path.name}" for path in about), "-x"]
    yield ["--ws-pages", "-x"]
    yield ["tests/docs", "-x", "-n", "2"]


def pages_of(root: Path) -> list[str]:
    """The pages that the gate checks."""
    found = [*root.glob("docs/**/*.md"), *root.glob("*.md"), *root.glob("packages/*/README.md")]
    return sorted(path.relative_to(root).as_posix() for path in found)


def shows(page: Path, fault: Fault) -> bool:
    """Whether a page is changed, or shows a file that is."""
    if any(page.as_posix().endswith("/" + file) for file in fault.files):
        return True
    shown = [file.partition(".")[0] + "." for file in fault.files if file.startswith("docs_src/")]
    return any(name in page.read_text(encoding="utf-8") for name in shown)


def try_one(kind: str, fault: Fault, clean: Path, root: Path, folder: Path) -> Result:
    """Plant a fault in a copy, see what notices it, and take it out again."""
    began = time.monotonic()
    by, place = "", ""
    try:
        fault.plant(root)
        runs = stages(fault, clean) if kind == "faults" else iter([SOON, ["docs", "-x"]])
        for number, arguments in enumerate(runs):
            status, output = run(root, *arguments)
            name = re.sub(r"[^a-z0-9]+", "-", fault.name.lower())
            (folder / f"{name}.{number}.txt").write_text(output, encoding="utf-8")
            if not status:
                continue
            found = place_of(output, fault, clean) if kind == "faults" else (places_of(output) or [""])[0]
            if not by or found:
                by, place = " ".join(arguments), found
            if kind != "faults" or place:
                break  # else somebody may say better where it is
    except NotPlantable as error:
        return Result(kind, fault.kind, fault.name, problem=str(error))
    finally:
        for file in fault.files:
            (root / file).unlink(missing_ok=True)
            if (clean / file).is_file():
                shutil.copy2(clean / file, root / file)
    return Result(kind, fault.kind, fault.name, by, place, seconds=time.monotonic() - began)


def not_clean(kind: str, root: Path) -> str:
    """What fails although nothing is planted; then nothing that fails later would say anything."""
    whole = [["--ws-pages"], ["tests/docs", "-n", "2"]] if kind == "faults" else [["docs"]]
    for arguments in whole:
        status, output = run(root, *arguments)
        if status:
            return output
    return ""


def results_in(path: Path | None) -> list[Result]:
    """What an earlier run has found."""
    if path is None or not path.is_file():
        return []
    return [Result(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]


def summary(kind: str, results: list[Result]) -> tuple[str, bool]:
    """Count, and say what is not noticed; and whether that is enough."""
    noticed = [each for each in results if each.by]
    nowhere = [each.name for each in noticed if not each.place]
    missed = [each.name for each in results if not each.by and not each.problem]
    not_planted = [each.name for each in results if each.problem]
    lines = [f"{len(noticed)} of {len(results)} noticed"]
    lines += [
        f"{title}: {', '.join(names)}"
        for title, names in (
            ("not noticed", missed),
            ("could not be planted", not_planted),
            ("noticed without page and line", nowhere),
        )
        if names
    ]
    enough = len(noticed) - (len(nowhere) if kind == "faults" else 0) >= LEAST[kind] * len(results)
    return "\n".join(lines), enough


def main() -> int:
    """Count, and say what is not noticed."""
    parser = argparse.ArgumentParser(prog="python -m tests.planted")
    lists = {"behaviours": BEHAVIOURS, "more": MORE_BEHAVIOURS, "faults": FAULTS}
    parser.add_argument("list", choices=lists)
    parser.add_argument("name", nargs="*", help="of faults; default: all of them")
    parser.add_argument("--keep", type=Path, help="a folder for what the checks print")
    parser.add_argument("--results", type=Path, help="a file of results; what it has is not tried again")
    options = parser.parse_args()
    faults = [fault for fault in lists[options.list] if not options.name or fault.name in options.name]
    known = {} if options.name else {(each.list, each.name): each for each in results_in(options.results)}
    results = []
    with tempfile.TemporaryDirectory(prefix="planted-") as name:
        folder = options.keep or Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        clean = copy(Path(name) / "clean")
        root = Path(name) / "planted"
        shutil.copytree(clean, root)
        left = [fault for fault in faults if (options.list, fault.name) not in known]
        if left and not options.name and (output := not_clean(options.list, root)):
            sys.stdout.write(f"{output}\nnothing is planted yet, and the checks fail\n")
            return 2
        for fault in faults:
            result = known.get((options.list, fault.name))
            if result is None:
                result = try_one(options.list, fault, clean, root, folder)
                if options.results:
                    with options.results.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(asdict(result)) + "\n")
            results.append(result)
            sys.stdout.write(f"{result}\n")
            sys.stdout.flush()
    text, enough = summary(options.list, results)
    sys.stdout.write(f"{text}\n")
    return int(not enough)


if __name__ == "__main__":
    sys.exit(main())

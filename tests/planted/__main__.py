"""Plant faults in a copy of this repository, and count how many the checks of the docs notice.

    python -m tests.planted behaviours
    python -m tests.planted faults
    python -m tests.planted faults "the limit of a reason"
    python -m tests.planted faults --results faults.jsonl     # goes on where it was interrupted

`pytest docs` alone has to notice a change of behaviour. `pytest --ws-pages` (the docs and the READMEs) or
`pytest tests/docs` has to notice a fault in what is written, with page and line. Such faults are planted
together first, far from one another: a failure that names the place of one has noticed it. What nobody has
noticed, and each change of behaviour, is planted alone; the checks that are most likely to notice run first.
The exit status is 1 if too few faults are noticed.
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
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.docs.places import PLACE
from tests.planted.behaviours import BEHAVIOURS, MORE_BEHAVIOURS
from tests.planted.faults import FAULTS
from tests.planted.planting import ROOT, Fault, NotPlantable, Plant, copy, find

LIMIT = 900.0  # seconds for one run of pytest
# Tests of what runs, in browsers and behind proxies: they take long, and say little of what is written.
RUNNING = [f"test_{name}.py" for name in ("asyncapi_browser", "broadcast", "chat", "deploying", "layout")]
NEAR = 40  # lines between a fault and what is said about it: it may be the table or the snippet
# Of thirty changes of behaviour, 28; of ten faults, nine.
LEAST = {"behaviours": 28 / 30, "more": 28 / 30, "faults": 9 / 10}
# What needs no server runs sooner, and the pages that are about the class soonest.
FIRST = [*map(find, ["docs/websockets.md", "docs/guides/open.md", "docs/concepts/errors.md"])]
IN_MEMORY = ["-k", "memory or snippet or page or signature", "-x"]
OF_BEHAVIOUR = [[*FIRST, *IN_MEMORY], ["docs", *IN_MEMORY], ["docs", "-x"]]


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
            # Of an example it is the transcript that differs, or what its page says of it.
            of_example = (f"{plant.file.partition('.')[0]}.", f"docs{plant.file[8:].rpartition('/')[0]}.md")
            if plant.file.startswith("docs_src/") and file.startswith(of_example):
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
    tests = [path for path in sorted((clean / "tests/docs").glob("test_*.py")) if path.name not in RUNNING]
    about = [path for path in tests if any(name in path.read_text(encoding="utf-8") for name in names)]
    yield [*dict.fromkeys(["tests/docs/test_scope.py", *(f"tests/docs/{path.name}" for path in about)]), "-x"]
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


@dataclass
class Copy:
    """A copy of this repository, in which faults are planted and taken out again.

    Args:
        clean: Another copy, in which nothing is planted.
        root: The copy.
        folder: For what the checks print.
    """

    clean: Path
    root: Path
    folder: Path

    @contextmanager
    def planted(self, faults: Iterable[Fault]) -> Iterator[None]:
        """Plant faults, and take them out again."""
        faults = list(faults)
        try:
            for fault in faults:
                fault.plant(self.root)
            yield
        finally:
            for file in set().union(*(fault.files for fault in faults)):
                (self.root / file).unlink(missing_ok=True)
                if (self.clean / file).is_file():
                    shutil.copy2(self.clean / file, self.root / file)

    def run(self, name: str, *arguments: str) -> tuple[int, str]:
        """Run pytest, and keep what it prints."""
        status, output = run(self.root, *arguments)
        name = re.sub(r"[^a-z0-9]+", "-", name.lower())
        (self.folder / f"{name}.txt").write_text(output, encoding="utf-8")
        return status, output


def cannot_be_planted(fault: Fault, clean: Path) -> str:
    """Why a fault cannot be planted; empty if it can."""
    try:
        for plant in fault.plants:
            plant.line(clean)
    except NotPlantable as error:
        return str(error)
    return ""


def try_alone(kind: str, fault: Fault, copy: Copy) -> Result:
    """Plant one fault, and see what notices it."""
    began = time.monotonic()
    by, place = "", ""
    with copy.planted([fault]):
        runs = stages(fault, copy.clean) if kind == "faults" else iter(OF_BEHAVIOUR)
        for number, arguments in enumerate(runs):
            status, output = copy.run(f"{fault.name} {number}", *arguments)
            if not status:
                continue
            found = (
                place_of(output, fault, copy.clean) if kind == "faults" else (places_of(output) or [""])[0]
            )
            if not by or found:
                by, place = " ".join(arguments), found
            if kind != "faults" or place:
                break  # else somebody may say better where it is
    return Result(kind, fault.kind, fault.name, by, place, seconds=time.monotonic() - began)


def try_together(faults: list[Fault], copy: Copy) -> Iterator[Result]:
    """Plant several faults; yield those that are noticed, each by a failure that says where it is."""
    left = list(faults)
    with copy.planted(faults):
        for arguments in ["--ws-pages"], ["tests/docs", *(f"--ignore=tests/docs/{name}" for name in RUNNING)]:
            began = time.monotonic()
            _, output = copy.run(f"together {faults[0].name} {arguments[0]}", *arguments)
            seconds = (time.monotonic() - began) / len(faults)
            for fault in list(left):
                place = place_of(output, fault, copy.clean)
                if place:
                    left.remove(fault)
                    yield Result("faults", fault.kind, fault.name, arguments[0], place, seconds=seconds)


def batches(faults: Iterable[Fault], clean: Path = ROOT) -> list[list[Fault]]:
    """Put faults together of which each failure is about one."""
    made: list[list[Fault]] = []
    for fault in faults:
        for batch in made:
            if not any(
                _are_close(plant, other, clean)
                for plant in fault.plants
                for each in batch
                for other in each.plants
            ):
                batch.append(fault)
                break
        else:
            made.append([fault])
    return made


def _are_close(one: Plant, other: Plant, clean: Path) -> bool:
    if one.file.partition(".")[0] != other.file.partition(".")[0]:
        return False
    return one.file.startswith("docs_src/") or abs(one.line(clean) - other.line(clean)) <= 2 * NEAR


def not_clean(kind: str, root: Path) -> str:
    """What fails although nothing is planted; then nothing that fails later would say anything."""
    whole = [["--ws-pages"], ["tests/docs", *(f"--ignore=tests/docs/{name}" for name in RUNNING)]]
    whole = whole if kind == "faults" else [["docs"]]
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
    results: list[Result] = []

    def note(result: Result) -> None:
        results.append(result)
        sys.stdout.write(f"{result}\n")
        sys.stdout.flush()
        if options.results and (options.list, result.name) not in known:
            with options.results.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(result)) + "\n")

    with tempfile.TemporaryDirectory(prefix="planted-") as name:
        folder = options.keep or Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        there = Copy(copy(Path(name) / "clean"), Path(name) / "planted", folder)
        shutil.copytree(there.clean, there.root)
        left = []
        for fault in faults:
            problem = cannot_be_planted(fault, there.clean)
            if (options.list, fault.name) in known:
                note(known[options.list, fault.name])
            elif problem:
                note(Result(options.list, fault.kind, fault.name, problem=problem))
            else:
                left.append(fault)
        if left and not options.name:
            begun = any(name == options.list for name, _ in known)  # then it was clean
            if not begun and (output := not_clean(options.list, there.root)):
                sys.stdout.write(f"{output}\nnothing is planted yet, and the checks fail\n")
                return 2
            if options.list == "faults":
                for batch in batches([fault for fault in left if not fault.alone], there.clean):
                    for result in try_together(batch, there):
                        note(result)
        done = {each.name for each in results}
        for fault in left:
            if fault.name not in done:
                note(try_alone(options.list, fault, there))
    text, enough = summary(options.list, results)
    sys.stdout.write(f"{text}\n")
    return int(not enough)


if __name__ == "__main__":
    sys.exit(main())

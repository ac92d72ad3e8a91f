"""The package of the client: its own tests, its types, its size, and what is published."""

from __future__ import annotations

import gzip
import inspect
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import lilya.websockets
from lilya.websockets.channels import serve
from tests.client.conftest import LIMIT, PACKAGE

if "CLIENT_TOOLS" not in os.environ:
    pytest.skip("the packages of npm are not here: nox -s client", allow_module_level=True)

ROOT = PACKAGE.parents[1]
HERE = Path(__file__).parent
MODULE = (PACKAGE / "lilya-websockets.js").read_text(encoding="utf-8")
TYPES = (PACKAGE / "lilya-websockets.d.ts").read_text(encoding="utf-8")
PAGE = ROOT / "docs" / "project" / "browser-client.md"
LARGEST = 6 * 1024  # bytes of the small module, compressed
OTHERS = ("phoenix", "socket.io-client", "centrifuge")


def own_tests(folder: Path) -> subprocess.CompletedProcess[str]:
    """What `npm test` runs."""
    return subprocess.run(
        ["node", "--test", "test/"], cwd=folder, capture_output=True, text=True, timeout=LIMIT, check=False
    )


def test_its_own_tests() -> None:
    done = own_tests(PACKAGE)
    assert done.returncode == 0, done.stdout
    passed = re.search(r"^# pass (\d+)$", done.stdout, re.MULTILINE)
    assert passed
    assert int(passed[1]) > 80


FAULTS = [
    ("firstWait * 2 ** number", "firstWait"),
    ("(0.5 + Math.random() / 2)", "1"),
    ("code === BUSY ? settings.busyWait : 0", "0"),
    ("FINAL = new Set([1000, 1002", "FINAL = new Set([1002"),
    (" && code !== REQUEST_TIMEOUT", ""),
    ("again = settings.retry?.(failure);", ""),
    ("    queueMicrotask(() => { // and the table decides", "    finish(failure); (() => {"),
    ('if (state === "closed") return; // by `retry`', ""),
    ('if (state === "closed") return; // by a listener', ""),
    ("settings[name] ?? usual", "settings[name]"),
    ("value >= least && value <= most &&", ""),
    (' && typeof value === "number") return', ") return"),
    ("[30_000, 1, LONGEST]", "[30_000, 1, Infinity]"),
    ("firstWait: [500, 1,", "firstWait: [500, 0,"),
    ('number("The option timeout", timeout, 1, LONGEST);', ""),
    ('if (typeof again === "object" && again)', "if (false)"),
    ("again = undefined;\n        throw", "throw"),
    ("if (!isText(key, 128))", 'if (typeof key !== "string")'),
    ("if (!isText(name, 1024))", 'if (typeof name !== "string")'),
    ("[...value].length <= most", "value.length <= most"),
    (" || bytes + size > WINDOW_BYTES", ""),
    ("promise && flying.size && (", "promise && ("),
    ("bytes -= entry.size;", ""),
    ("        bytes = 0;\n", ""),
    ("if (entry) tooLarge(entry);\n      else emit", "emit"),
    ("      else emit(", "      emit("),
    ("if (largest) tooLarge(largest);", ""),
    ("    outbox.stop();\n    if (largest)", "    if (largest)"),
    ("other.size - one.size", "one.size - other.size"),
    ("size === undefined || entry.size === size", "true"),
    (
        "} catch (error) { // a reference cycle, or a `BigInt`\n      return Promise.reject(error);",
        "} catch (error) {\n      throw error;",
    ),
    ("if (leaving.has(name)) return; // else", "//"),
    ("} else if (!leaving.has(channel)) {", "} else if (true) {"),
    ("} else if (!leaving.has(entry.channel)) {", "} else {"),
    (" && !leaving.has(channel)) outbox.send(entry);", ") outbox.send(entry);"),
    ("if (!leaving.has(channel)) rooms", "rooms"),
    ("    leaving.clear();", ""),
    ("if (performance.now() - openedAt > lastWait) attempts = 0;", ""),
    ("if (performance.now() - openedAt > lastWait) attempts", "attempts"),
    ("if (turn !== turns) return;", ""),
    ("mine.onmessage = ({ data }) => mine === socket && ", "mine.onmessage = ({ data }) => "),
    ("mine.onclose = ({ code, reason }) => mine === socket && ", "mine.onclose = ({ code, reason }) => "),
    ("if (old.terminate) old.terminate();\n      else old.close();", "old.close();"),
    ("since: position ?? undefined, ", ""),
    ("history: position ? undefined : history", "history"),
    ("position = id;", ""),
    ("position ??= message.position;", ""),
    (": known) return;", ": false) return;"),
    ("next.epoch === newest.epoch && ", ""),
    ('(type === "gap" ? id === gap : known)', "(known)"),
    ("id === gap : known", "false : known"),
    ('} else if (where !== "joined") {', "} else if (false) {"),
    ('(where === "joined" || code)', 'where === "joined"'),
    ("if (request.sentAt === undefined) continue;", ""),
    ("if (map.size >= settings.maxQueued)", "if (false)"),
    ("if (size > settings.maxSize)", "if (false)"),
    ("flying.size >= WINDOW ||", ""),
    ("waiting = waiting.filter(({ channel }) => !channel);", ""),
    ("performance.now() - entry.sentAt > KEPT || ", ""),
    (" || !rooms.has(entry.channel)", ""),
    ("if (known) return known.promise;", ""),
    ("if (items.length > most)", "if (false)"),
    ("(first.count ?? 1) + (second.count ?? 1)", "1"),
    ("begin();\n    looped = kept = true;", "looped = kept = true;"),
    ("queueMicrotask(() => { // when", "(function (run) { run(); })(() => { // when"),
    ("kept = false;\n        items = [];", ""),
    ("heard();\n    let message;", "let message;"),
    ('watch(globalThis, "online", reconnect),', ""),
    ('if (state === "open") probe();\n      else', ""),
    ("for (const forget of watched) forget();", ""),
    ("if (settings.rate && allowed-- < 1)", "if (false)"),
    ("members.clear();", ""),
    ("(key ?? id)", "id"),
    ("const next = parsed(id);", "const next = { number: 0 };"),
    (
        "} catch (error) {\n          queueMicrotask",
        "} finally {}\n        try {} catch (error) {\n  queueMicrotask",
    ),
]


@pytest.mark.parametrize(("old", "new"), FAULTS, ids=range(len(FAULTS)))
def test_planted_fault(old: str, new: str, tmp_path: Path) -> None:
    """Its own tests notice each of these."""
    assert MODULE.count(old) == 1, old
    shutil.copytree(PACKAGE / "test", tmp_path / "test")
    (tmp_path / "package.json").write_text('{"type": "module"}')
    (tmp_path / "lilya-websockets.js").write_text(MODULE.replace(old, new), encoding="utf-8")
    assert own_tests(tmp_path).returncode != 0


def test_the_types_name_the_options_and_their_defaults() -> None:
    """What the module takes, with the default that it has."""
    (found,) = re.findall(r"const NUMBERS = \{(.*?)\}", MODULE, re.DOTALL)
    defaults = {name: int(value.replace("_", "")) for name, value in re.findall(r"(\w+): \[([\d_]+),", found)}
    (options,) = re.findall(r"interface Options \{(.*?)\n\}", TYPES, re.DOTALL)
    told = {
        name: int(value.replace(",", ""))
        for value, name in re.findall(r"Default: ([\d,]+)[^*]*\*/\s+(\w+)\?:", options)
    }
    assert told == defaults
    others = set(re.findall(r"^  (\w+)\?:", options, re.MULTILINE)) - set(defaults)
    assert others == {"token", "params", "WebSocket", "retry"}
    assert all(f"settings.{name}" in MODULE for name in others | set(defaults))


def test_what_it_sends_at_once_is_what_serve_takes() -> None:
    """By default, no message is refused because others wait: those after it would overtake it."""
    window = {
        name: int(value.replace("_", ""))
        for name, value in re.findall(r"const (WINDOW\w*) = ([\d_]+);", MODULE)
    }
    taken = {name: parameter.default for name, parameter in inspect.signature(serve).parameters.items()}
    assert 0 < window.pop("WINDOW") < taken["max_waiting"]
    assert taken["max_message_size"] < window.pop("WINDOW_BYTES") < taken["max_waiting_bytes"]
    assert not window
    assert f"maxSize: [{taken['max_message_size']:_}," in MODULE


def test_its_version_is_that_of_the_python_package() -> None:
    package = json.loads((PACKAGE / "package.json").read_text(encoding="utf-8"))
    python = (ROOT / "packages" / "lilya-websockets" / "pyproject.toml").read_text(encoding="utf-8")
    assert lilya.websockets.__version__ == package["version"]
    assert re.search(r'^license = "(.*)"$', python, re.MULTILINE)[1] == package["license"]  # type: ignore[index]
    assert (PACKAGE / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
    assert not {"dependencies", "peerDependencies", "optionalDependencies"} & set(package)


def test_what_is_published(packed: Path) -> None:
    files = sorted(path.name for path in (packed / "node_modules" / "lilya-websockets").iterdir())
    assert files == [
        "LICENSE",
        "README.md",
        "lilya-websockets.d.ts",
        "lilya-websockets.js",
        "lilya-websockets.min.js",
        "package.json",
    ]


def tsc(folder: Path, *files: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            *("node", "node_modules/typescript/bin/tsc", "--noEmit", "--strict", "--target", "es2022"),
            *("--module", "nodenext", "--lib", "es2022,dom", *files),
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )


def test_its_types(packed: Path) -> None:
    """A program that uses all of it compiles. What is wrong in it is marked, and each mark is needed."""
    program = (HERE / "program.mts").read_text(encoding="utf-8")
    (packed / "program.mts").write_text(program, encoding="utf-8")
    done = tsc(packed, "program.mts")
    assert done.returncode == 0, done.stdout
    marks = program.count("// @ts-expect-error")
    assert marks > 5
    (packed / "unmarked.mts").write_text(program.replace("// @ts-expect-error", "//"), encoding="utf-8")
    done = tsc(packed, "unmarked.mts")
    assert done.stdout.count("error TS") == marks, done.stdout


@pytest.fixture
def sizes(packed: Path) -> Iterator[dict[str, tuple[str, int]]]:
    """By name, the version and the bytes of everything that it exports, minified and compressed."""
    found = {}
    for name in ("lilya-websockets", *OTHERS):
        (packed / "entry.mjs").write_text(f'export * from "{name}";')
        done = subprocess.run(
            [
                *("node_modules/.bin/esbuild", "entry.mjs", "--bundle", "--minify"),
                *("--format=esm", "--target=es2022", "--platform=browser"),
            ],
            cwd=packed,
            capture_output=True,
            timeout=LIMIT,
            check=True,
        )
        package = json.loads((packed / "node_modules" / name / "package.json").read_text(encoding="utf-8"))
        found[name] = package["version"], len(gzip.compress(done.stdout, 9, mtime=0))
    yield found
    (packed / "entry.mjs").unlink()


def test_its_size(sizes: dict[str, tuple[str, int]], packed: Path) -> None:
    small = (packed / "node_modules" / "lilya-websockets" / "lilya-websockets.min.js").read_bytes()
    assert len(gzip.compress(small, 9)) <= LARGEST
    assert abs(len(gzip.compress(small, 9)) - sizes["lilya-websockets"][1]) < 100
    rows = re.findall(
        r"^\| ([\w.-]+) \| ([\d.]+) \| ([\d,]+) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE
    )
    told = {name: (version, int(size.replace(",", ""))) for name, version, size in rows}
    assert {name: version for name, (version, _) in told.items()} == {
        name: version for name, (version, _) in sizes.items()
    }
    # Each build of zlib compresses a little better or worse.
    assert {name: size for name, (_, size) in told.items()} == {
        name: pytest.approx(size, rel=0.02) for name, (_, size) in sizes.items()
    }

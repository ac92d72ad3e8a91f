"""Everything that is done with this project, one session each.

    python3 noxfile.py              what CI runs: lint, types, tests, and the matrix for two Pythons
    python3 noxfile.py -s serve     the docs and every example, live on one port
    python3 noxfile.py -l           all sessions

`nox`, `uvx nox` and `pipx run nox` do the same. Run as a script, and without nox installed, this file makes
an environment for nox under `.nox/` first; nothing is installed outside this folder. Interpreters are used
where they are found, and never downloaded.
"""

# No `from __future__ import annotations` here: a Python too old for it could not even say that it is too old.

import argparse
import errno
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.resolve()
OLDEST, NEWEST = (3, 10), (3, 14)
NOX = "nox>=2025.5.1"

if sys.version_info < OLDEST:
    sys.exit(
        f"noxfile.py needs Python {OLDEST[0]}.{OLDEST[1]} or newer, and this is "
        f"{sys.version_info[0]}.{sys.version_info[1]} ({sys.executable})."
    )

try:
    import nox
except ImportError:
    if __name__ != "__main__":
        raise
    nox = None  # type: ignore[assignment]  # `main` makes an environment that has it


def main(arguments: list[str]) -> int:
    """Run nox on this file, from an environment of its own if this one has no nox."""
    python = sys.executable if nox is not None else str(bootstrap(ROOT / ".nox" / "bootstrap"))
    return subprocess.call([python, "-m", "nox", "-f", str(ROOT / "noxfile.py"), *arguments])


def bootstrap(folder: Path) -> Path:
    """An environment with nox in it; made on the first run."""
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if python.exists() and succeeds([str(python), "-c", "import nox"]):
        return python
    print(
        f"nox is not installed here: making an environment for it in {folder.relative_to(ROOT)} …", flush=True
    )
    if not succeeds([sys.executable, "-m", "venv", "--clear", str(folder)]):
        sys.exit(
            "python3 -m venv failed: this Python has no working venv module. On Debian and Ubuntu "
            "`apt install python3-venv` brings it; with uv, `uvx nox` needs none."
        )
    command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", NOX]
    if subprocess.call(command):
        sys.exit(f"nox could not be installed: `{' '.join(command)}` failed, see above.")
    return python


def succeeds(command: list[str]) -> bool:
    try:
        return subprocess.run(command, capture_output=True, timeout=120).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def found_pythons() -> dict[str, Path]:
    """The interpreters on this machine that are of a supported version, by version."""
    pyenv = shutil.which("pyenv")
    roots = [os.environ.get("PYENV_ROOT"), pyenv and Path(pyenv).parent.parent, Path.home() / ".pyenv"]
    found = {}
    for minor in range(OLDEST[1], NEWEST[1] + 1):
        version = f"3.{minor}"
        candidates: list[Path | str | None] = []
        if sys.version_info[:2] == (3, minor):
            candidates.append(sys.executable)
        for root in roots:
            candidates += sorted(Path(root).glob(f"versions/{version}.*/bin/python{version}")) if root else ()
        candidates.append(shutil.which(f"python{version}"))
        for candidate in candidates:
            # Asked, because a pyenv shim is on PATH for versions that it then refuses to run.
            if candidate and succeeds(
                [str(candidate), "-c", f"import sys, venv; sys.exit({minor} != sys.version_info[1])"]
            ):
                found[version] = Path(candidate)
                break
    return found


def refusal(arguments: list[str]) -> str:
    """Why nothing can listen where `serve` is to; empty if it can. Else it is said after the whole build."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", default="8000")
    where = parser.parse_known_args(arguments)[0]
    with socket.socket(socket.AF_INET6 if ":" in where.host else socket.AF_INET) as listener:
        if sys.platform != "win32":  # as the server does: what is left of connections keeps no port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((where.host, int(where.port)))
            listener.listen()  # another may be bound to it without listening
        except OSError as exc:
            reason = "the port is in use" if exc.errno == errno.EADDRINUSE else exc.strerror or str(exc)
        except (OverflowError, ValueError):
            reason = "a port is a number from 0 to 65535"
        else:
            return ""
    return f"cannot serve on {where.host}:{where.port}: {reason}"


if nox is not None:
    nox.needs_version = NOX.removeprefix("nox")
    nox.options.default_venv_backend = "uv|virtualenv"
    nox.options.download_python = "never"
    nox.options.reuse_venv = "yes"
    nox.options.stop_on_first_error = True
    os.environ["UV_PYTHON_DOWNLOADS"] = "never"
    os.environ["NO_MKDOCS_2_WARNING"] = "1"  # an advertisement, printed at every build
    # The tests start some thousand processes. If none of them wrote bytecode, each would compile all that it
    # imports, which takes most of its time. So where none may lie beside the sources, it lies here.
    if os.environ.pop("PYTHONDONTWRITEBYTECODE", ""):
        os.environ.setdefault("PYTHONPYCACHEPREFIX", str(ROOT / ".nox" / "bytecode"))
    # pip compiles everything that it installs, on one core, and that is half of its time. Most of it is never
    # imported, and the rest is compiled then. (pip reads it so: 0 means `--no-compile`.)
    os.environ.setdefault("PIP_NO_COMPILE", "0")

    PYPROJECT = nox.project.load_toml(ROOT / "pyproject.toml")
    CORE = "packages/lilya-websockets"
    DOCTEST = "packages/ws-doctest[all]"

    # Three workers for every core: most of its time a test waits, for a socket or for what must not happen.
    CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    PARALLEL = ("-n", str(3 * CORES))

    # The folders whose tests have to reach all of the core, with every branch.
    MEASURED = ("tests/lilya_websockets", "tests/frameworks")
    # The tests of the benchmarks, which start servers and brokers of their own: the session `benchmarks`.
    BENCHMARKS = "tests/benchmarks"

    # What the session `asyncapi` has from npm.
    NODE = ("@asyncapi/parser@3", "@asyncapi/modelina@5", "ajv@8", "typescript@5")

    # What the session `client` has from npm. Others, whose sizes are on a page, are of the versions there.
    TOOLS_OF_CLIENT = (
        *("esbuild@0.28.2", "typescript@5", "ws@8", "react@19", "react-dom@19"),
        *("phoenix@1.8.16", "socket.io-client@4.8.4", "centrifuge@5.8.0"),
    )
    # What has no wheel for browsers, and works without what is compiled in it: Litestar needs it.
    PURE = ("pyyaml",)

    PYTHONS = found_pythons()
    # nox looks a version up on PATH, where a shim may stand in the way of the interpreter itself.
    os.environ["PATH"] = os.pathsep.join(
        [*(str(python.parent) for python in PYTHONS.values()), os.environ.get("PATH", "")]
    )

    MULTIDICTS = ("6", "7")
    # Tests that try thousands of inputs, and take most of the time. What they see is the same on every Python
    # and with every multidict: `tests` runs them.
    APART = (
        *(f"uvicorn_{name}" for name in ("autobahn", "conformance", "frames", "fuzz", "handshake", "http")),
        *("hostile", "properties", "testing_leaks", "typed_hostile"),
    )
    # Tests of brokers and of many sockets: on the oldest Python, too, whose Redis is the oldest.
    ONCE = ("channels*", "draining")
    HERE = f"{sys.version_info[0]}.{sys.version_info[1]}"
    # The oldest Python with the oldest multidict, and the newest with the newest, without what `tests` runs
    # anyway. What lies between them, and the other pairs, are in `-s matrix`.
    EDGES = [
        edge
        for edge in zip((next(iter(PYTHONS)), next(reversed(PYTHONS))), MULTIDICTS, strict=True)
        if edge != (HERE, MULTIDICTS[-1])
    ]
    nox.options.sessions = [
        "lint",
        "types",
        "tests",
        "frameworks",
        "dropin",
        *(f"matrix-{version}(multidict={multidict!r})" for version, multidict in EDGES),
    ]

    def install(session: nox.Session, *packages: str, groups: tuple[str, ...] = ()) -> None:
        """Install packages of ours, editable, and dependency groups of the root."""
        session.log(f"installing {', '.join([*packages, *groups])} …")
        editable = [argument for package in packages for argument in ("-e", package)]
        session.install(*editable, *nox.project.dependency_groups(PYPROJECT, *groups))

    def install_beside_lilya(session: nox.Session, groups: tuple[str, ...]) -> None:
        """Install packages of ours as wheels: editable, Lilya's own module would shadow them."""
        packages = (f"./{CORE}", f"./{DOCTEST}")
        session.log(f"installing {', '.join([*packages, *groups])} …")
        session.install(*packages, *nox.project.dependency_groups(PYPROJECT, *groups))
        # The wheels of what is here now, whatever was installed under the same version.
        session.install("--force-reinstall", "--no-deps", *packages)

    def add_buttons(session: nox.Session, site: str = "site") -> None:
        """Add the Run buttons to the built site, where npm is installed; it says so where it is not."""
        browser = nox.project.dependency_groups(PYPROJECT, "browser")
        session.run(
            *("python", "-m", "ws_doctest", "buttons"),
            *(f"--site={site}", "--pages=docs", "--examples=docs_src"),
            *(f"--package={package}" for package in (f"./{CORE}", *browser)),
            *(f"--pure={name}" for name in PURE),
        )

    @nox.session
    def lint(session: nox.Session) -> None:
        """Style and common mistakes (ruff), and the English of the pages (Harper)."""
        install(session, groups=("lint",))
        session.run("ruff", "check", ".")
        session.run("ruff", "format", "--check", ".")
        session.run("python", "-m", "tests.docs.prose")

    @nox.session
    def types(session: nox.Session) -> None:
        """Types (mypy, strict), and what mypy and pyright make of `WebSocket[In, Out]`."""
        install(session, CORE, DOCTEST, groups=("types", "docs"))
        session.run("mypy", "packages", "docs_src", "tests", "docs", "noxfile.py", "release.py")
        session.run("pyright", "--project", "tests/typing/pyrightconfig.json")

    @nox.session
    def tests(session: nox.Session) -> None:
        """The tests, the doc gate among them, and the coverage of the core. Arguments go to pytest."""
        install(session, CORE, DOCTEST, groups=("tests", "docs"))
        if session.posargs:
            session.run("pytest", *session.posargs)
            return
        # To measure coverage takes half as long again, so that is done where it counts.
        session.run("pytest", *PARALLEL, *(f"--ignore={folder}" for folder in (*MEASURED, BENCHMARKS)))
        session.run("coverage", "erase")
        session.run("coverage", "run", "-m", "pytest", *PARALLEL, *MEASURED)
        session.run("coverage", "combine", "--quiet")
        # Without a server of Redis, its tests were skipped, each with this reason, and much of the channels
        # and of the limits on Redis was not reached. The rest is to be whole.
        without = session.run("python", "-m", "tests.lilya_websockets.redis_server", silent=True)
        if without:
            session.warn(f"the coverage of what uses Redis is not looked at: {without.strip()}")
        omitted = "--omit=*/channels/*,*/websockets/redis.py,*/testing/*"
        session.run("coverage", "report", *([omitted] if without else []))

    @nox.session
    def benchmarks(session: nox.Session) -> None:
        """The tests of the benchmarks: that each measures what it says, and finds what it is there for."""
        install(session, CORE, DOCTEST, groups=("tests", "docs"))
        session.run("pytest", *PARALLEL, BENCHMARKS, *session.posargs)

    @nox.session(python=list(PYTHONS))
    @nox.parametrize("multidict", MULTIDICTS)
    def matrix(session: nox.Session, multidict: str) -> None:
        """The core's tests on every Python that is found, with both major versions of multidict."""
        install(session, CORE, DOCTEST, groups=("matrix",))
        session.install(f"multidict=={multidict}.*")
        apart = APART if session.python == next(iter(PYTHONS)) else (*APART, *ONCE)
        session.run(
            "pytest",
            "tests/lilya_websockets",
            "-p",
            "no:cacheprovider",
            *(f"--ignore-glob=*/test_{name}.py" for name in apart),
            *PARALLEL,
            *session.posargs,
        )

    @nox.session
    def pyodide(session: nox.Session) -> None:
        """The core's tests that need no socket, on the CPython of Pyodide, in Node; `npm` brings it."""
        if not shutil.which("npm"):
            session.skip("npm is not installed: it brings Pyodide")
        folder = Path(session.create_tmp()).resolve()
        # Its version begins with that of its CPython.
        version = f"{NEWEST[0]}{NEWEST[1]}"
        session.run("npm", "install", "--silent", f"--prefix={folder}", f"pyodide@{version}", external=True)
        packages = folder / "packages"
        shutil.rmtree(packages, ignore_errors=True)
        session.install("pip>=25.1")
        # Wheels for any platform: of multidict there is one, too, whose code is Python.
        session.run(
            *("python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"),
            *(f"--target={packages}", "--only-binary=:all:", "--platform=any", "--implementation=py"),
            *("--abi=none", f"--python-version={NEWEST[0]}.{NEWEST[1]}"),
            *nox.project.dependency_groups(PYPROJECT, "pyodide"),
        )
        # Node looks for Pyodide beside the script.
        script = shutil.copy(ROOT / "tests" / "pyodide" / "run.mjs", folder)
        session.run("node", script, str(ROOT), str(packages), *session.posargs, external=True)

    def build_hosted(session: nox.Session, owner: str, site: str, builder: str = "mkdocs") -> None:
        """Build the docs for the address that a file of settings has."""
        session.run("python", "release.py", "owner", owner)
        urls = nox.project.load_toml(ROOT / owner)["urls"]
        settings = {"DOCS_URL": urls["Documentation"], "DOCS_SOURCE": urls["Source"], "DOCS_LIVE": ""}
        session.run(builder, "build", "--strict", "--clean", env={**settings, "DOCS_SITE": site})
        session.run("python", "docs/hosted.py", site)

    @nox.session
    def buttons(session: nox.Session) -> None:
        """Every Run button of the built docs, in Chromium and Firefox. `-- measure` tells what one costs."""
        if not shutil.which("npm"):
            session.skip("npm is not installed: it brings Pyodide")
        install_beside_lilya(session, groups=("tests", "docs"))
        site = str(Path(session.create_tmp()).resolve() / "site")
        session.run("mkdocs", "build", "--strict", "--clean", f"--site-dir={site}")
        add_buttons(session, site)
        environment = {"BUTTONS_SITE": site}
        if session.posargs == ["measure"]:
            session.run("python", "-m", "tests.buttons.measure", env=environment)
            return
        session.run(
            *("pytest", "-c", "tests/buttons/pytest.ini", "--rootdir=.", "-p", "no:cacheprovider"),
            *session.posargs,
            env=environment,
        )

    @nox.session
    def docs(session: nox.Session) -> None:
        """The built docs, in site/. `-- hosted` builds them for the address in owner.toml."""
        install(session, CORE, DOCTEST, groups=("docs", "hosted"))
        if "hosted" in session.posargs:
            build_hosted(session, "owner.toml", "site")
        else:
            session.run("mkdocs", "build", "--strict", "--clean")
        add_buttons(session)

    @nox.session
    def hosted(session: nox.Session) -> None:
        """The docs built to be served and to be hosted, and the hosted ones below a path, in Chromium.

        `npm` brings axe, which looks at each page. Without it those tests are skipped. Zensical builds the
        hosted docs as well, and they are compared.
        """
        install(session, CORE, DOCTEST, groups=("tests", "docs", "hosted"))
        folder = Path(session.create_tmp()).resolve()
        served, hosted, zensical = (str(folder / name) for name in ("served", "hosted", "zensical"))
        session.run("mkdocs", "build", "--strict", "--clean", f"--site-dir={served}")
        build_hosted(session, "tests/owner.toml", hosted)
        build_hosted(session, "tests/owner.toml", zensical, builder="zensical")
        environment = {"SERVED_SITE": served, "HOSTED_SITE": hosted, "ZENSICAL_SITE": zensical}
        if shutil.which("npm"):
            session.run("npm", "install", "--silent", f"--prefix={folder}", "axe-core@4", external=True)
            environment["AXE"] = str(folder / "node_modules" / "axe-core" / "axe.min.js")
        session.run(
            *("pytest", "-c", "tests/hosted/pytest.ini", "--rootdir=.", "-p", "no:cacheprovider"),
            *session.posargs,
            env=environment,
        )

    @nox.session
    def serve(session: nox.Session) -> None:
        """The docs and every example, live on one port. `-- --port 8001` for another port."""
        why = refusal(session.posargs)
        if why:
            session.error(why)
        install_beside_lilya(session, groups=("docs", "serve"))
        session.log("building the docs …")
        session.run("mkdocs", "build", "--strict", "--clean")
        add_buttons(session)
        session.run(
            "python",
            "-m",
            "ws_doctest",
            "serve",
            "--site",
            "site",
            "--examples",
            "docs_src",
            *session.posargs,
        )

    @nox.session
    def release(session: nox.Session) -> None:
        """A rehearsal of a release; `-- v0.1.0` builds what is published under that tag, in dist/."""
        install(session, groups=("release",))
        session.run("python", "release.py", "check", *session.posargs)
        folder = Path(session.create_tmp()).resolve()
        target = ROOT / "dist" if session.posargs else folder / "dist"
        shutil.rmtree(target, ignore_errors=True)
        session.run(
            *("python", "release.py", "build", str(target)),
            *(() if session.posargs else ("tests/owner.toml",)),
        )
        built = sorted(target.glob("*/*.whl"))
        session.run("twine", "check", "--strict", *map(str, [*built, *target.glob("*/*.tar.gz")]))
        # As users install it, and as they do until there is a release: from a folder of a repository.
        for wheel in built:
            name = wheel.parent.name
            fetched = f"{name} @ git+{ROOT.as_uri()}#subdirectory=packages/{name}"
            session.run(
                "python", "-m", "pip", "install", "--quiet", "--no-deps", "--force-reinstall", fetched
            )
            session.run("python", "-m", "pip", "install", "--quiet", "--force-reinstall", str(wheel))
        session.run("python", "-c", "import lilya.websockets as it, ws_doctest; print(it.__version__)")

    @nox.session
    def frameworks(session: nox.Session) -> None:
        """The test client and the protocol for uvicorn over apps of Lilya and of other frameworks."""
        # As a wheel, and last: an editable install beside Lilya is shadowed by Lilya's own module.
        session.install(*nox.project.dependency_groups(PYPROJECT, "frameworks"))
        session.install("--force-reinstall", "--no-deps", f"./{CORE}")
        session.run(
            "pytest",
            "-c",
            "tests/frameworks/pytest.ini",
            "--rootdir=.",
            "-p",
            "no:cacheprovider",
            "tests/frameworks",
            *session.posargs,
        )

    @nox.session
    def dropin(session: nox.Session) -> None:
        """Lilya on this package as a wheel, and the page *With Lilya* with its examples."""
        install_beside_lilya(session, groups=("dropin",))
        session.run(
            "pytest",
            "-c",
            "tests/dropin/pytest.ini",
            "--rootdir=.",
            "-p",
            "no:cacheprovider",
            *session.posargs,
        )

    @nox.session
    def asyncapi(session: nox.Session) -> None:
        """AsyncAPI documents in the project's own parser, and a client in TypeScript; `npm` brings both."""
        if not shutil.which("npm"):
            session.skip("npm is not installed: it brings the parser of AsyncAPI")
        install(session, CORE, DOCTEST, groups=("tests",))
        folder = Path(session.create_tmp()).resolve()
        session.run("npm", "install", "--silent", f"--prefix={folder}", *NODE, external=True)
        session.run(
            *("pytest", "-c", "tests/asyncapi/pytest.ini", "--rootdir=.", "-p", "no:cacheprovider"),
            *session.posargs,
            env={"ASYNCAPI_TOOLS": str(folder)},
        )

    @nox.session
    def client(session: nox.Session) -> None:
        """The client for browsers and Node, in both, over a network that breaks; `npm` brings its tools."""
        if not shutil.which("npm"):
            session.skip("npm is not installed: it brings what builds the client for browsers")
        install(session, CORE, DOCTEST, groups=("tests",))
        folder = Path(session.create_tmp()).resolve()
        session.run("npm", "install", "--silent", f"--prefix={folder}", *TOOLS_OF_CLIENT, external=True)
        session.run(
            *("pytest", "-c", "tests/client/pytest.ini", "--rootdir=.", "-p", "no:cacheprovider"),
            *session.posargs,
            env={"CLIENT_TOOLS": str(folder)},
        )

    @nox.session
    def planted(session: nox.Session) -> None:
        """How many planted changes of behaviour, and faults in the docs, the checks of the docs notice."""
        install(session, CORE, DOCTEST, groups=("tests", "docs"))
        for name in session.posargs[:1] or ("behaviours", "faults"):
            session.run("python", "-m", "tests.planted", name, *session.posargs[1:])

    @nox.session
    def cluster(session: nox.Session) -> None:
        """Channels in a cluster of Redis, under more faults than in `tests`: for a night."""
        install(session, CORE, DOCTEST, groups=("matrix",))
        session.run(
            "pytest",
            "tests/lilya_websockets/test_channels_cluster.py",
            "-p",
            "no:cacheprovider",
            *session.posargs,
            env={"LILYA_CLUSTER_FAULTS": "40x40"},
        )

    @nox.session
    def conformance(session: nox.Session) -> None:
        """The protocol for uvicorn: every case however its bytes are cut, Autobahn, and uvicorn's tests."""
        install(session, CORE, DOCTEST, groups=("conformance",))
        session.run(
            "pytest",
            "tests/lilya_websockets/test_uvicorn_conformance.py",
            "tests/lilya_websockets/test_uvicorn_autobahn.py",
            "tests/lilya_websockets/test_uvicorn_fuzz.py",
            "tests/lilya_websockets/test_uvicorn_handshake.py",
            "tests/lilya_websockets/test_uvicorn_http.py",
            *("-o", "faulthandler_timeout=600"),  # Autobahn has cases that take a minute
            *PARALLEL,
            *session.posargs,
            env={"CONFORMANCE": "exhaustive"},
        )
        # The tests are in the source distribution. They are run from there; nothing of them is kept.
        asked = session.run("python", "-c", "import uvicorn; print(uvicorn.__version__)", silent=True)
        name = f"uvicorn-{str(asked).strip()}"
        folder = Path(session.create_tmp()).resolve()
        shutil.rmtree(folder / name, ignore_errors=True)
        session.run(
            *(
                "python",
                "-m",
                "pip",
                "download",
                "--quiet",
                "--disable-pip-version-check",
                "--no-binary=:all:",
            ),
            *("--no-deps", f"--dest={folder}", name.replace("-", "==")),
        )
        session.run("python", "-m", "tarfile", "-e", str(folder / f"{name}.tar.gz"), str(folder))
        suite = folder / name
        if not (suite / "tests/protocols/test_websocket.py").exists():
            session.error(f"The source distribution of {name} has no tests/protocols/test_websocket.py.")
        shutil.rmtree(suite / "uvicorn")  # the installed one is what is tested
        session.chdir(suite)
        for classes in (("wsproto", "websockets-sansio"), ("lilya",)):
            session.run(
                *(
                    "pytest",
                    "-c",
                    "pyproject.toml",
                    "-o",
                    "addopts=",
                    "-p",
                    "no:cacheprovider",
                    "-rx",
                    *PARALLEL,
                ),
                *("-p", "uvicorn_suite.plugin", *(f"--ws-class={each}" for each in classes)),
                "tests/protocols/test_websocket.py",
                "tests/middleware/test_logging.py",
                "tests/middleware/test_proxy_headers.py",
                env={"PYTHONPATH": str(ROOT / "tests")},
            )

    @nox.session
    def servers(session: nox.Session) -> None:
        """The same handlers on every server. `-- --write` makes the page *Servers* anew."""
        install(session, CORE, groups=("servers",))
        arguments = [argument for argument in session.posargs if argument != "--write"]
        writes = len(arguments) < len(session.posargs)
        session.run(
            "pytest",
            "-c",
            "tests/servers/pytest.ini",
            "--rootdir=.",
            "-p",
            "no:cacheprovider",
            *arguments,
            env={"LILYA_SERVERS_WRITE": "1"} if writes else {},
        )
        if writes:
            session.run("python", "docs/concepts/servers_tables.py")

    @nox.session
    def bench(session: nox.Session) -> None:
        """Beside others: `-- core`, `-- testing` or `-- wire` (over loopback); all three without that.

        `-- soak` alone wears a server out, for 10 minutes; `-- channels` alone publishes to many sockets;
        `-- redis` alone is what channels lose and carry on Redis, and needs a server of it; `-- levels` alone
        is what zlib's levels cost and save; `-- fairness` alone is how long a client that floods makes others
        wait; `-- protocol` alone counts the instructions of the protocol for uvicorn, `-- frameworks` alone
        those of FastAPI and others with their own class and with ours; `-- guards instructions` alone those
        of guards and observers; `-- typed` alone is what typed messages cost; `-- scale` alone is channels on
        Redis with many channels, in a storm, over slow links and in an outage. With `--write` after them,
        `core`, `wire`, `fairness`, `channels`, `redis` and `scale` make their parts of the pages anew.
        """
        install(session, CORE, groups=("bench",))
        arguments = list(session.posargs)
        if arguments[:1] and arguments[0] in (
            "channels",
            "core",
            "fairness",
            "frameworks",
            "guards",
            "levels",
            "protocol",
            "redis",
            "scale",
            "testing",
            "typed",
            "wire",
            "soak",
        ):
            chosen = [arguments.pop(0)]
        else:
            chosen = ["core", "wire"] if "--write" in arguments else ["core", "testing", "wire"]
        environment = {}
        if {"wire", "fairness", "soak", "channels", "redis", "scale", "frameworks"} & set(chosen):
            folder = Path(session.virtualenv.location)
            # Lilya, and over it our package: put before the environment's own, which has upstream's.
            shutil.rmtree(folder / "ours", ignore_errors=True)
            lilya = next(name for name in PYPROJECT["dependency-groups"]["bench"] if name.startswith("lilya"))
            session.install("--no-deps", "--target", str(folder / "ours"), lilya, f"./{CORE}")
            if {"channels", "redis", "scale", "frameworks"} & set(chosen):
                environment["PYTHONPATH"] = str(folder / "ours")
            if "wire" in chosen and shutil.which("npm"):
                session.run(
                    *("npm", "install", "--silent", "--prefix", str(folder / "node"), "ws@8", "bufferutil@4"),
                    external=True,
                )
        for name in chosen:
            session.run("python", "-m", f"benchmarks.{name}", *arguments, env=environment)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)

"""A project of somebody else, which has the wheel of ws-doctest and nothing else of ours."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "packages" / "ws-doctest"
LIMIT = 120.0

PAGE = """
# Echo

```python
async def app(scope, receive, send):
    if scope["type"] != "websocket":
        return
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message["text"].upper()})
```

```ws
> connect /
< accept
> text hello
< text HELLO
> close
```
"""

CONFIGURATION = """
[tool.pytest.ini_options]
ws_doctest_pages = ["README.md"]
ws_doctest_backends = ["asyncio"]
ws_doctest_servers = ["wsproto"]
[tool.ruff]
line-length = 100
"""


# As the configuration of the root has it: plugins that nobody needs here, and that take most of the time of a
# short run of pytest to import.
UNNEEDED = "-p no:faker -p no:valkey"


@pytest.fixture(autouse=True)
def unneeded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave these plugins out of the runs of pytest that a test starts."""
    monkeypatch.setenv("PYTEST_ADDOPTS", UNNEEDED)


@pytest.fixture
def pytester(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    monkeypatch.setenv("PYTEST_ADDOPTS", UNNEEDED)  # pytest's own fixture has taken it away
    return pytester


def build(folder: Path, kind: str, target: Path) -> Path:
    """Build a distribution; return its file."""
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(target)],
        cwd=folder,
        check=True,
        capture_output=True,
        timeout=LIMIT,
    )
    (found,) = [path for path in target.iterdir() if path.suffix == {"sdist": ".gz", "wheel": ".whl"}[kind]]
    return found


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, made of the source distribution as it would be published, unpacked."""
    folder = tmp_path_factory.mktemp("dist")
    with tarfile.open(build(PACKAGE, "sdist", folder / "sdist")) as archive:
        archive.extractall(folder / "source", filter="data") if sys.version_info >= (3, 12) else (
            archive.extractall(folder / "source")
        )
    (source,) = (folder / "source").iterdir()
    with zipfile.ZipFile(build(source, "wheel", folder / "wheel")) as archive_of_wheel:
        archive_of_wheel.extractall(folder / "installed")
    return folder / "installed"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    (folder / "docs_src").mkdir(parents=True)
    (folder / "README.md").write_text(PAGE, encoding="utf-8")
    (folder / "pyproject.toml").write_text(CONFIGURATION, encoding="utf-8")
    return folder


def make_environment(folder: Path, *paths: Path) -> Path:
    """Make an environment that has what is installed here, but none of what is installed editable.

    Returns:
        The folder of its programs.
    """
    venv.EnvBuilder(symlinks=sys.platform != "win32").create(folder)
    site = sysconfig.get_path("purelib", vars={"base": str(folder)})
    # What a file of this kind names is on the path, and the files of this kind in there are not read.
    installed = [*map(str, paths), sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    (Path(site) / "installed.pth").write_text("\n".join(installed) + "\n", encoding="utf-8")
    return Path(sysconfig.get_path("scripts", vars={"base": str(folder)}))

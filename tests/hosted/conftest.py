"""The two builds of the site, and the hosted one behind a server that has it below a path."""

from __future__ import annotations

import gzip
import os
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

import pytest

import release
from tests.docs.browser import FOUND, Browser

OWNER = release.read_owner(Path(__file__).parents[1] / "owner.toml")
BASE = OWNER["urls"]["Documentation"]
PREFIX = urlsplit(BASE).path


# Without the sites there is nothing to test, and the libraries that made them may not be here.
collect_ignore_glob = [] if "HOSTED_SITE" in os.environ else ["test_*.py"]


@pytest.fixture(scope="session")
def served() -> Path:
    """The site as you serve it yourself."""
    return Path(os.environ["SERVED_SITE"])


@pytest.fixture(scope="session")
def hosted() -> Path:
    """The site as it is hosted."""
    return Path(os.environ["HOSTED_SITE"])


class Host(SimpleHTTPRequestHandler):
    """What hosts of pages do: a site below a path, compressed, and its page 404 for whatever is not there."""

    sent: ClassVar[dict[str, int]] = {}  # how many bytes an answer had, by its path

    def do_GET(self) -> None:
        file = Path(self.translate_path(self.path))
        file = file / "index.html" if self.path.endswith("/") else file
        if not file.is_file():
            super().do_GET()
            return
        body = file.read_bytes()
        kind = self.guess_type(str(file))
        packed = kind.startswith("text/") or kind.endswith(("javascript", "json", "xml"))
        body = gzip.compress(body, 6) if packed else body
        self.sent[self.path] = len(body)
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")  # each page is the first that somebody sees
        if packed:
            self.send_header("Content-Encoding", "gzip")
        self.end_headers()
        self.wfile.write(body)

    def translate_path(self, path: str) -> str:
        path = urlsplit(path).path
        below = path[len(PREFIX) - 1 :] if path.startswith(PREFIX) else "/nowhere"
        return super().translate_path(below)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        if code != 404 or not self.path.startswith(PREFIX):
            super().send_error(code, message, explain)
            return
        body = (Path(self.directory) / "404.html").read_bytes()
        self.send_response(404)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture(scope="session")
def address(hosted: Path) -> Iterator[str]:
    """Where the hosted site is, on this machine."""

    def handler(*arguments: Any) -> Host:
        return Host(*arguments, directory=str(hosted))

    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}{PREFIX}"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    assert FOUND is not None, "no Chromium or Chrome on PATH"
    browser = Browser(FOUND)
    yield browser
    browser.close()

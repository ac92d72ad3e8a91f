"""The serve command: the site and live examples on one port, and an end at the first Ctrl-C."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from ws_doctest import serve

APP = """
import json


async def app(scope, receive, send):
    await receive()
    await send({"type": "websocket.accept"})
    seen = {key: scope[key] for key in ("path", "root_path")}
    seen |= {"raw_path": scope["raw_path"].decode(), "query": scope["query_string"].decode()}
    await send({"type": "websocket.send", "text": json.dumps(seen)})
    while (await receive())["type"] != "websocket.disconnect":
        pass
"""


PAGE = """
import sys

started = 0


async def app(scope, receive, send):
    global started
    message = await receive()
    if scope["type"] == "lifespan":
        started += 1
        scope["state"]["word"] = "started"
        await send({"type": "lifespan.startup.complete"})
        await receive()
        print("shut down", file=sys.stderr)
        await send({"type": "lifespan.shutdown.complete"})
    elif scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": str(started)})
        await send({"type": "websocket.close"})
    elif scope["query_string"] != b"nothing":
        text = f"{scope['state']['word']}, at {scope['path']}"
        await send({"type": "http.response.start", "status": 200, "headers": []})
        if scope["query_string"] == b"raise":
            raise LookupError("half a page")
        await send({"type": "http.response.body", "body": text.encode()})
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "site/guide").mkdir(parents=True)
    (tmp_path / "site/index.html").write_text("<h1>home</h1>")
    (tmp_path / "site/guide/index.html").write_text("<h1>guide</h1>")
    (tmp_path / "docs_src/talk").mkdir(parents=True)
    (tmp_path / "docs_src/talk/echo.py").write_text(APP)
    (tmp_path / "docs_src/talk/echo.ws").write_text("> connect /chat?room=blue\n")
    (tmp_path / "docs_src/talk/no_app.py").write_text("x = 1\n")
    return tmp_path


def command(project: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "ws_doctest", "serve", "--site", "site", "--examples", "docs_src", *more]


class Serving:
    """A running serve command."""

    def __init__(self, project: Path) -> None:
        self.process = subprocess.Popen(
            command(project, "--port", "0"),
            cwd=project,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self.lines = [self.process.stdout.readline().rstrip() for _ in range(2)]
        self.address = self.lines[0].rpartition("http://")[2].rstrip("/")
        self.port = int(self.address.rpartition(":")[2])
        self.log: list[str] = []
        while not any("Started server process" in line for line in self.log):
            self.log.append(self.process.stderr.readline())
            assert self.log[-1], self.log

    def get(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://{self.address}{path}", timeout=10) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def interrupt(self) -> tuple[int, str]:
        self.process.send_signal(signal.SIGINT)
        _, rest = self.process.communicate(timeout=5)
        return self.process.returncode, rest


@pytest.fixture
def serving(project: Path) -> Iterator[Serving]:
    serving = Serving(project)
    yield serving
    if serving.process.poll() is None:
        serving.process.kill()
    serving.process.communicate()


def test_pages_and_examples_are_served_and_announced(serving: Serving) -> None:
    address = serving.address
    assert serving.lines == [
        f"The docs:      http://{address}/",
        f"The examples:  http://{address}/live/  (1 live)",
    ]
    for path in ("/live", "/live/"):
        listing = f"The live examples:\n    ws://{address}/live/talk/echo/chat?room=blue\n"
        assert serving.get(path) == (200, listing)
    assert serving.get("/") == (200, "<h1>home</h1>")
    assert serving.get("/guide/") == (200, "<h1>guide</h1>")
    assert serving.get("/nowhere")[0] == 404
    status, text = serving.get("/live/talk/echo")
    assert status == 200
    assert f"python -m websockets 'ws://{address}/live/talk/echo/chat?room=blue'" in text
    assert "uvicorn docs_src.talk.echo:app" in text
    status, text = serving.get("/live/talk/eco")
    assert (status, "/live/talk/echo" in text) == (404, True)
    assert text.startswith("No example is live at /live/talk/eco. The live examples:\n")


def test_an_example_is_mounted_as_asgi_says(serving: Serving) -> None:
    for path, query in (("", ""), ("/chat", "?room=blue")):
        with connect(f"ws://{serving.address}/live/talk/echo{path}{query}", proxy=None) as websocket:
            assert json.loads(websocket.recv(timeout=10)) == {
                "path": f"/live/talk/echo{path or '/'}",
                "raw_path": f"/live/talk/echo{path or '/'}",
                "root_path": "/live/talk/echo",
                "query": query.lstrip("?"),
            }


def test_what_an_example_answers_over_http_is_served(project: Path) -> None:
    (project / "docs_src/talk/page.py").write_text(PAGE)
    serving = Serving(project)
    try:
        assert serving.get("/live/talk/page") == (200, "started, at /live/talk/page/")
        assert serving.get("/live/talk/page/x")[1] == "started, at /live/talk/page/x"
        # Started up once, for both kinds.
        with connect(f"ws://{serving.address}/live/talk/page", proxy=None) as websocket:
            assert websocket.recv(timeout=10) == "1"
        with pytest.raises(http.client.IncompleteRead):
            serving.get("/live/talk/page?raise")
        assert "This is a WebSocket" in serving.get("/live/talk/page?nothing")[1]
        assert "This is a WebSocket" in serving.get("/live/talk/echo")[1]
    finally:
        status, log = serving.interrupt()
    assert (status, "shut down" in log, "LookupError: half a page" in log) == (0, True, True), log


def test_an_example_that_does_not_start_up_is_refused_and_logged(project: Path) -> None:
    (project / "docs_src/talk/page.py").write_text(
        PAGE.replace('startup.complete"})', 'startup.failed"})\n        return')
    )
    (project / "docs_src/talk/stay.py").write_text(
        PAGE.replace('print("shut down", file=sys.stderr)', "1 / 0")
    )
    serving = Serving(project)
    try:
        for _ in range(2):
            with pytest.raises(InvalidStatus):
                connect(f"ws://{serving.address}/live/talk/page", proxy=None)
        assert serving.get("/live/talk/stay")[0] == 200
    finally:
        status, log = serving.interrupt()
    assert status == 0
    assert log.count("Not live: /live/talk/page does not start up: the app's startup failed") == 2
    assert "The example at /live/talk/stay does not shut down: the app raised an exception" in log
    assert "ZeroDivisionError" in log


def test_the_help_names_where_each_client_connects(project: Path) -> None:
    examples = project / "docs_src"
    (examples / "talk/echo.ws").write_text("ann > connect /?ann\nbob > connect /?bob\n")
    site = serve.Site(project / "site", serve.find_examples(examples), project)
    text = site.help("/live/talk/echo", {"headers": [(b"host", b"localhost:8000")]})
    for name in ("ann", "bob"):
        assert f"    python -m websockets 'ws://localhost:8000/live/talk/echo/?{name}'\n" in text


def test_an_unknown_live_address_is_refused_and_logged(serving: Serving) -> None:
    for path in ("/live/talk/eco", "/live/talk/echoes", "/live/talk/no_app", "/elsewhere"):
        with pytest.raises(InvalidStatus) as caught:
            connect(f"ws://{serving.address}{path}", proxy=None)
        assert caught.value.response.status_code == 403
    _, log = serving.interrupt()
    assert "No example is live at '/live/talk/eco'; the live addresses are: /live/talk/echo" in log


@pytest.mark.parametrize(
    ("planted", "said"),
    [
        ("import dance_floor\n", "/live/talk/dance needs dance_floor, which is not installed here"),
        ("1 / 0\n", "/live/talk/dance cannot be loaded: ZeroDivisionError: division by zero"),
    ],
    ids=["missing", "broken"],
)
def test_an_example_that_cannot_be_loaded_is_announced_refused_and_logged(
    project: Path, planted: str, said: str
) -> None:
    (project / "docs_src/talk/dance.py").write_text(planted + APP)
    serving = Serving(project)
    try:
        assert serving.lines[1].endswith("/live/  (1 live, 1 cannot run here)")
        assert serving.get("/live/")[1].endswith(f"Not live:\n    {said}\n")
        with pytest.raises(InvalidStatus) as caught:
            connect(f"ws://{serving.address}/live/talk/dance", proxy=None)
        assert caught.value.response.status_code == 403
        with connect(f"ws://{serving.address}/live/talk/echo", proxy=None) as websocket:
            websocket.recv(timeout=10)
    finally:
        _, log = serving.interrupt()
    assert f"Not live: {said}" in log
    assert "Traceback" not in log


def test_the_first_ctrl_c_ends_it_with_open_sockets(serving: Serving) -> None:
    with connect(f"ws://{serving.address}/live/talk/echo", proxy=None) as websocket:
        websocket.recv(timeout=10)
        status, log = serving.interrupt()
        with pytest.raises(ConnectionClosed):
            websocket.recv(timeout=10)
    assert (status, "Traceback" in log) == (0, False), log


# What other web pages make a browser send


def status_of(port: int, kind: str, host: str | None, origin: str | None) -> int:
    """The status for a request with these headers; 101 for a WebSocket that is accepted."""
    lines = ["GET /live/talk/echo HTTP/1.1"]
    lines += [f"Host: {host}"] if host is not None else []
    lines += [f"Origin: {origin}"] if origin is not None else []
    if kind == "websocket":
        lines += ["Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13"]
        lines += ["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="]
    with socket.create_connection(("127.0.0.1", port), 10) as line:
        line.sendall("".join(f"{each}\r\n" for each in (*lines, "")).encode("latin-1"))
        head = b""
        while b"\r\n" not in head:
            piece = line.recv(1024)
            assert piece
            head += piece
        return int(head.split()[1])


# In the cases: `*` is the port of the server.
SAME = [
    ("127.0.0.1:*", None),
    ("127.0.0.1:*", "http://127.0.0.1:*"),
    ("localhost:*", "http://localhost:*"),
    ("LOCALHOST:*", "http://localhost:*"),
    ("docs.localhost:*", "http://docs.localhost:*"),
    ("[::1]:*", "http://[::1]:*"),
    ("[::1]", None),
    ("192.168.1.7", "http://192.168.1.7"),
]
FOREIGN = [
    ("evil.example:*", None),
    ("evil.example:*", "http://evil.example:*"),  # rebinding: the two agree
    ("evil.example", "http://127.0.0.1:*"),
    ("localhost.evil.example:*", None),
    ("evil-localhost:*", None),
    ("127.0.0.1.evil.example:*", None),
    ("127.0.0.1:*@evil.example", None),
    ("evil.example:80:127.0.0.1", None),
    ("127.0.0.1:*", "http://evil.example"),
    ("127.0.0.1:*", "http://127.0.0.1"),  # another port is another origin
    ("127.0.0.1:*", "https://127.0.0.1:*"),
    ("127.0.0.1:*", "http://localhost:*"),
    ("127.0.0.1:*", "null"),
    ("127.0.0.1:*", ""),
    ("127.0.0.1:*", "http://127.0.0.1:*\r\nOrigin: http://evil.example"),
    ("127.0.0.1:*\r\nHost: evil.example", None),
]


@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_what_comes_from_other_pages_is_refused(kind: str, serving: Serving) -> None:
    def status(host: str | None, origin: str | None) -> int:
        host, origin = (each and each.replace("*", str(serving.port)) for each in (host, origin))
        return status_of(serving.port, kind, host, origin)

    allowed = 101 if kind == "websocket" else 200
    assert [pair for pair in SAME if status(*pair) != allowed] == []
    assert [pair for pair in FOREIGN if status(*pair) not in (400, 403)] == []
    _, log = serving.interrupt()
    assert "Refused: the request comes from a page of 'http://evil.example', and not of this server" in log
    assert "Refused: the Host of the request is 'evil.example'. Use an IP address, localhost" in log


def test_a_host_of_choice_is_allowed() -> None:
    guard = serve.Guard(serve.Site, "Box.Example")  # type: ignore[arg-type]
    assert guard.refusal({"headers": [(b"host", b"box.example:8000")]}) == ""
    assert "'other.example'" in guard.refusal({"headers": [(b"host", b"other.example")]})
    assert "''" in guard.refusal({"headers": []})


@pytest.mark.parametrize("missing", ["site", "docs_src"])
def test_a_missing_folder_is_one_line(project: Path, missing: str) -> None:
    (project / missing).rename(project / "away")
    result = subprocess.run(command(project), cwd=project, capture_output=True, text=True, timeout=30)
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert missing in result.stderr


def test_a_port_that_is_none_is_one_line(project: Path) -> None:
    result = subprocess.run(
        command(project, "--port", "99999"), cwd=project, capture_output=True, text=True, timeout=30
    )
    assert (result.returncode, result.stderr) == (
        1,
        "cannot serve on 127.0.0.1:99999: a port is 0 to 65535\n",
    )


def test_a_busy_port_is_one_line(project: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        result = subprocess.run(
            command(project, "--port", str(port)), cwd=project, capture_output=True, text=True, timeout=30
        )
    assert (result.returncode, result.stderr) == (
        1,
        f"cannot serve on 127.0.0.1:{port}: the port is in use\n",
    )

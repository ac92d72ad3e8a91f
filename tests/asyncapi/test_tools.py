"""Documents in the AsyncAPI project's own parser, and a client in TypeScript that is generated from one.

`nox -s asyncapi` brings the parser, Modelina and the compiler of TypeScript, in a folder that it names in the
variable `ASYNCAPI_TOOLS`.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from docs_src.guides.asyncapi import chat
from lilya.websockets import WebSocket
from lilya.websockets.asyncapi import AsyncAPI
from tests.docs.asyncapi_examples import documents
from tests.lilya_websockets import test_asyncapi as cases

if "ASYNCAPI_TOOLS" not in os.environ:
    pytest.skip("the AsyncAPI project's tools are not here: nox -s asyncapi", allow_module_level=True)

TOOLS = Path(os.environ["ASYNCAPI_TOOLS"])
HERE = Path(__file__).parent
EXAMPLES = Path(chat.__file__).parent
LIMIT = 300.0
COMPILE = ("--strict", "--target", "es2022", "--module", "nodenext", "--lib", "es2022,dom")


def node(*arguments: str, cwd: Path = TOOLS) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["node", *arguments], cwd=cwd, capture_output=True, text=True, timeout=LIMIT, check=False
    )


def parsed(files: list[Path]) -> Any:
    """What the parser has to say, by file."""
    script = shutil.copy(HERE / "parse.mjs", TOOLS)  # Node looks for packages beside the script
    done = node(str(script), *map(str, files))
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def written(folder: Path, asyncapis: dict[str, AsyncAPI]) -> list[Path]:
    """The documents as files, each in both formats."""
    files = []
    for name, asyncapi in asyncapis.items():
        for suffix, text in (("json", asyncapi.to_json()), ("yaml", asyncapi.to_yaml())):
            files.append(folder / f"{name.replace('/', '-')}.{suffix}")
            files[-1].write_text(text, encoding="utf-8")
    return files


def test_the_documents_of_the_examples(tmp_path: Path) -> None:
    found = documents()
    assert len(found) > 20
    assert parsed(written(tmp_path, found)) == {}


def test_all_kinds_of_documents(tmp_path: Path) -> None:
    """What the tests of the document are about: types of every kind, requests, parameters, nothing at all."""
    types = [
        *(case.values[0] for case in _cases(cases.test_types)),
        *(cases.Later, cases.Tree, cases.Node, cases.Hidden),
    ]
    websocket: Any = WebSocket
    handlers: dict[str, Any] = {f"/{number}": websocket[each, Any] for number, each in enumerate(types)}
    handlers |= {
        f"/calls/{number}": case.values[0]
        for number, case in enumerate(_cases(cases.test_requests_and_replies))
    }
    found = {
        "types": AsyncAPI(handlers, servers={"main": "wss://example.com:8443/api"}),
        "starlette": AsyncAPI(cases.starlette_app()),
        "nothing": AsyncAPI({}),
    }
    assert parsed(written(tmp_path, found)) == {}


def _cases(test: Any) -> list[Any]:
    return [
        case if hasattr(case, "values") else pytest.param(*case)
        for mark in test.pytestmark
        if mark.name == "parametrize"
        for case in mark.args[1]
    ]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda document: document["info"].pop("version"), "version"),
        (lambda document: document["components"]["schemas"].pop("Said"), "does not exist"),
        (lambda document: document["operations"]["send_rooms_room"].update(action="publish"), "action"),
        (
            lambda document: document["components"]["schemas"]["Say"]["properties"]["text"].update(
                minLength=6
            ),
            "example of rooms_room/Say: data/text must NOT have fewer than 6 characters",
        ),
        (lambda document: document["components"]["schemas"]["Say"].update(type="thing"), "type"),
    ],
)
def test_planted_faults(tmp_path: Path, change: Callable[[Any], None], said: str) -> None:
    document = json.loads(chat.asyncapi.to_json())
    change(document)
    file = tmp_path / "chat.json"
    file.write_text(json.dumps(document), encoding="utf-8")
    problems = parsed([file])
    assert said in json.dumps(problems)


# TypeScript


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the client, and the types that Modelina makes of the document."""
    folder = tmp_path_factory.mktemp("client")
    (folder / "node_modules").symlink_to(TOOLS / "node_modules")
    (folder / "package.json").write_text('{"type": "module"}')
    (folder / "asyncapi.json").write_text(chat.asyncapi.to_json(), encoding="utf-8")
    for name in ("client.ts", "generate.mjs"):
        shutil.copy(EXAMPLES / name, folder)
    done = node("generate.mjs", "asyncapi.json", "models", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


def compiled(folder: Path, file: str = "client.ts") -> subprocess.CompletedProcess[str]:
    return node("node_modules/typescript/bin/tsc", *COMPILE, file, cwd=folder)


@pytest.fixture
def port() -> Iterator[int]:
    """Where the app runs."""
    server = uvicorn.Server(uvicorn.Config(chat.app, port=0, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    end = time.monotonic() + LIMIT
    while not server.started:
        assert time.monotonic() < end
        time.sleep(0.02)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    thread.join(LIMIT)
    assert not thread.is_alive()


def test_the_client_compiles_and_talks_to_the_app(client: Path, port: int) -> None:
    done = compiled(client)
    assert done.returncode == 0, done.stdout
    (client / "main.js").write_text(
        'import { talk } from "./client.js";\ntalk(process.argv[2], "Hello", (line) => console.log(line));\n'
    )
    # Node 20 has the browser's WebSocket behind this option, later ones without.
    done = node("--experimental-websocket", "main.js", f"ws://127.0.0.1:{port}/rooms/kitchen", cwd=client)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "kitchen: Hello",
        "You have said 1 so far (1).",
        "closed with 1000",
    ]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("message.text", "message.words"),
        ('{ type: "say", text }', '{ type: "say" }'),
        ('{ type: "say", text }', '{ type: "shout", text }'),
        ('case "said"', 'case "say"'),
        ("message.messages", "message.messages.length"),
    ],
)
def test_the_compiler_finds_what_the_document_does_not_allow(client: Path, old: str, new: str) -> None:
    source = (client / "client.ts").read_text("utf-8")
    assert old in source
    (client / "wrong.ts").write_text(source.replace(old, new), encoding="utf-8")
    done = compiled(client, "wrong.ts")
    assert done.returncode != 0
    assert "wrong.ts(" in done.stdout

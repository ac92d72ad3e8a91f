"""The gate as a whole: a green project, and every fault that must turn it red."""

# ruff: noqa: E501 - what is planted and what is said about it are lines of other files

from __future__ import annotations

import gc
import os
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

# Imported here, because pytester forgets what a run imports, and would load them again for each.
import ws_doctest._signatures
import ws_doctest._snippets
import ws_doctest._style
import ws_doctest._wire  # noqa: F401
from ws_doctest import _apps, _nginx, _tests, plugin

pytest_plugins = ["pytester"]

FILES = {
    "pyproject.toml": """
[tool.pytest.ini_options]
addopts = ["--strict-markers", "--strict-config", "--import-mode=importlib", "-p", "no:cacheprovider", "-p", "no:hypothesispytest"]
pythonpath = ["."]
filterwarnings = ["error"]
ws_doctest_pages = ["docs"]
ws_doctest_examples = ["docs_src"]
ws_doctest_receivers = ["channel=shop:Channel"]
ws_doctest_time_limit = "0.5"
ws_doctest_servers = []
""",
    "shop.py": """
class Owner:
    name = "ada"


class Channel:
    def __init__(self, scope):
        self.scope = scope

    async def accept(self, subprotocol=None, *, mode="text"): ...

    def iterate(self): ...

    def open_door(self): ...

    def open_shop(self): ...

    def open_till(self): ...

    @property
    def owner(self) -> "Owner": ...


def open_all(channels, *, limit=3): ...
""",
    "docs/talk.md": """
# Talk

```python
{!> ../docs_src/talk/echo.py !}
```

```ws
{!> ../docs_src/talk/echo.ws !}
```

## Path

```python
from shop import Channel

channel = Channel(scope)

channel.scope["path"]
await receive()
```

* `await channel.accept(subprotocol=None, *, mode="text")`
* `channel.iterate()`

<!-- ws-doctest: skip only a sketch -->
```python
channel.fly(
```
""",
    "docs_src/talk/echo.py": """
async def app(scope, receive, send):
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] != "websocket.disconnect":
        if message.get("text") == "bye":
            await send({"type": "websocket.send", "bytes": b'{"left": true}'})
            await send({"type": "websocket.close", "code": 4000, "reason": "so long"})
            return
        await send({"type": "websocket.send", "text": message["text"].upper()})
""",
    "docs_src/talk/echo.ws": """\
> connect /chat?room=blue
< accept
# a first word
> text hello
< text HELLO
> text bye
< json-binary {"left": true}
< close 4000 so long
""",
    "docs_src/talk/snippets.toml": """
[connection]
path = "/chat/ada"

# what a snippet shows
[snippets.Path.values]
'channel.scope["path"]' = "'/chat/ada'"
"await receive()" = "{'type': 'websocket.connect'}"
""",
}

PAGE, APP, SCRIPT, EXPECTED = (
    "docs/talk.md",
    "docs_src/talk/echo.py",
    "docs_src/talk/echo.ws",
    ("docs_src/talk/snippets.toml"),
)


TWO = """\
ann > connect /chat
ann < accept
bob > connect /chat
bob < accept
ann > text a
ann < text A
ann > close
bob > close
"""

STARTUP = """\
    if scope["type"] == "lifespan":
        await receive()
        await send({{"type": "lifespan.startup.{answer}"}})
        {then}
    await receive()
"""


INLINE = """
```python
async def app(scope, receive, send):
    await receive()
    await send({"type": "websocket.accept"})
    await receive()
```

```ws
> connect /
< accept
> close
```
"""


@dataclass
class Project:
    """A small repository with docs."""

    pytester: pytest.Pytester

    @property
    def root(self) -> Path:
        return self.pytester.path

    def write(self, name: str, text: str) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.lstrip("\n"), encoding="utf-8")

    def read(self, name: str) -> str:
        return (self.root / name).read_text(encoding="utf-8")

    def replace(self, name: str, old: str, new: str) -> None:
        text = self.read(name)
        assert old in text
        self.write(name, text.replace(old, new))

    def append(self, name: str, text: str) -> None:
        self.write(name, self.read(name) + text)

    def run(self, *arguments: str) -> pytest.RunResult:
        return self.pytester.runpytest_inprocess("docs", *arguments)


@pytest.fixture
def project(pytester: pytest.Pytester) -> Project:
    project = Project(pytester)
    for name, text in FILES.items():
        project.write(name, text)
    return project


def test_the_project_is_green_and_says_what_it_checked(project: Project) -> None:
    result = project.run("-v")
    result.assert_outcomes(passed=14, skipped=1)
    result.stdout.fnmatch_lines(
        [
            "docs::complete PASSED*",
            "docs/talk.md::page PASSED*",
            "docs/talk.md::signature:22 channel.accept PASSED*",
            "docs/talk.md::docs_src/talk/echo.py*lint* PASSED*",
            "docs/talk.md::docs_src/talk/echo.ws*memory-asyncio* PASSED*",
            "docs/talk.md::docs_src/talk/echo.ws*memory-trio* PASSED*",
            "docs/talk.md::snippet:13 Path*asyncio* PASSED*",
            "*- ws-doctest -*",
            "checked: 1 expectation files, 2 format-checked, 2 linted, 1 page, 1 reached, 2 replays, 1 repository, 2 signatures, *; skipped: 1",
            "skipped docs/talk.md:26: only a sketch",
        ]
    )


def test_the_project_is_green_over_every_server(project: Project) -> None:
    project.replace("pyproject.toml", "ws_doctest_servers = []\n", "")
    project.replace("pyproject.toml", '"0.5"', '"5"')
    result = project.run("-v", "-k", "uvicorn")
    result.assert_outcomes(passed=3, deselected=15)
    for implementation in ("websockets-sansio", "wsproto", "websockets"):
        result.stdout.fnmatch_lines(
            [f"docs/talk.md::docs_src/talk/echo.ws*uvicorn-{implementation}* PASSED*"]
        )


# Each fault, and what the gate says about it.

Plant = Callable[[Project], None]


def change(name: str, old: str, new: str) -> Plant:
    return lambda project: project.replace(name, old, new)


def add(name: str, text: str) -> Plant:
    return lambda project: project.append(name, text)


def create(name: str, text: str) -> Plant:
    return lambda project: project.write(name, text)


def both(*plants: Plant) -> Plant:
    def plant(project: Project) -> None:
        for one in plants:
            one(project)

    return plant


def rename(old: str, new: str) -> Plant:
    def plant(project: Project) -> None:
        (project.root / old).rename(project.root / new)

    return plant


NAMED = change("pyproject.toml", "ws_doctest_servers", 'ws_doctest_names = ["shop"]\nws_doctest_servers')

FAULTS: dict[str, tuple[Plant, list[str]]] = {
    # What is shown is there, what is there is shown.
    "missing include": (
        change(PAGE, "talk/echo.py !}", "talk/eco.py !}"),
        [
            "docs/talk.md:4: the included file ../docs_src/talk/eco.py does not exist (looked for docs_src/talk/eco.py)"
        ],
    ),
    "path outside the repository": (
        change(PAGE, "../docs_src/talk/echo.py !}", "../../../etc/hostname !}"),
        ["docs/talk.md:4: the included file ../../../etc/hostname lies outside the repository"],
    ),
    "misspelt directive": (
        change(PAGE, "{!> ../docs_src/talk/echo.py !}", "{! ../docs_src/talk/echo.py !}"),
        [
            "docs/talk.md:4: expected an include directive `{!> FILE !}` *came '{! ../docs_src/talk/echo.py !}'*"
        ],
    ),
    "unincluded example": (
        create("docs_src/talk/lost.py", "x = 1\n"),
        ["docs_src/talk/lost.py: no page includes this file"],
    ),
    "example without transcript": (
        rename(SCRIPT, "docs_src/talk/other.ws"),
        [
            "docs_src/talk/echo.py: an app without a transcript echo.ws",
            "docs_src/talk/other.ws: a transcript without an app: docs_src/talk/other.py does not define `app`",
        ],
    ),
    "transcript not shown": (
        create("docs_src/talk/echo.again.ws", "> connect /\n< accept\n> close\n"),
        ["docs_src/talk/echo.again.ws: no page shows this transcript"],
    ),
    "transcript in the page itself": (
        add(PAGE, "\n```ws\n> connect /\n```\n"),
        ["docs/talk.md:31: the session differs from its transcript", "+< accept"],
    ),
    # What stands in the page itself
    "app in the page": (
        add(PAGE, INLINE.replace('accept"}', 'accept", "subprotocol": "x"}')),
        ["*the session differs from its transcript", "*'x'*"],
    ),
    "method that does not exist": (
        add(PAGE, INLINE.replace("await receive()", "await receive.no_such_method()")),
        ["AttributeError: *no_such_method*", '*File "docs/talk.md", line 32*'],
    ),
    "app in the page without a transcript": (
        add(PAGE, INLINE.partition("```ws")[0]),
        ["docs/talk.md:30: an app without a transcript below it"],
    ),
    "transcript in the page without an app": (
        change(PAGE, "# Talk\n", "# Talk\n\n```ws\n> connect /\n```\n"),
        ["docs/talk.md:3: a transcript without an app above it"],
    ),
    "transcript below another app": (
        add(PAGE, INLINE + "\n```ws\n{!> ../docs_src/talk/echo.ws !}\n```\n"),
        [
            "docs/talk.md:43: the transcript docs_src/talk/echo.ws belongs below its app *; the app above it is that of line 30"
        ],
    ),
    "transcript above its app": (
        both(
            change(PAGE, "```ws\n{!> ../docs_src/talk/echo.ws !}\n```\n", ""),
            change(PAGE, "# Talk\n", "# Talk\n\n```ws\n{!> ../docs_src/talk/echo.ws !}\n```\n"),
        ),
        [
            "docs/talk.md:3: the transcript docs_src/talk/echo.ws belongs below its app *; no app is shown above it"
        ],
    ),
    # What is reached
    "line that no transcript reaches": (
        change(
            APP,
            '        await send({"type": "websocket.send", "text"',
            '        if message.get("text") == "x":\n            nobody_knows()\n        await send({"type": "websocket.send", "text"',
        ),
        [
            "docs/talk.md:3: no transcript reaches 1 lines of this code; the page says 0.*",
            "docs_src/talk/echo.py:10: *nobody_knows()",
        ],
    ),
    "function that nobody calls": (
        change(PAGE, "await receive()\n", "\n\nasync def nobody():\n    await receive.nothing()\n"),
        [
            "docs/talk.md:13: nothing calls 2 lines of this code; the page says 0.*",
            "docs/talk.md:21: *",
            "docs/talk.md:22: *",
        ],
    ),
    "lambda that nobody calls": (
        change(PAGE, "await receive()\n", "nobody = [lambda: receive.nothing()]\n"),
        ["docs/talk.md:13: nothing calls 1 lines of this code; the page says 0.*", "docs/talk.md:19: *"],
    ),
    "reason for lines that are reached": (
        change(
            PAGE,
            "```python\n{!> ../docs_src/talk/echo.py",
            "<!-- ws-doctest: unreached 2: it is late -->\n```python\n{!> ../docs_src/talk/echo.py",
        ),
        ["docs/talk.md:4: no transcript reaches 0 lines of this code; the page says 2.*"],
    ),
    "unreached without a reason": (
        change(
            PAGE,
            "```python\n{!> ../docs_src/talk/echo.py",
            "<!-- ws-doctest: unreached 1 -->\n```python\n{!> ../docs_src/talk/echo.py",
        ),
        ["docs/talk.md:3: expected the lines and the reason*"],
    ),
    # Names and signatures in the text
    "name that is almost one": (
        both(NAMED, add(PAGE, "\nA `Chanel` is a way to talk.\n")),
        ["docs/talk.md:30: `Chanel`: there is no Chanel; it is close to Channel"],
    ),
    "attribute that does not exist": (
        both(NAMED, add(PAGE, "\nAsk `channel.scopes` for it.\n")),
        ["docs/talk.md:30: `channel.scopes`: Channel has no scopes"],
    ),
    "attribute of an attribute": (
        both(NAMED, add(PAGE, "\nIts `channel.owner.nmae` is known.\n")),
        ["docs/talk.md:30: `channel.owner.nmae`: Owner has no nmae"],
    ),
    "method of a kind": (
        both(NAMED, add(PAGE, "\nThere is also `open_many()`.\n")),
        [
            "docs/talk.md:30: `open_many()`: there is no open_many; of open_* there are open_door, open_shop, open_till"
        ],
    ),
    "method of a kind that is not called": (
        both(NAMED, add(PAGE, "\nThere is also `open_many`.\n")),
        [
            "docs/talk.md:30: `open_many`: there is no open_many; of open_* there are open_door, open_shop, open_till"
        ],
    ),
    "option alone": (
        both(NAMED, add(PAGE, "\nSet `--ws-frame-timeout`, or `--ws-pings 3`.\n")),
        [
            "docs/talk.md:30: `--ws-frame-timeout`: no program that is known has the option --ws-frame-timeout*",
            "docs/talk.md:30: `--ws-pings 3`: no program that is known has the option --ws-pings*",
        ],
    ),
    "value of an option alone": (
        both(NAMED, add(PAGE, "\nSet `--lifespan never`.\n")),
        ["docs/talk.md:30: `--lifespan never`: uvicorn does not take it: Invalid value*"],
    ),
    "class that does not exist": (
        both(NAMED, add(PAGE, "\nMake a `Telephone(number)`.\n")),
        ["docs/talk.md:30: `Telephone(number)`: there is no Telephone; one of somebody else's belongs into*"],
    ),
    "folder of pytest": (
        add(PAGE, "\n`pytest doc -k talk`\n"),
        ["docs/talk.md:30: *there is no doc"],
    ),
    "argument that does not exist": (
        both(NAMED, add(PAGE, "\n| call | |\n| --- | --- |\n| `channel.accept(protocol=None)` | x |\n")),
        ["docs/talk.md:32: `channel.accept(protocol=None)`: channel.accept has no argument protocol*"],
    ),
    "class in a fence of text": (
        both(NAMED, add(PAGE, "\n```text\nraise Chanel('why')\n```\n")),
        ["docs/talk.md:31: `Chanel('why')`: there is no Chanel; it is close to Channel"],
    ),
    "argument in a fence that is skipped": (
        both(NAMED, change(PAGE, "channel.fly(\n", "open_all([channel],\n         limits=4)\n")),
        ["docs/talk.md:27: `open_all([[]channel], limits=4)`: open_all has no argument limits*"],
    ),
    "argument of a middleware in a fence that is skipped": (
        both(NAMED, change(PAGE, "channel.fly(\n", "app.add_middleware(Channel, modes=4)\n")),
        ["docs/talk.md:27: `Channel(modes=4)`: Channel has no argument modes*"],
    ),
    "option that is almost one": (
        both(NAMED, add(PAGE, "\nSet `subprotocols=None`.\n")),
        ["docs/talk.md:30: `subprotocols=None`: there is no subprotocols; it is close to subprotocol"],
    ),
    "signature of a function": (
        both(NAMED, add(PAGE, "\n1. `open_all(channels, *, limit=5)`\n")),
        [
            "docs/talk.md:30: the page shows `open_all(channels, *, limit=5)`; the code is `open_all(channels, *, limit=3)`"
        ],
    ),
    # Commands and data
    "option of pytest": (
        add(PAGE, "\n```shell\npytest docs --ws-updat\n```\n"),
        ["docs/talk.md:31: `pytest docs --ws-updat`: pytest has no option --ws-updat"],
    ),
    "path of pytest": (
        add(PAGE, "\n`pytest tests/nothing.py`\n"),
        ["docs/talk.md:30: *there is no tests/nothing.py"],
    ),
    "option of uvicorn": (
        add(PAGE, "\n```shell\nuvicorn app:app --graceful 5\n```\n"),
        ["docs/talk.md:31: `uvicorn app:app --graceful 5`: uvicorn does not take it: No such option*"],
    ),
    "app of uvicorn": (
        add(PAGE, "\n`uvicorn docs_src.talk.eco:app`\n"),
        ["docs/talk.md:30: *there is no docs_src/talk/eco.py"],
    ),
    "class for uvicorn": (
        add(PAGE, "\n`uvicorn --ws pathlib:Paht app:app`\n"),
        ["docs/talk.md:30: *pathlib has no Paht"],
    ),
    "session of nox": (
        both(
            create("noxfile.py", "import nox\n\n\n@nox.session\ndef tests(session): ...\n"),
            add(PAGE, "\n`python3 noxfile.py -s test`\n"),
        ),
        ["docs/talk.md:30: *noxfile.py has no session 'test'; it has tests"],
    ),
    "extra of a package": (
        both(
            create(
                "packages/shop/pyproject.toml", '[project]\nname = "shop"\noptional-dependencies.till = []\n'
            ),
            add(PAGE, '\n`pip install "./packages/shop[tills]"`, or `shop[tills]`\n'),
        ),
        [
            "docs/talk.md:30: *has no extra 'tills'; it has till",
            "docs/talk.md:30: `shop[[]tills]`: shop has no extra*",
        ],
    ),
    "folder of a package": (
        add(PAGE, "\n`pip install ./packages/shop`\n"),
        ["docs/talk.md:30: *there is no package in ./packages/shop"],
    ),
    "module that does not exist": (
        add(PAGE, "\n`python -m ws_doctest sites --site site`\n"),
        ["docs/talk.md:30: *invalid choice: 'sites'*"],
    ),
    "command that no shell reads": (
        add(PAGE, '\n```shell\npytest "docs\n```\n'),
        ["docs/talk.md:31: *no shell can read this*"],
    ),
    "output of a console": (
        add(PAGE, "\n```console\n$ python -c 'print(1 + 1)'\n3\n```\n"),
        ["docs/talk.md:31: the output differs", "-3", "+2"],
    ),
    "console that fails": (
        add(PAGE, "\n```console\n$ python -c 'raise SystemExit(3)'\n```\n"),
        ["docs/talk.md:31: `python -c *` ended with status 3:*"],
    ),
    "file that a console reads": (
        add(PAGE, "\n```toml title='a.toml'\na = 1\n```\n\n```console\n$ python -m json.tool a.toml\n```\n"),
        ["docs/talk.md:35: `python -m json.tool a.toml` ended with status 1:*"],
    ),
    "console that nobody runs": (
        add(PAGE, "\n```console\n$ make all\n```\n"),
        ["docs/talk.md:31: `make all` is not run: only python and pytest are. Say why*"],
    ),
    "console without a command": (
        add(PAGE, "\n```console\nmake all\n```\n"),
        ["docs/talk.md:30: a fence of type console shows no command*"],
    ),
    "option in a console that is skipped": (
        add(PAGE, "\n<!-- ws-doctest: skip it serves -->\n```console\n$ uvicorn app:app --graceful 5\n```\n"),
        ["docs/talk.md:32: `uvicorn app:app --graceful 5`: uvicorn does not take it: No such option*"],
    ),
    "block of nginx": (
        add(PAGE, "\n```nginx\nserver {\n    listen 80;\n```\n"),
        ["docs/talk.md:31: the block server is not closed"],
    ),
    "directive of nginx that does not end": (
        add(PAGE, "\n```nginx\nserver {\n    listen 80\n}\n```\n"),
        ["docs/talk.md:32: the directive listen is not ended by `;`"],
    ),
    "JSON": (add(PAGE, '\n```json\n{\n"a": 1,\n}\n```\n'), ["docs/talk.md:3[23]: this is no JSON*"]),
    "TOML": (add(PAGE, "\n```toml\na =\n```\n"), ["docs/talk.md:3[12]: this is no TOML*"]),
    "YAML": (add(PAGE, "\n```yaml\na: [1\n```\n"), ["docs/talk.md:3[12]: this is no YAML*"]),
    "setting of the gate": (
        add(PAGE, '\n```toml\nws_doctest_page = ["docs"]\n```\n'),
        ["docs/talk.md:31: there is no setting ws_doctest_page"],
    ),
    # What is left behind
    "task left behind": (
        change(
            APP,
            "    await receive()\n",
            "    await receive()\n    import asyncio\n\n    try:\n        asyncio.get_running_loop()\n    except RuntimeError:\n        pass\n    else:\n        asyncio.create_task(asyncio.sleep(3600))\n",
        ),
        ["the app left a task behind: *sleep*"],
    ),
    "thread left behind": (
        change(
            APP,
            "    await receive()\n",
            "    import threading\n    import time\n\n    await receive()\n    threading.Thread(target=time.sleep, args=(2,), name='mine').start()\n",
        ),
        ["the app left a thread behind: mine"],
    ),
    "socket left behind": (
        change(
            APP,
            "    await receive()\n",
            "    import socket\n\n    await receive()\n    app.kept = socket.socket()\n",
        ),
        ["the app left open: socket:*"],
    ),
    "error that is logged and swallowed": (
        change(
            APP,
            "    await receive()\n",
            "    import logging\n\n    await receive()\n    logging.getLogger('shop').error('sold out')\n",
        ),
        ["the app logged an error: shop: sold out"],
    ),
    # What is shown where nobody looks
    "Python in a fence of text": (
        add(PAGE, "\n```text\nimport shop\n\nshop.fly()\n```\n"),
        ["docs/talk.md:30: this is Python: say so after the fence*"],
    ),
    "another ending": (
        create("docs/more.markdown", "```python\nundefined_name\n```\n"),
        ["*undefined_name*"],
    ),
    "page with JSX": (create("docs/more.mdx", "```python\nundefined_name\n```\n"), ["*undefined_name*"]),
    "page that is not read": (
        create("docs/more.rst", "More\n====\n"),
        ["docs/more.rst:1: pages of this form are not read*"],
    ),
    "cell of MyST": (
        add(PAGE, "\n```{code-cell} python\n:tags: [x]\n\nundefined_name\n```\n"),
        ["*undefined_name*"],
    ),
    "block of MyST": (add(PAGE, "\n```{code-block} python\nundefined_name\n```\n"), ["*undefined_name*"]),
    "include of MyST": (
        add(PAGE, "\n```{literalinclude} ../docs_src/talk/eco.py\n```\n"),
        ["docs/talk.md:30: the included file ../docs_src/talk/eco.py does not exist*"],
    ),
    "include of FastAPI": (
        add(PAGE, "\n{* ../docs_src/talk/eco.py hl[1] *}\n"),
        ["docs/talk.md:30: the included file ../docs_src/talk/eco.py does not exist*"],
    ),
    "include of snippets": (
        add(PAGE, '\n```python\n--8<-- "docs_src/talk/eco.py"\n```\n'),
        ["docs/talk.md:31: the included file docs_src/talk/eco.py does not exist*"],
    ),
    "code in HTML": (
        add(PAGE, "\n<pre>await websocket.fly()</pre>\n"),
        ["docs/talk.md:30: code in HTML is not run: put it into a fence"],
    ),
    "time that is not so": (
        both(
            change(
                APP,
                'accept"})\n',
                'accept"})\n    import anyio\n\n    await anyio.sleep(7)\n    await send({"type": "websocket.send", "text": "now"})\n',
            ),
            change(SCRIPT, "< accept", "< accept\n> wait 9s\n< text now"),
        ),
        ["docs_src/talk/echo.ws:3: `> wait 9s`, but it came after 7*s"],
    ),
    "example from elsewhere": (
        both(create("echo.py", "x = 1\n"), add(PAGE, "\n```py\n{!> ../echo.py !}\n```\n")),
        ["docs/talk.md:31: ../echo.py is not among the examples (docs_src), so nothing runs it"],
    ),
    "Python under another name": (
        change(PAGE, "```ws\n", "```python\n"),
        ["docs/talk.md:7: a fence of type 'python' includes ../docs_src/talk/echo.ws"],
    ),
    "empty reason of a skip": (
        change(PAGE, "skip only a sketch", "skip"),
        ["docs/talk.md:25: a skip says why*"],
    ),
    "expectations for no page": (
        create("docs_src/walk/snippets.toml", ""),
        ["docs_src/walk/snippets.toml: expectations for a page that does not exist"],
    ),
    # Transcripts
    "wrong text": (
        change(SCRIPT, "< text HELLO", "< text Hello"),
        [
            "docs_src/talk/echo.ws:5: the session differs from its transcript, shown on docs/talk.md:8",
            "--- docs_src/talk/echo.ws (as written)",
            "+++ docs_src/talk/echo.ws (as seen, memory-trio)",
            "-< text Hello",
            "+< text HELLO",
        ],
    ),
    "extra message": (
        change(
            APP,
            "        if message.get",
            '        await send({"type": "websocket.send", "text": "!"})\n        if message.get',
        ),
        ["docs_src/talk/echo.ws:5: the session differs*", " > text hello", "+< text !", " < text HELLO"],
    ),
    "extra message at the end": (
        change(
            SCRIPT,
            '> text bye\n< json-binary {"left": true}\n< close 4000 so long\n',
            "> text bye\n> close\n",
        ),
        ['+< json-binary {"left": true}'],
    ),
    "missing trailing message": (
        change(APP, '            await send({"type": "websocket.send", "bytes": b\'{"left": true}\'})\n', ""),
        [
            "docs_src/talk/echo.ws:7: the session differs*",
            '-< json-binary {"left": true}',
            " < close 4000 so long",
        ],
    ),
    "wrong close code": (
        change(APP, "4000", "4001"),
        ["docs_src/talk/echo.ws:8: the session differs*", "-< close 4000 so long", "+< close 4001 so long"],
    ),
    "wrong close reason": (change(APP, "so long", "bye"), ["-< close 4000 so long", "+< close 4000 bye"]),
    "text where binary was promised": (
        change(APP, '"bytes": b\'', '"text": \''),
        ['-< json-binary {"left": true}', '+< json {"left": true}'],
    ),
    "exception after the close": (
        change(
            APP,
            "            return\n        await",
            "            raise LookupError('too late')\n        await",
        ),
        [
            "the handler raised an exception:",
            '  File "docs_src/talk/echo.py", line 8, in app',
            "    raise LookupError('too late')",
            "LookupError: too late",
            "(docs_src/talk/echo.ws, memory-asyncio, shown on docs/talk.md:8)",
        ],
    ),
    "exception at the disconnect": (
        both(
            create(SCRIPT, "> connect /\n< accept\n> close\n"),
            add(APP, "    raise KeyError(1)\n"),
        ),
        ["KeyError: 1"],
    ),
    "misspelt transcript line": (
        change(SCRIPT, "> text hello", "> txt hello"),
        ["docs_src/talk/echo.ws:4: after `>` comes one of connect, *; this line says '> txt hello'"],
    ),
    "another order of what several clients see": (
        create(SCRIPT, TWO.replace("ann > text a\nann < text A\n", "ann < text A\nann > text a\n")),
        [
            "docs_src/talk/echo.ws:5: timed out after 0.5 s, waiting for `ann < text A`",
            "the handler of ann was *",
        ],
    ),
    "what one client sees, seen by another": (
        create(SCRIPT, TWO.replace("ann < text A\n", "bob < text A\n")),
        ["docs_src/talk/echo.ws:6: timed out after 0.5 s, waiting for `bob < text A`"],
    ),
    "a client who is not connected": (
        create(SCRIPT, TWO.replace("bob > connect /chat\nbob < accept\n", "")),
        ["docs_src/talk/echo.ws:6: bob is not connected: *; this line says 'bob > close'"],
    ),
    "a client who never closes": (
        create(SCRIPT, TWO.replace("bob > close\n", "")),
        [
            "docs_src/talk/echo.ws:4: timed out * bob's connection to end (if the client ends it, `bob > close` is *"
        ],
    ),
    "a line without a name": (
        create(SCRIPT, TWO + "> close\n"),
        ["docs_src/talk/echo.ws:9: where several clients talk, each line begins with the name of one; *"],
    ),
    "a startup that fails": (
        change(APP, "    await receive()\n", STARTUP.format(answer="failed", then="return")),
        ["the app's startup failed", "(docs_src/talk/echo.ws, memory-trio, *)"],
    ),
    "a shutdown that fails": (
        change(
            APP,
            "    await receive()\n",
            STARTUP.format(answer="complete", then='raise KeyError((await receive())["type"])'),
        ),
        ["the app raised an exception in its lifespan:", "KeyError: 'lifespan.shutdown'"],
    ),
    "illegal message": (
        change(
            APP,
            "    await receive()\n    await send({",
            '    await send({"type": "websocket.send", "text": ""})\n    await send({',
        ),
        [
            "illegal message before accept, close or a denial: expected 'websocket.accept' or *; "
            "the app sent {'type': 'websocket.send', 'text': ''}"
        ],
    ),
    "malformed message": (
        change(APP, '"code": 4000', '"code": 1005'),
        ["malformed message: 'code' is 1000-1003, 1007-1014 or 3000-4999, not 1005; the app sent *"],
    ),
    "hanging example": (
        change(APP, '        if message.get("text") == "bye":', '        if message.get("text") == "by":'),
        [
            "docs_src/talk/echo.ws:7: the session differs*",
            "+< text BYE",
            "docs_src/talk/echo.ws:8: timed out after *",
        ],
    ),
    "hanging handler": (
        change(APP, "        if message.get", "        await receive()\n        if message.get"),
        [
            "docs_src/talk/echo.ws:5: timed out after 0.5 s, waiting for `< text HELLO`",
            "the handler was waiting in docs_src/talk/echo.py:5, `await receive()`",
        ],
    ),
    "handler that does not end": (
        change(
            APP,
            '"so long"})\n            return',
            '"so long"})\n            while True:\n                await receive()',
        ),
        [
            "docs_src/talk/echo.ws:8: timed out after 0.5 s, waiting for the handler to end, after the connection's end",
            "the handler was waiting in docs_src/talk/echo.py:9, `await receive()`",
        ],
    ),
    "app that cannot be loaded": (
        add(APP, "\n\nimport does_not_exist  # noqa: E402, F401\n"),
        ["the app cannot be loaded:", "ModuleNotFoundError: No module named 'does_not_exist'"],
    ),
    # Signatures
    "wrong name in a signature": (
        change(PAGE, "accept(subprotocol=None", "accept(protocol=None"),
        [
            "docs/talk.md:22: the page shows `await channel.accept(protocol=None, *, mode='text')`; "
            "the code of shop:Channel is `await channel.accept(subprotocol=None, *, mode='text')`"
        ],
    ),
    "wrong default in a signature": (change(PAGE, 'mode="text")`', 'mode="json")`'), ["docs/talk.md:22: *"]),
    "missing parameter in a signature": (change(PAGE, ', *, mode="text")`', ")`"), ["docs/talk.md:22: *"]),
    "await missing": (
        change(PAGE, "`await channel", "`channel"),
        [
            "docs/talk.md:22: the page shows `channel.accept(*; the code of shop:Channel is `await channel.accept(*"
        ],
    ),
    "await too much": (change(PAGE, "`channel.iterate", "`await channel.iterate"), ["docs/talk.md:23: *"]),
    "unknown method": (
        change(PAGE, "iterate()`", "iter()`"),
        ["docs/talk.md:23: *shop:Channel has no 'iter'"],
    ),
    "unknown receiver": (
        change(PAGE, "* `channel.iterate", "* `socket.iterate"),
        ["docs/talk.md:23: *'socket', which is not configured (known: channel)*"],
    ),
    # Inline snippets
    "wrong value": (
        change(EXPECTED, "'/chat/ada'", "'/chat/bob'"),
        [
            "docs/talk.md:18: channel.scope[[]\"path\"[]] is '/chat/ada'; docs_src/talk/snippets.toml expects '/chat/bob'"
        ],
    ),
    "expression without expectation": (
        change(PAGE, "await receive()\n", "await receive()\nchannel.scope['type']\n"),
        [
            "docs/talk.md:20: channel.scope[[]'type'[]] is 'websocket'; docs_src/talk/snippets.toml expects nothing*"
        ],
    ),
    "expectation without expression": (
        change(PAGE, "await receive()\n", ""),
        ["docs_src/talk/snippets.toml: *expects {'type': 'websocket.connect'} of await receive(), which*"],
    ),
    "expectations without a snippet": (
        change(PAGE, "## Path", "## Paths"),
        [
            "docs_src/talk/snippets.toml: *\"Path\"* is for a snippet that the page does not have; it has 'Paths'"
        ],
    ),
    "misspelt key of the expectations": (
        change(EXPECTED, "path =", "pth ="),
        ["docs_src/talk/snippets.toml: [[]connection[]] has one of path, *, not 'pth'"],
    ),
    "expectations that are no TOML": (add(EXPECTED, "oops\n"), ["docs_src/talk/snippets.toml:*"]),
    "exception in a snippet": (
        change(PAGE, "await receive()\n", "channel.nothing\n"),
        ['  File "docs/talk.md", line 19, in <module>', "    channel.nothing", "AttributeError: *"],
    ),
    "snippet that hangs": (
        change(PAGE, "await receive()\n", "await receive()\nawait receive()\n"),
        [
            "docs/talk.md:13: timed out after 0.5 s; the snippet was waiting in docs/talk.md:20, `await receive()`"
        ],
    ),
    "syntax error": (change(PAGE, "await receive()\n", "await (\n"), ["docs/talk.md:19: *"]),
    "untrue print comment": (
        change(PAGE, "await receive()\n", "await receive()\nprint(1 + 1)\n#> 3\n"),
        ["docs/talk.md:21: the `#>` comments are not what is printed: `3` is shown, `2` is printed"],
    ),
    "untrue prompt": (
        add(PAGE, "\n```pycon\n>>> 1 + 1\n3\n```\n"),
        ["*docs/talk.md*, line 31*", "Expected:", "    3", "Got:", "    2"],
    ),
    # Style
    "lint": (
        change(PAGE, "from shop import Channel\n", "import os\nfrom shop import Channel\n"),
        ["docs/talk.md:14:8: F401 *"],
    ),
    "format": (
        change(PAGE, "channel = Channel(scope)", "channel=Channel( scope )"),
        ["-channel=Channel( scope )"],
    ),
    "format of a file": (
        change(APP, "    await receive()\n", "    await (receive())\n"),
        ["docs_src/talk/echo.py:1: not formatted"],
    ),
}

# A fence of Python that nobody ran, in each form that some Markdown renders as one.
for name, opening, closing in (
    ("backticks", "```python", "```"),
    ("tildes", "~~~python", "~~~"),
    ("four backticks", "````python", "````"),
    ("braces", "``` { .py }", "```"),
    ("braces with a title", '``` {.python title="x"}', "```"),
    ("py3", "```py3", "```"),
):
    FAULTS[f"unrun fence: {name}"] = (
        add(PAGE, f"\n{opening}\nundefined_name\n{closing}\n"),
        ["NameError: name 'undefined_name' is not defined"],
    )
FAULTS["unrun fence: within an admonition"] = (
    add(PAGE, "\n!!! note\n\n    ~~~~ {.py}\n    undefined_name\n    ~~~~\n"),
    ["NameError: name 'undefined_name' is not defined"],
)


if _nginx.BINARY is not None:
    FAULTS["directive of nginx"] = (
        add(PAGE, "\n```nginx\nserver {\n    listen 80;\n    lisen 81;\n}\n```\n"),
        ['docs/talk.md:33: nginx does not take it: unknown directive "lisen"'],
    )


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_turns_the_gate_red(project: Project, fault: str) -> None:
    plant, expected = FAULTS[fault]
    plant(project)
    result = project.run()
    with warnings.catch_warnings():
        # The run was in this process. A socket that the fault left open is closed here, not in another test.
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    for line in expected:
        result.stdout.fnmatch_lines([f"*{line}*" if line[0] not in "-+ *" else line + "*"])
    result.stdout.no_fnmatch_line("*plugin.py:*")


# What other processes replay, and what must be said of it all the same.
ELSEWHERE: dict[str, tuple[str, str, str, list[str]]] = {
    "another text": (SCRIPT, "HELLO", "HALLO", ["docs_src/talk/echo.ws:5: *", "+< text HELLO"]),
    "what the app prints": (APP, ".upper()", "[print('seen', __name__)]", ["seen *", "*TypeError*"]),
    "at times": (
        APP,
        "async def app",
        f"import os\n\nassert os.getpid() == {os.getpid()}, 'elsewhere'\n\n\nasync def app",
        ["*AssertionError: elsewhere*"],
    ),
    "the end of the process": (
        APP,
        "async def app",
        f"import os\n\nif os.getpid() != {os.getpid()}:\n    os._exit(3)\n\n\nasync def app",
        ["the process that replays in memory has ended: *"],
    ),
    "a handler that blocks": (
        APP,
        "        if message.get",
        "        __import__('time').sleep(3)\n        if message.get",
        ["*timed out: the handler blocks the event loop in *"],
    ),
    "a line that is not reached": (
        APP,
        "            return\n",
        "            return\n        if message['text'] == 'x':\n            raise OSError\n",
        ["docs/talk.md:3: no transcript reaches 1 lines of this code; *"],
    ),
    "a task": (
        APP,
        "    await receive()\n",
        "    await receive()\n    import asyncio\n\n    app.task = asyncio.create_task(asyncio.sleep(9))\n",
        ["*the app left a task behind: *"],
    ),
}


@pytest.mark.parametrize("fault", ELSEWHERE)
def test_what_another_process_replays_is_red_as_well(
    project: Project, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    monkeypatch.setattr(plugin, "FEW", 1)
    monkeypatch.setattr(plugin.Gate, "watched", False)
    project.replace(
        "pyproject.toml", "ws_doctest_pages", 'ws_doctest_backends = ["asyncio"]\nws_doctest_pages'
    )
    project.append(PAGE, INLINE)
    result = project.run("-k", "memory or reached")
    result.assert_outcomes(passed=4, deselected=13)
    file, old, new, expected = ELSEWHERE[fault]
    project.replace(file, old, new)
    if fault == "a handler that blocks":
        project.replace("pyproject.toml", '"0.5"', '"0.1"')
    result = project.run("-k", "memory or reached")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    for line in expected:
        result.stdout.fnmatch_lines([line if line[0] in "+*" else f"*{line}"])


def test_what_another_process_prints_is_shown_nowhere(
    project: Project, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(plugin, "FEW", 1)
    monkeypatch.setattr(plugin.Gate, "watched", False)
    project.replace(
        APP, "async def app", "import os\n\nos.write(2, b'printed %d' % os.getpid())\n\n\nasync def app"
    )
    project.append(PAGE, INLINE)
    result = project.run("-k", "memory")
    result.assert_outcomes(passed=4, deselected=16)
    captured = capfd.readouterr()
    for text in (str(result.stdout), str(result.stderr), captured.out, captured.err):
        assert "printed" not in text


@pytest.mark.parametrize("argument", ["-s", "--pdb", "--trace"])
def test_who_watches_the_examples_has_them_in_this_process(pytester: pytest.Pytester, argument: str) -> None:
    config = pytester.parseconfig(argument)
    gate = plugin.Gate(config)
    assert gate.watched
    assert plugin.Gate(pytester.parseconfig("--capture=fd")).watched == (
        (coverage := sys.modules.get("coverage")) is not None and coverage.Coverage.current() is not None
    )


def test_an_app_and_its_transcript_may_stand_in_one_page(project: Project) -> None:
    project.append(PAGE, INLINE)
    project.replace("pyproject.toml", "ws_doctest_servers = []", 'ws_doctest_servers = ["websockets-sansio"]')
    project.replace("pyproject.toml", '"0.5"', '"5"')
    result = project.run("-k", "transcript or app:")
    result.assert_outcomes(passed=4, deselected=18)


def test_update_writes_a_transcript_into_its_page(project: Project) -> None:
    project.append(
        PAGE,
        "\n!!! note\n\n" + "".join(f"    {line}\n" for line in INLINE.replace("< accept\n", "").split("\n")),
    )
    project.run("--ws-update", "-k", "transcript").assert_outcomes(passed=2, deselected=18)
    assert "    > connect /\n    < accept\n    > close\n    ```\n" in project.read(PAGE)
    project.run("-k", "transcript or page").assert_outcomes(passed=3, deselected=17)


def test_the_time_that_an_app_waits_is_skipped(project: Project) -> None:
    waits = "    import anyio\n\n    await anyio.sleep(7200)\n    await send({'type': 'websocket.send', 'text': 'now'})\n"
    project.replace(APP, 'accept"})\n', 'accept"})\n' + waits)
    project.replace(SCRIPT, "< accept", "< accept\n> wait 2h\n< text now")
    project.replace("pyproject.toml", "ws_doctest_servers = []", 'ws_doctest_servers = ["websockets-sansio"]')
    project.replace("pyproject.toml", '"0.5"', '"5"')
    project.run("-k", "echo.ws").assert_outcomes(passed=3, deselected=13)


def test_what_is_waited_for_may_have_begun_while_the_machine_was_busy(project: Project) -> None:
    project.write(
        APP,
        """
import time

import anyio


async def app(scope, receive, send):
    await receive()
    await send({"type": "websocket.accept"})
    await receive()
    now = anyio.current_time()
    time.sleep(0.5)  # the machine does something else
    await send({"type": "websocket.send", "text": "HELLO"})
    await anyio.sleep_until(now + 9)
    await send({"type": "websocket.send", "text": "now"})
    await receive()
""",
    )
    project.write(
        SCRIPT, "> connect /\n< accept\n> text hello\n< text HELLO\n> wait 9s\n< text now\n> close\n"
    )
    project.replace("pyproject.toml", "ws_doctest_servers = []", 'ws_doctest_servers = ["websockets-sansio"]')
    project.replace("pyproject.toml", '"0.5"', '"5"')
    project.run("-k", "echo.ws").assert_outcomes(passed=3, deselected=13)


@pytest.mark.parametrize(
    ("backends", "found"), [('["asyncio"]', "*memory-asyncio*"), ('["trio"]', "*memory-trio*")]
)
def test_a_project_chooses_its_event_loops(project: Project, backends: str, found: str) -> None:
    project.replace(
        "pyproject.toml", "ws_doctest_servers", f"ws_doctest_backends = {backends}\nws_doctest_servers"
    )
    project.write(SCRIPT, "> connect /chat?room=blue\n# a first word\n> text hello\n> text bye\n")
    project.run("--ws-update").assert_outcomes(passed=12, skipped=1)
    assert "< text HELLO\n" in project.read(SCRIPT)
    result = project.run("-v", "-k", "echo.ws")
    result.assert_outcomes(passed=1, deselected=12)
    result.stdout.fnmatch_lines([found])


@pytest.mark.parametrize(("setting", "passes"), [("normal", True), ("error", False), ("framework", False)])
def test_a_handler_may_end_by_the_disconnect(project: Project, setting: str, passes: bool) -> None:
    project.write(
        APP,
        """
class WebSocketDisconnect(Exception):
    pass


async def app(scope, receive, send):
    await receive()
    await send({"type": "websocket.accept"})
    while (await receive())["type"] != "websocket.disconnect":
        await send({"type": "websocket.send", "text": "again"})
    raise WebSocketDisconnect
""",
    )
    project.write(SCRIPT, "> connect /\n< accept\n> text hello\n< text again\n> close\n")
    project.replace(
        "pyproject.toml",
        "ws_doctest_servers = []",
        f'ws_doctest_disconnect = "{setting}"\nws_doctest_servers = ["websockets-sansio"]',
    )
    project.replace("pyproject.toml", '"0.5"', '"5"')
    outcomes = {"passed": 3} if passes else {"failed": 3}
    project.run("-k", "echo.ws").assert_outcomes(**outcomes, deselected=13)


def test_what_a_snippet_imports_may_take_longer_than_it_may_run(project: Project) -> None:
    project.write("late.py", "import time\n\ntime.sleep(8)\n")
    project.append(PAGE, "\n```python\nimport late\n\nassert late\n```\n")
    project.run("-k", "snippet").assert_outcomes(passed=4, deselected=15)
    project.write("late.py", "late\n")
    result = project.run("-k", "snippet and asyncio")
    result.stdout.fnmatch_lines(["*NameError: name 'late' is not defined*"])


def test_a_name_that_stands_for_a_constant(project: Project) -> None:
    project.replace(SCRIPT, "< text HELLO", "< text $shout")
    project.replace("pyproject.toml", "ws_doctest_servers = []", 'ws_doctest_servers = ["websockets-sansio"]')
    project.replace("pyproject.toml", '"0.5"', '"5"')
    result = project.run()
    result.assert_outcomes(passed=15, skipped=1, failed=1)
    result.stdout.fnmatch_lines(["docs_src/talk/echo.ws:5: $shout is 'HELLO' each time: write that"])
    # In one process, what differs from process to process is the same.
    project.run("-k", "memory or names").assert_outcomes(passed=3, deselected=14)


def test_no_pages_at_all_is_a_failure(project: Project) -> None:
    (project.root / PAGE).unlink()
    result = project.run()
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["no pages found in docs: there is nothing to check"])


def test_a_single_page_can_be_the_docs(project: Project) -> None:
    project.replace("pyproject.toml", '["docs"]', '["docs/talk.md"]')
    project.write("docs_src/talk/lost.py", "x = 1\n")
    result = project.run()
    result.assert_outcomes(failed=1, passed=13, skipped=1)
    result.stdout.fnmatch_lines(["docs_src/talk/lost.py: no page includes this file"])


def test_without_configuration_the_plugin_does_nothing(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_it(): pass")
    pytester.makefile(".md", page="```python\nundefined\n```")
    pytester.runpytest_inprocess().assert_outcomes(passed=1)


ELSEWHERE_MISSPELT = "*ws_doctest_elsewhere: expected FOLDER: REASON, came 'docs_src/t*"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"0.5"', '"soon"', "*ws_doctest_time_limit: expected a number above 0, came 'soon'*"),
        (
            "channel=shop",
            "channel shop",
            "*ws_doctest_receivers: expected NAME=module:Class, came 'channel shop*",
        ),
        (
            "ws_doctest_servers",
            'ws_doctest_elsewhere = ["docs_src/tlak: there"]\nws_doctest_servers',
            ELSEWHERE_MISSPELT,
        ),
        (
            "ws_doctest_servers",
            'ws_doctest_elsewhere = ["docs_src/talk:"]\nws_doctest_servers',
            ELSEWHERE_MISSPELT,
        ),
    ],
)
def test_a_misspelt_configuration_is_one_line(project: Project, old: str, new: str, message: str) -> None:
    project.replace("pyproject.toml", old, new)
    result = project.run()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([message])


def elsewhere(project: Project) -> None:
    """Have the examples run by another environment than this one."""
    setting = 'ws_doctest_elsewhere = ["docs_src/talk: make floor, where the dance floor is"]\n'
    project.replace("pyproject.toml", "ws_doctest_servers", setting + "ws_doctest_servers")


def test_examples_that_run_elsewhere_are_counted_with_the_reason(project: Project) -> None:
    elsewhere(project)
    project.replace(APP, "async def app", "import dance_floor  # noqa: F401\n\n\nasync def app")
    result = project.run()
    result.assert_outcomes(passed=11, skipped=2)
    result.stdout.fnmatch_lines(
        ["checked: *; skipped: 2", "skipped docs/talk.md:8: make floor, where the dance floor is"]
    )


def test_where_the_key_is_not_set_they_are_run(project: Project) -> None:
    project.replace(APP, "async def app", "import dance_floor  # noqa: F401\n\n\nasync def app")
    result = project.run()
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["*ModuleNotFoundError: No module named 'dance_floor'*"])


@pytest.mark.parametrize("fault", ["format of a file", "example without transcript", "transcript not shown"])
def test_what_needs_no_environment_is_checked_all_the_same(project: Project, fault: str) -> None:
    elsewhere(project)
    plant, expected = FAULTS[fault]
    plant(project)
    result = project.run()
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    for line in expected:
        result.stdout.fnmatch_lines([f"*{line}*" if line[0] not in "-+ *" else line + "*"])


def test_a_server_that_does_not_start_shows_its_output(project: Project) -> None:
    project.replace("pyproject.toml", "ws_doctest_servers = []", 'ws_doctest_servers = ["carrier-pigeon"]')
    result = project.run("-k", "uvicorn")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(
        ["uvicorn with --ws carrier-pigeon is not running (exit status 1); its output:", "*carrier-pigeon*"]
    )


def test_the_command_line_runs_the_gate(project: Project) -> None:
    project.write("docs_src/talk/lost.py", "x = 1\n")
    for command, status in (("check", 1), ("update", 1)):
        result = project.pytester.run(sys.executable, "-m", "ws_doctest", command, "docs", timeout=60)
        assert result.ret == status
        result.stdout.fnmatch_lines(["docs_src/talk/lost.py: no page includes this file"])


# --ws-update


def test_update_writes_what_is_seen_and_keeps_the_rest(project: Project) -> None:
    before = project.read(SCRIPT)
    project.write(SCRIPT, "> connect /chat?room=blue\n# a first word\n> text hello\n> text bye\n")
    project.write(EXPECTED, "# mine\n[connection]\npath = '/chat/ada'  # yes\n")
    assert project.run().ret == pytest.ExitCode.TESTS_FAILED
    assert project.read(SCRIPT) == "> connect /chat?room=blue\n# a first word\n> text hello\n> text bye\n"
    project.run("--ws-update").assert_outcomes(passed=14, skipped=1)
    assert project.read(SCRIPT) == before.replace("# a first word\n", "").replace(
        "< accept\n", "< accept\n# a first word\n"
    )
    assert project.read(EXPECTED) == (
        "# mine\n[connection]\npath = '/chat/ada'  # yes\n\n[snippets.Path.values]\n"
        "'channel.scope[\"path\"]' = \"'/chat/ada'\"\n'await receive()' = \"{'type': 'websocket.connect'}\"\n"
    )
    project.run().assert_outcomes(passed=14, skipped=1)


def test_update_writes_what_several_clients_see(project: Project) -> None:
    project.write(SCRIPT, "".join(line + "\n" for line in TWO.splitlines() if ">" in line))
    project.run("--ws-update", "-k", "not reached").assert_outcomes(passed=13, skipped=1, deselected=1)
    assert project.read(SCRIPT) == TWO
    project.run("-k", "not reached").assert_outcomes(passed=13, skipped=1, deselected=1)


def test_update_leaves_what_is_true_untouched(project: Project) -> None:
    before = {name: project.read(name) for name in FILES}
    project.run("--ws-update").assert_outcomes(passed=14, skipped=1)
    assert {name: project.read(name) for name in FILES} == before


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        (APP, '"so long"})\n            return', '"so long"})\n            raise KeyError(1)', "KeyError: 1"),
        (SCRIPT, "> text bye\n", "> text bye\n> text more\n", "*the session had ended before `> text more`"),
        (
            APP,
            '            await send({"type": "websocket.close"',
            '            await receive()\n            send({"type": "websocket.close"',
            "*end the transcript with `> close`",
        ),
    ],
)
def test_update_writes_nothing_of_a_session_that_went_wrong(
    project: Project, name: str, old: str, new: str, message: str
) -> None:
    if name == SCRIPT:
        project.write(SCRIPT, project.read(SCRIPT).split("< json")[0])
    project.replace(name, old, new)
    before = project.read(SCRIPT)
    result = project.run("--ws-update")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines([message, "*(docs_src/talk/echo.ws is left as it was)"])
    assert project.read(SCRIPT) == before


def test_a_test_file_is_run_and_its_output_compared(pytester: pytest.Pytester) -> None:
    root = pytester.path
    passing = root / "test_passing.py"
    passing.write_text("def test_it() -> None:\n    assert True\n")
    assert _tests.is_test(passing)
    assert not _apps.has_app(passing)
    assert _tests.run(passing, root) is None

    failing = root / "test_failing.py"
    failing.write_text("def test_it() -> None:\n    assert 1 == 2\n")
    found = _tests.run(failing, root) or ""
    assert found.startswith("test_failing.py fails, and no test_failing.out says so:\n")
    assert "E       assert 1 == 2" in found

    kept = _tests.output_of(failing)
    kept.write_text("")
    assert "+E       assert 1 == 2\n" in (_tests.run(failing, root) or "")
    assert _tests.run(failing, root, update=True) is None
    assert _tests.run(failing, root) is None
    assert str(root) not in kept.read_text()
    assert "1 failed in 0.01s\n" in kept.read_text()

    empty = root / "test_empty.py"
    empty.write_text("")
    assert "test_empty.py fails" in (_tests.run(empty, root) or "")
    _tests.output_of(empty).write_text("")
    assert "pytest could not run it" in (_tests.run(empty, root) or "")


@pytest.mark.parametrize("variable", ["CI", "BUILD_NUMBER"])
def test_the_output_compared_is_what_a_terminal_shows(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    """With these set, pytest writes its summary uncut; the kept output was cut to 80 columns."""
    root = pytester.path
    failing = root / "test_failing.py"
    failing.write_text(f"def test_it() -> None:\n    assert 1 == 2, '{'y' * 100}'\n")
    kept = _tests.output_of(failing)
    kept.write_text("")
    for name in ("CI", "BUILD_NUMBER"):
        monkeypatch.delenv(name, raising=False)
    assert _tests.run(failing, root, update=True) is None
    monkeypatch.setenv(variable, "true")
    assert _tests.run(failing, root) is None


def test_a_console_runs_with_the_files_that_the_page_shows(project: Project) -> None:
    shown = "\n```py title='add.py'\nprint(1 + 1)\n#> 2\n```\n\n```console\n$ python \\\n> add.py\n2\n$ pytest --version\npytest …\n...\n```\n"
    project.append(PAGE, shown)
    result = project.run("-k", "console")
    result.assert_outcomes(passed=1, deselected=20)
    result.stdout.fnmatch_lines(["checked: 1 consoles; skipped: 0"])


NGINX = """\
map $http_upgrade $upgrade { default ''; "~*^web{1}" websocket; }
# a comment; with marks {
server {
    location ~ \\.(gif|png)$ { return 301 https://$host/${uri}x; }
}
"""


@pytest.mark.parametrize(
    "part",
    [NGINX, "proxy_read_timeout 60s;", "location / { proxy_pass http://127.0.0.1:1; }", "events { }", ""],
)
@pytest.mark.parametrize("binary", [_nginx.BINARY, None])
def test_a_part_of_a_configuration_of_nginx(
    part: str, binary: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_nginx, "BINARY", binary)
    assert _nginx.problem(part) is None


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("}\n#", "\n#", 1),
        ("''", "'", 1),
        ("x; }", "x }", 4),
        ("server {", "{", 3),
        ("uri}x; }", "uri}x;; }", 4),
        ("}\n}\n", "}\n}\n}\n", 6),
    ],
)
def test_planted_structure(old: str, new: str, line: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_nginx, "BINARY", None)
    assert old in NGINX
    found = _nginx.problem(NGINX.replace(old, new, 1))
    assert found is not None
    assert found[0] == line


@pytest.mark.skipif(_nginx.BINARY is None, reason="nginx is not installed: what it says cannot be asked")
@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("return 301", "return abc", 4),
        ("$host/", "$hots/", 4),
        ("location ~", "location ?", 4),
        ("}\n}\n", "}\n    proxy_pass http://x;\n}\n", 5),
        (
            "server {",
            "upstream a { server 127.0.0.1; }\nserver {\n    location /a { proxy_pass http://b; }",
            5,
        ),
    ],
)
def test_planted_directive(old: str, new: str, line: int) -> None:
    assert old in NGINX
    found = _nginx.problem(NGINX.replace(old, new, 1))
    assert found is not None
    assert found[0] == line


@pytest.mark.skipif(_nginx.BINARY is None, reason="nginx is not installed: what it says cannot be asked")
def test_what_only_this_machine_lacks_is_no_fault() -> None:
    lacking = "server { listen 443 ssl; ssl_certificate /no/such.pem; ssl_certificate_key /no/such.key; }"
    assert _nginx.problem(lacking) is None
    assert _nginx.problem("location / { proxy_pass http://backend.invalid; }") is None


def test_names_and_options_that_are_there(project: Project) -> None:
    project.replace("pyproject.toml", "ws_doctest_servers", 'ws_doctest_names = ["shop"]\nws_doctest_servers')
    project.replace(
        "pyproject.toml", "ws_doctest_servers", 'ws_doctest_words = ["--of-others"]\nws_doctest_servers'
    )
    project.write("run.py", 'OPTIONS = ["--mine"]\n')
    project.append(
        PAGE,
        "\n`--mine 3`, `--of-others`, `--ws-update`, `--ws wsproto`, `--lifespan=off`, `--strict`, `open_door`, `open_it`\n"
        "\n```python\ndef open_it() -> None: ...\n\n\nopen_it()\n```\n",
    )
    result = project.run("-k", "names")
    result.assert_outcomes(passed=1, deselected=19)


def test_files_of_tests_are_run_together_and_told_apart(pytester: pytest.Pytester) -> None:
    root = pytester.path
    files = {
        "test_good.py": "def test_it() -> None:\n    assert True\n",
        "test_bad.py": "def test_it() -> None:\n    assert 1 == 2\n\n\ndef test_other() -> None:\n    assert True\n",
        "test_empty.py": "",
        "test_broken.py": "import no_such_module\n",
        "test_shown.py": "def test_it() -> None:\n    assert True\n",
        "test_shown.out": "",
    }
    for name, text in files.items():
        (root / name).write_text(text)
    paths = [root / name for name in files if name.endswith(".py")]
    assert _tests.passing(paths, root) == {root / "test_good.py"}


def test_a_failing_test_file_beside_another_one_is_shown(project: Project) -> None:
    for name, value in (("one", "1"), ("two", "2")):
        project.write(f"docs_src/talk/test_{name}.py", f"def test_it() -> None:\n    assert {value} == 1\n")
        project.append(PAGE, f"\n```python\n{{!> ../docs_src/talk/test_{name}.py !}}\n```\n")
    result = project.run("-k", "pytest")
    result.assert_outcomes(passed=1, failed=1, deselected=19)
    result.stdout.fnmatch_lines(["docs_src/talk/test_two.py fails, and no test_two.out says so:"])


def test_what_servers_import_before_they_are_forked(tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    (tmp_path / "one.py").write_text(
        "import shop.till\nimport json\nfrom starlette.routing import Route\nfrom . import x\n"
    )
    (tmp_path / "two.py").write_text("import (\n")
    (tmp_path / "three.py").write_text("def later():\n    import anyio.abc\n")
    examples = [tmp_path / name for name in ("one.py", "two.py", "three.py")]
    assert _apps.imports_of(examples, tmp_path) == ["json", "starlette.routing", "anyio.abc"]


def test_one_example_on_two_pages_is_replayed_twice(project: Project) -> None:
    """Over one server one after the other, over several servers at the same time."""
    project.write("docs/again.md", project.read(PAGE).partition("## Path")[0])
    project.replace(
        "pyproject.toml", "ws_doctest_servers = []", 'ws_doctest_servers = ["websockets-sansio", "wsproto"]'
    )
    project.replace("pyproject.toml", '"0.5"', '"5"')
    project.run("-k", "uvicorn").assert_outcomes(passed=4, deselected=21)

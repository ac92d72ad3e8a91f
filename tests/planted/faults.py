"""Faults in pages, examples, transcripts, figures, READMEs and configuration, one at a time, of every kind.

Written before anybody looked which of them are seen. `__main__.py` counts how many `pytest --ws-pages` and
`pytest tests/docs` notice, and whether they say on which page and in which line.
"""

# ruff: noqa: E501, RUF001 - what is planted are lines of pages

from __future__ import annotations

from tests.planted.planting import Fault, Plant, add, change, create, find, substitute

FAULTS: list[Fault] = []


def fault(kind: str, name: str, *plants: Plant, alone: bool = False) -> None:
    """Add one to the list."""
    FAULTS.append(Fault(name, plants, kind, alone))


# 1. Shown and not run

NOT_RUN = "shown and not run"
fault(
    NOT_RUN,
    "an app in the page calls a method that does not exist",
    change(
        "docs/websockets.md",
        "    websocket = WebSocket(scope, receive, send)\n    await websocket.close()\n```",
        "    websocket = WebSocket(scope, receive, send)\n    await websocket.shut()\n```",
    ),
)
fault(
    NOT_RUN,
    "an app in a page without a session",
    add(
        "docs/concepts/errors.md",
        "\n```python\nasync def app(scope, receive, send):\n    await send(nothing)\n```\n",
    ),
)
fault(
    NOT_RUN,
    "a function that nobody calls",
    change(
        "docs/concepts/errors.md",
        "print(websocket.closed_by)\n#> server\n```",
        "print(websocket.closed_by)\n#> server\n\n\nasync def later():\n    await websocket.reopen()\n```",
    ),
)
fault(
    NOT_RUN,
    "a line of an example that no session reaches",
    change(
        "docs_src/guides/open/echo.py",
        "            await websocket.send_text",
        '            if text == "quit":\n                await websocket.leave()\n            await websocket.send_text',
    ),
)
fault(
    NOT_RUN,
    "an option in a fence that is skipped",
    change(
        "docs/guides/limits.md",
        "LimitGuard(app, messages_per_second=20,",
        "LimitGuard(app, messages_a_second=20,",
    ),
)
fault(
    NOT_RUN,
    "an argument in a fence of text",
    add("docs/guides/open.md", "\n```text\nwebsocket.open(buffer_mesages=0)\n```\n"),
)

# 2. Shown in the wrong place

WRONG_PLACE = "shown in the wrong place"
fault(
    WRONG_PLACE,
    "a session below another app",
    change("docs/guides/open.md", "open/idle.ws !}", "open/heartbeat.ws !}"),
)
fault(
    WRONG_PLACE,
    "a session of another page",
    change("docs/index.md", "index/echo.ws !}", "errors/client_left.ws !}"),
)
fault(
    WRONG_PLACE,
    "an example that is shown below the wrong heading",
    change("docs/websockets.md", "#### Cookies", "#### Cookie jar"),
    alone=True,
)
fault(
    WRONG_PLACE,
    "a file of a console under another title",
    change("docs/project/ws-doctest.md", '````markdown title="README.md"', '````markdown title="GUIDE.md"'),
)
fault(
    WRONG_PLACE,
    "the diagram of what is sent where that of what is received belongs",
    change("docs/concepts/lifecycle.md", "{!> lifecycle-receive.svg !}", "{!> lifecycle-send.svg !}"),
)

# 3. Silently out of sight

OUT_OF_SIGHT = "out of sight"
fault(
    OUT_OF_SIGHT,
    "a page outside the navigation",
    create("docs/guides/tornado.md", "# Tornado\n\nNothing yet.\n"),
    alone=True,
)
fault(OUT_OF_SIGHT, "a page in another form", create("docs/more.rst", "More\n====\n"), alone=True)
fault(
    OUT_OF_SIGHT,
    "two servers fewer",
    change(
        "pyproject.toml",
        '["websockets-sansio", "wsproto", "websockets", "lilya.websockets.uvicorn:WebSocketProtocol"]',
        '["websockets-sansio", "wsproto"]',
    ),
    alone=True,
)
fault(
    OUT_OF_SIGHT,
    "no pages",
    change("pyproject.toml", 'ws_doctest_pages = [\n    "docs",\n', "ws_doctest_pages = [\n"),
    alone=True,
)
fault(
    OUT_OF_SIGHT,
    "a snippet that is skipped",
    change(
        "docs/websockets.md",
        "For instance: `websocket['path']` will return the ASGI path.\n\n",
        "For instance: `websocket['path']` will return the ASGI path.\n\n<!-- ws-doctest: skip it is obvious -->\n",
    ),
)
fault(
    OUT_OF_SIGHT,
    "a folder of examples that is run elsewhere",
    change(
        "pyproject.toml",
        "ws_doctest_elsewhere = [",
        'ws_doctest_elsewhere = ["docs_src/draining: it takes long", ',
    ),
    alone=True,
)
fault(
    OUT_OF_SIGHT,
    "a page that the site leaves out",
    change(
        "mkdocs.yml",
        "exclude_docs: |\n",
        f"exclude_docs: |\n  {find('docs/draining.md').removeprefix('docs/')}\n",
    ),
    alone=True,
)
fault(
    OUT_OF_SIGHT,
    "a cell of MyST",
    add("docs/concepts/errors.md", "\n```{code-cell} python\nwebsocket.no_such_thing\n```\n"),
)
fault(
    OUT_OF_SIGHT,
    "a build that is not strict",
    substitute(
        "noxfile.py",
        r'(\n {12}session\.run\("mkdocs", "build"), "--strict", "--clean"\)',
        r'\1, "--clean")',
    ),
    alone=True,
)

# 4. The specification

SPECIFICATION = "the specification"
fault(
    SPECIFICATION,
    "a sentence is gone",
    change(
        "docs/websockets.md", "This approach ensures proper upkeep of the WebSocket's internal state.\n", ""
    ),
)
fault(SPECIFICATION, "a bullet is gone", change("docs/websockets.md", "* `websocket.iter_bytes()`\n", ""))
fault(
    SPECIFICATION,
    "a word is another one",
    change(
        "docs/websockets.md",
        "JSON messages are sent by default using text data frames.",
        "JSON messages are sent by default using binary data frames.",
    ),
)
fault(
    SPECIFICATION,
    "a snippet of it is another one",
    change("docs/websockets.md", "websocket.query_params['search']", "websocket.query_params.get('search')"),
)
fault(
    SPECIFICATION,
    "a section that nobody recorded",
    add("docs/websockets.md", "\n#### Compression\n\nMessages may be compressed.\n"),
)
fault(
    SPECIFICATION,
    "a heading of it is gone",
    change("docs/websockets.md", "#### Path Params\n", ""),
    alone=True,
)

# 5. What the pages say about behaviour

BEHAVIOUR = "behaviour in words"
fault(
    BEHAVIOUR,
    "the first of two cookies",
    change(
        "docs/websockets.md",
        "Of two cookies with one name, the last counts.",
        "Of two cookies with one name, the first counts.",
    ),
)
fault(
    BEHAVIOUR,
    "the last of two parameters",
    change(
        "docs/websockets.md",
        "`[]` and `get` give the first value, `getall` gives every one.",
        "`[]` and `get` give the last value, `getall` gives every one.",
    ),
)
fault(BEHAVIOUR, "a code in a session", change("docs_src/guides/open/idle.ws", "1001", "1000"))
fault(
    BEHAVIOUR,
    "how a block ends that raises",
    change(
        "docs/guides/open.md",
        "| It raises. | close 1011, without a reason |",
        "| It raises. | close 1000, without a reason |",
    ),
)
fault(
    BEHAVIOUR,
    "what a second receive raises",
    change(
        "docs/concepts/errors.md",
        "| Receive in two tasks at the same time | `WebSocketRuntimeError` in the second |",
        "| Receive in two tasks at the same time | `WebSocketClosed` in the second |",
    ),
)
fault(
    BEHAVIOUR,
    "a comment of what is printed",
    change("docs/guides/open.md", "#> ['First', 'Second']", "#> ['Second', 'First']"),
)

# 6. Signatures and names

SIGNATURES = "signatures and names"
fault(
    SIGNATURES,
    "a default of a function",
    change("docs/guides/draining.md", "close_all(websockets, code=1012,", "close_all(websockets, code=1001,"),
)
fault(
    SIGNATURES,
    "a default in a table",
    change(
        "docs/guides/testing.md", "| `close(code=1000, reason=None)` |", "| `close(code=1001, reason=None)` |"
    ),
)
fault(
    SIGNATURES,
    "an option in words",
    change(
        "docs/guides/open.md",
        "The reader keeps up to `buffer_messages=64` messages",
        "The reader keeps up to `buffer_messages=65` messages",
    ),
)
fault(
    SIGNATURES,
    "a method that does not exist",
    change(
        "docs/guides/open.md",
        "`wait_disconnected()` returns at once. No message",
        "`wait_disconnect()` returns at once. No message",
    ),
)
fault(
    SIGNATURES,
    "a bullet of a method is gone",
    change("docs/guides/open.md", "* `websocket.select_subprotocol(preferences)`\n", ""),
)
fault(
    SIGNATURES,
    "a public name is not in the reference",
    change(
        "docs/reference/websockets.md", "::: lilya.websockets.PreparedMessage", "::: lilya.websockets.URL"
    ),
    alone=True,
)
fault(
    SIGNATURES,
    "an attribute that does not exist",
    change(
        "docs/concepts/errors.md", "It has a `code`, always an `int`", "It has a `codes`, always an `int`"
    ),
)
fault(
    SIGNATURES,
    "an argument that does not exist",
    change(
        "docs/guides/channels.md",
        '`channels.publish_from_thread("room:1", data)`',
        '`channels.publish_from_thread("room:1", data, wait=True)`',
    ),
)
fault(
    SIGNATURES,
    "a setting of the gate",
    change("packages/ws-doctest/README.md", "| `ws_doctest_backends` |", "| `ws_doctest_loops` |"),
)

# 7. Facts in tables and words

FACTS = "facts"
fault(
    FACTS,
    "the limit of a reason",
    change("docs/websockets.md", "and a reason of at most 123 bytes.", "and a reason of at most 125 bytes."),
)
fault(
    FACTS,
    "the codes that may be sent",
    change("docs/websockets.md", "1000–1003, 1007–1014 and 3000–4999", "1000–1003, 1007–1015 and 3000–4999"),
)
fault(
    FACTS,
    "the close code of a slow client",
    change(
        "docs/websockets.md",
        "A client is disconnected with code 1013 if 64 messages",
        "A client is disconnected with code 1012 if 64 messages",
    ),
)
fault(
    FACTS,
    "the answer to a handshake",
    change("docs/guides/uvicorn.md", "| HTTP/1.0 | 505 |", "| HTTP/1.0 | 400 |"),
)
fault(
    FACTS,
    "a setting of the protocol",
    change(
        "docs/guides/uvicorn.md",
        "compressed at the class's `compression_level`, 3.",
        "compressed at the class's `compression_level`, 4.",
    ),
)
fault(
    FACTS,
    "a time limit in words",
    change(
        "docs/guides/uvicorn.md",
        "The 10 seconds are the class's `head_timeout`.",
        "The 15 seconds are the class's `head_timeout`.",
    ),
)
fault(
    FACTS,
    "the code at the end",
    change("docs/guides/uvicorn.md", "| reset, or hung up | 1006 |", "| reset, or hung up | 1005 |"),
)
fault(
    FACTS,
    "a default of an option",
    change("docs/reference/channels.md", "| `max_messages` | 256 |", "| `max_messages` | 512 |"),
)
fault(
    FACTS,
    "an error in a table",
    change(
        "docs/concepts/errors.md",
        "| A scope that is not of type `websocket` | `ValueError` |",
        "| A scope that is not of type `websocket` | `TypeError` |",
    ),
)
fault(
    FACTS,
    "a step of the lifecycle",
    change(
        "docs/concepts/lifecycle.md",
        "| `CONNECTING` | `CONNECTED` | | `DISCONNECTED` |\n| `CONNECTED` | | `CONNECTED` |",
        "| `CONNECTING` | `CONNECTED` | | |\n| `CONNECTED` | | `CONNECTED` |",
    ),
)
fault(
    FACTS,
    "what a server did",
    change(
        "docs/concepts/servers.md",
        "| It closes with 4001 and a reason | `close 4001 été` | quietly, `client 4001 été` |",
        "| It closes with 4001 and a reason | `close 4001 été` | quietly, `client 1000` |",
    ),
)
fault(
    FACTS,
    "a figure that was measured",
    change(
        "docs/guides/observing.md", "| `PrometheusObserver` | 108,340 |", "| `PrometheusObserver` | 18,340 |"
    ),
)
fault(
    FACTS,
    "who closed",
    change(
        "docs/guides/open.md",
        '| `"network"` | the connection was lost |',
        '| `"nobody"` | the connection was lost |',
    ),
)
fault(
    FACTS,
    "the time of a membership",
    change(
        "docs/guides/deploying.md",
        "Their old memberships expire after 30 seconds;",
        "Their old memberships expire after 20 seconds;",
    ),
)
fault(
    FACTS,
    "a limit of the class",
    change(
        "docs/concepts/security.md",
        "up to 64 messages and 1,048,576 bytes wait for your handler",
        "up to 32 messages and 1,048,576 bytes wait for your handler",
    ),
)

# 8. Commands and other fences

COMMANDS = "commands and data"
fault(
    COMMANDS,
    "an option of uvicorn",
    change(
        "docs/guides/draining.md",
        "uvicorn echo:app --timeout-graceful-shutdown 5\n",
        "uvicorn echo:app --timeout-graceful 5\n",
    ),
)
fault(
    COMMANDS,
    "a path for pytest",
    change("docs/guides/deploying.md", "tests/docs/test_deploying.py", "tests/docs/test_deployment.py"),
)
fault(
    COMMANDS,
    "a session of nox",
    change("README.md", "| `python3 noxfile.py -s serve` |", "| `python3 noxfile.py -s server` |"),
)
fault(
    COMMANDS,
    "an extra of the package",
    change(
        "docs/guides/typed.md",
        'websockets "./packages/lilya-websockets[pydantic]"',
        'websockets "./packages/lilya-websockets[pydantics]"',
    ),
)
fault(
    COMMANDS,
    "the output of a console",
    change("docs/project/ws-doctest.md", "checked: 2 replays; skipped: 0", "checked: 3 replays; skipped: 0"),
)
fault(
    COMMANDS,
    "a directive of nginx",
    change("docs/guides/deploying.md", "        proxy_read_timeout 60s;\n", "        proxy_read_time 60s;\n"),
)
fault(
    COMMANDS,
    "TOML that is none",
    change(
        "docs/project/transcripts.md",
        'ws_doctest_asyncio = ["docs_src/guides/quart: Quart runs on asyncio only"]',
        'ws_doctest_asyncio = ["docs_src/guides/quart: Quart runs on asyncio only"',
    ),
)
fault(
    COMMANDS,
    "JavaScript that is none",
    change(
        "docs/guides/access.md",
        "const {ticket} = await answer.json();",
        "const {ticket = await answer.json();",
    ),
)
fault(
    COMMANDS,
    "an action of the command line",
    change(
        "docs/guides/channels.md",
        "--url redis://localhost members room:1\n",
        "--url redis://localhost member room:1\n",
    ),
)

# 9. READMEs, changelog, docstrings, HTML

OTHERS = "READMEs and the like"
fault(
    OTHERS,
    "a session in a README",
    substitute(
        "packages/lilya-websockets/README.md",
        r"(tested:\n\n```ws\n(?:.*\n){3}< text )You said: ",
        r"\1",
    ),
)
fault(
    OTHERS,
    "the name of the package",
    change(
        "packages/lilya-websockets/README.md",
        "pip install ./packages/lilya-websockets",
        "pip install ./packages/lilya-websocket",
    ),
)
fault(
    OTHERS,
    "a name in the changelog",
    change("CHANGELOG.md", "* `add_cleanup()` runs a callback", "* `add_clean_up()` runs a callback"),
)
fault(
    OTHERS,
    "a default in a docstring",
    change(
        "packages/lilya-websockets/src/lilya/websockets/_websocket.py",
        "code: A close code that an endpoint may send: 1000-1003, 1007-1014, 3000-4999.",
        "code: A close code that an endpoint may send: 1000-1003, 1007-1015, 3000-4999.",
    ),
)
fault(
    OTHERS,
    "a page that the README does not list",
    substitute("README.md", r"\* \[Lifecycle\]\(docs/[\w/]*lifecycle\.md\).*\n", ""),
)
fault(
    OTHERS,
    "a constant of the page of the chat",
    change("docs_src/guides/chat/chat.html", "longestWait: 15_000", "longestWait: 30_000"),
)
fault(
    OTHERS,
    "a link that leads nowhere",
    substitute(
        "README.md", r"\[Litestar\]\((docs/[\w/]*)litestar\.md\) and", r"[Litestar](\1lightstar.md) and"
    ),
)
fault(
    OTHERS,
    "an anchor that is not there",
    change("docs/guides/chat.md", "access.md#check-the-origin)", "access.md#check-origins)"),
    alone=True,
)

# 10. Leaks and chance

LEAKS = "leaks and chance"
START = "    websocket = WebSocket(scope, receive, send)\n"
fault(
    LEAKS,
    "a thread that goes on",
    change(
        "docs_src/index/echo.py",
        "    async with",
        '    import threading, time; threading.Thread(target=time.sleep, args=(3,), name="mine").start()\n'
        "    async with",
    ),
    alone=True,
)
fault(
    LEAKS,
    "a socket that stays open",
    change(
        "docs_src/websockets/sending.py", START, START + "    import socket; app.kept = socket.socket()\n"
    ),
)
fault(
    LEAKS,
    "a task that goes on",
    change(
        "docs_src/websockets/receiving.py",
        START,
        START
        + "    import asyncio, sniffio\n    if sniffio.current_async_library() == 'asyncio':\n        app.kept = asyncio.create_task(asyncio.sleep(3600))\n",
    ),
)
fault(
    LEAKS,
    "an error that is only logged",
    change(
        "docs_src/websockets/iterating.py",
        START,
        START + "    import logging; logging.getLogger('shop').error('sold out')\n",
    ),
)
fault(
    LEAKS,
    "a name for what is always the same",
    change("docs_src/guides/draining/echo.ws", "< text You said: Hello", "< text You said: $said"),
)
fault(
    LEAKS,
    "a value that is another one half of the time",
    change(
        "docs_src/concepts/lifecycle/states.py",
        START,
        START
        + "    import random\n    if random.random() < 0.5:\n        await websocket.close()\n        return\n",
    ),
)


# 11. Kinds that no list had: other packages' READMEs, pages about protocols and rights, the reference, settings

ELSEWHERE = "other pages and files"
CLIENT = "packages/lilya-websockets-js/README.md"
WIRE = "docs/guides/browser-wire.md"
fault(
    ELSEWHERE,
    "the size of the client",
    change(CLIENT, "less than 5 KiB minified", "less than 2 KiB minified"),
)
fault(ELSEWHERE, "the client's subprotocol", change(CLIENT, "`lilya.channels.v1`", "`lilya.channels.v2`"))
fault(
    ELSEWHERE, "an option that the client does not have", change(CLIENT, "{ history: 50 }", "{ recent: 50 }")
)
fault(
    ELSEWHERE,
    "where the client's file is",
    change(CLIENT, "lilya/websockets/channels/client.js", "lilya/websockets/client.js"),
)
fault(
    ELSEWHERE,
    "the default prefix of keys",
    change("docs/guides/redis-rights.md", "default prefix, `lilya`", "default prefix, `channels`"),
)
fault(ELSEWHERE, "a right too few", change("docs/guides/redis-rights.md", "`+get +set`", "`+get`"))
fault(ELSEWHERE, "a limit of serve", change(WIRE, "| `max_waiting` | 64 |", "| `max_waiting` | 32 |"))
fault(
    ELSEWHERE,
    "a field of a message is left out",
    change(
        WIRE, "optional `since`, `history`, `latest`, `presence`", "optional `since`, `history`, `presence`"
    ),
)
fault(ELSEWHERE, "the code of a refusal", change(WIRE, '`"forbidden"` unless', '`"denied"` unless'))
fault(
    ELSEWHERE,
    "a file that a text names",
    change("SECURITY.md", "(`docs/concepts/security.md`)", "(`docs/security.md`)"),
)
fault(
    ELSEWHERE,
    "a duration in a text",
    change(
        "docs/guides/deploying.md",
        "memberships expire after 30 seconds",
        "memberships expire after 60 seconds",
    ),
)
fault(
    ELSEWHERE,
    "the oldest Python of a README",
    substitute("packages/lilya-websockets/README.md", r"Python\s+3\.10 or newer", "Python\n3.9 or newer"),
)
fault(
    ELSEWHERE,
    "a name that the reference leaves out",
    change("docs/reference/limits.md", "::: lilya.websockets.limits.StoreUnavailable\n", ""),
)
fault(
    ELSEWHERE,
    "the extra that a namespace needs",
    change("docs/reference/redis.md", "Needs the extra `redis`", "Needs the extra `limits`"),
)
fault(
    ELSEWHERE,
    "a helper that the map of tests does not have",
    change("CONTRIBUTING.md", "`tests/docs/places.py`", "`tests/docs/lines.py`"),
)
fault(
    ELSEWHERE,
    "an address that leads nowhere any more",
    change("mkdocs.yml", "chat.md: guides/chat.md", "chat.md: guides/room.md"),
)
fault(
    ELSEWHERE,
    "the oldest Python in the metadata",
    change(
        "packages/lilya-websockets/pyproject.toml", 'requires-python = ">=3.10"', 'requires-python = ">=3.9"'
    ),
)

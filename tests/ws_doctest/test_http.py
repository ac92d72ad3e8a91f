"""Requests over HTTP in a transcript: signing in, cookies that are carried on, and what differs."""

# ruff: noqa: E501 - what is planted and what is said about it

from __future__ import annotations

import pytest

from ws_doctest import transcript
from ws_doctest.transcript import Request, Response, Step, TranscriptError

pytest_plugins = ["pytester"]

PAGE = """
# Sign in

```python
from secrets import token_hex


async def app(scope, receive, send):
    headers = dict(scope.get("headers", ()))
    if scope["type"] == "http":
        message = await receive()
        status = 200 if message["body"] == b"user=ada\\nword=x" else 401
        cookie = [(b"set-cookie", b"sid=" + token_hex(4).encode() + b"; Path=/")] if status == 200 else []
        await send({"type": "http.response.start", "status": status, "headers": cookie})
        await send({"type": "http.response.body", "body": f"{scope['method']} {scope['path']}".encode()})
    elif scope["type"] == "websocket":
        await receive()
        if b"cookie" not in headers:
            await send({"type": "websocket.close"})
            return
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": headers[b"cookie"].decode()})
        await receive()
```

```ws
ann > POST /login
ann > body user=bob
ann < 401
ann < body POST /login
ann > connect /
ann < deny 403
bob > POST /login
bob > body user=ada
bob > body word=x
bob < 200
bob < header set-cookie: sid=${sid:hex}; Path=/
bob > connect /
bob < accept
bob < text sid=$sid
bob > close
bob > GET /gone
bob < 401
```
"""


@pytest.fixture
def project(pytester: pytest.Pytester) -> pytest.Pytester:
    pytester.makepyprojecttoml(
        """
        [tool.pytest.ini_options]
        addopts = ["-p", "no:cacheprovider", "-p", "no:hypothesispytest"]
        ws_doctest_pages = ["sign-in.md"]
        ws_doctest_servers = ["websockets-sansio", "wsproto"]
        [tool.ruff]
        line-length = 110
        """
    )
    pytester.mkdir("docs_src")
    pytester.path.joinpath("sign-in.md").write_text(PAGE, encoding="utf-8")
    return pytester


def test_a_client_signs_in_and_keeps_its_cookie(project: pytest.Pytester) -> None:
    result = project.runpytest_inprocess("sign-in.md")
    result.assert_outcomes(passed=10)
    result.stdout.fnmatch_lines(["checked: *4 replays*"])


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        ("ann < 401\n", "ann < 200\n", ["sign-in.md:29: *", "-ann < 200", "+ann < 401"]),
        ("body POST /login", "body GET /login", ["-ann < body GET /login", "+ann < body POST /login"]),
        ("bob > body word=x\n", "", ["+bob < 401"]),
        ("${sid:hex}", "${sid:uuid}", ["-bob < header set-cookie: *"]),
        ("bob < text sid=$sid", "bob < text sid=", ["-bob < text sid=", "+bob < text sid=*"]),
        ("status == 200 else []", "status == 999 else []", ["+bob < deny 403"]),
        ('        message = await receive()\n', '        raise KeyError(1)\n', ["*the app raised an exception for POST /login:"]),
    ],
)  # fmt: skip
def test_what_differs_is_named(project: pytest.Pytester, old: str, new: str, found: list[str]) -> None:
    assert old in PAGE
    project.path.joinpath("sign-in.md").write_text(PAGE.replace(old, new, 1), encoding="utf-8")
    result = project.runpytest_inprocess("sign-in.md", "-k", "memory-asyncio")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    for line in found:
        result.stdout.fnmatch_lines([line])


def test_an_update_writes_the_answers(project: pytest.Pytester) -> None:
    short = PAGE.replace("ann < 401\nann < body POST /login\n", "").replace("bob < 401\n", "")
    project.path.joinpath("sign-in.md").write_text(short, encoding="utf-8")
    project.runpytest_inprocess("sign-in.md", "--ws-update", "-k", "memory").assert_outcomes(passed=2)
    text = project.path.joinpath("sign-in.md").read_text(encoding="utf-8")
    assert "ann > body user=bob\nann < 401\nann < body POST /login\nann > connect /\n" in text


def test_the_grammar_of_requests() -> None:
    script = transcript.parse("> GET /a?b=1\n> header x: y\n< 204\n> connect /\n")
    assert script.steps[:2] == (
        Step(True, Request("GET", "/a?b=1", (("x", "y"),))),
        Step(False, Response(204)),
    )
    assert transcript.format_steps(script.steps) == script.format()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("> GET\n", "takes a path"),
        ("> FETCH /\n", "after `>` comes one of"),
        ("> connect /\n< accept\n> GET /\n", "before its connection, or after its end"),
        ("> connect /\n< 200\n", "a status is the answer to a request"),
        ("> GET /\n< 200\n< 200\n", "a status is the answer to a request"),
        ("> GET /\n< text x\n", "a transcript starts with `> connect PATH`"),
        ("> connect /\n> body x\n", "`body` belongs directly below"),
    ],
)
def test_a_misspelt_request(text: str, found: str) -> None:
    with pytest.raises(TranscriptError, match=found):
        transcript.parse(text)

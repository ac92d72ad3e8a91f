"""Configurations of nginx: read by nginx itself where it is installed, otherwise for their structure.

No library is used: nginx knows its directives, where each may stand and what it takes. What can be said
without it (blocks, ends of directives, quotes) is a few lines.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

# Debian's is not on everybody's PATH.
BINARY = shutil.which("nginx", path=os.pathsep.join([*os.get_exec_path(), "/usr/sbin", "/usr/local/sbin"]))

# A page shows a whole file, or a part of `http`, `server` or `location`.
_AROUND = (
    ("", ""),
    ("events { } http {", "}"),
    ("events { } http { server {", "} }"),
    ("events { } http { server { location / {", "} } }"),
)
_TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
_TOKEN = re.compile(
    r"(?P<blank>\s+|\#[^\n]*)"
    r"|(?P<quoted>\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*')(?=[\s;{)]|$)"
    r"|(?P<mark>[{};])"
    r"|(?P<word>(?:\$\{|\\.|[^\s;{}\"'\\])(?:\$\{\w+\}|\\.|[^\s;{\\])*)",
    re.DOTALL,
)
_SAID = re.compile(r"\[emerg\] (?:\d+#\d+: )?(?P<message>.*?)(?: in \S+?:(?P<line>\d+))?\s*$", re.MULTILINE)
# What this machine lacks, and a reader's may have.
_OF_THE_MACHINE = re.compile(r"host not found|\((?:2|13): |bind\(\)|cannot load|no resolver|get(?:pw|gr)nam")
_VARIABLE = re.compile(r"unknown \"(\w+)\" variable")


def problem(text: str) -> tuple[int, str] | None:
    """Return what is wrong with a configuration, and in which of its lines, or ``None``."""
    found = _structure(text)
    return found if found or BINARY is None else _tested(text, BINARY)


def _structure(text: str) -> tuple[int, str] | None:
    opened: list[tuple[int, str]] = []
    words: list[str] = []
    place, line, start = 0, 1, 1
    while place < len(text):
        token = _TOKEN.match(text, place)
        if token is None:
            return line, f"nginx cannot read {text[place:].split(chr(10))[0]!r}"
        if token["mark"] is None and token["blank"] is None:
            start = line if not words else start
            words.append(token[0])
        elif token["mark"] == ";":
            if not words:
                return line, "`;` without a directive"
            words = []
        elif token["mark"] == "{":
            if not words:
                return line, "`{` without a directive"
            opened.append((line, words[0]))
            words = []
        elif token["mark"] == "}":
            if words:
                return start, f"the directive {words[0]} is not ended by `;`"
            if not opened:
                return line, "`}` without `{`"
            opened.pop()
        line += token[0].count("\n")
        place = token.end()
    if words:
        return start, f"the directive {words[0]} is not ended by `;`"
    return (opened[-1][0], f"the block {opened[-1][1]} is not closed") if opened else None


def _tested(text: str, binary: str) -> tuple[int, str] | None:
    said: list[tuple[bool, int, str]] = []
    with tempfile.TemporaryDirectory(prefix="ws-doctest-") as name:
        folder = Path(name)
        temporary = " ".join(f"{kind}_temp_path {folder}/{kind};" for kind in _TEMPORARY)
        for before, after in _AROUND:
            file = folder / "nginx.conf"
            own = before.replace("http {", f"http {{ access_log off; {temporary}")
            file.write_text(f"{own}\n{text}\n{after}\n", encoding="utf-8")
            done = subprocess.run(
                [binary, "-t", "-q", "-p", name, "-c", str(file), "-e", "stderr", "-g", f"pid {folder}/pid;"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                encoding="utf-8",
                timeout=60,
            )
            found = _SAID.search(done.stdout)
            if done.returncode == 0 or found is None or _is_of_the_machine(found["message"], text):
                # It is read to its end, or to where this machine lacks something.
                return None
            line = int(found["line"]) - 1 if found["line"] else _line_of_variable(found["message"], text)
            said.append(("not allowed here" not in found["message"], line, found["message"]))
    # The part of a file that it is, is the one of which nginx reads the most.
    _, line, message = max(said, key=lambda each: (each[1], each[0]))
    return line, f"nginx does not take it: {message}"


def _is_of_the_machine(message: str, text: str) -> bool:
    # A name without a dot is that of an `upstream`, where there are some.
    named = re.search(r'host not found in upstream "[^".]+"', message)
    if named and re.search(r"^\s*upstream\s", text, re.MULTILINE):
        return False
    return _OF_THE_MACHINE.search(message) is not None


def _line_of_variable(message: str, text: str) -> int:
    """Return where a variable stands that is unknown: nginx names no line, and has read all of the file."""
    found = _VARIABLE.search(message)
    used = re.search(rf"\$\{{?{found[1]}\b", text) if found else None
    return text.count("\n", 0, used.start()) + 1 if used else text.count("\n") + 1

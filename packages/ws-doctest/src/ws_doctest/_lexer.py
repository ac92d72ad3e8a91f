"""A Pygments lexer for transcripts, under the name ``ws``."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from pygments.lexer import RegexLexer, bygroups, using
from pygments.lexers.data import JsonLexer
from pygments.token import Comment, Error, Keyword, Name, Number, Operator, String, Text, Whitespace

# Pygments' own are without annotations.
_groups: Callable[..., object] = bygroups
_json: object = using(JsonLexer)  # type: ignore[no-untyped-call]


class TranscriptLexer(RegexLexer):
    """Colours what a client does and what it sees."""

    name = "WebSocket transcript"
    aliases: ClassVar[list[str]] = ["ws"]
    filenames: ClassVar[list[str]] = ["*.ws"]

    tokens: ClassVar[dict[str, list[tuple[object, ...]]]] = {
        "root": [
            (r"[ \t]*\n", Whitespace),
            (r"[ \t]*#.*\n", Comment.Single),
            (
                r"([ \t]*)((?:[A-Za-z][A-Za-z0-9_-]*)?)([ \t]*)([<>])([ \t]+)",
                _groups(Whitespace, Name.Label, Whitespace, Operator, Whitespace),
                "step",
            ),
            (r".+\n", Error),
        ],
        "step": [
            (r"(json-binary|json)([ \t]+)(.*)", _groups(Keyword, Whitespace, _json)),
            (r"(text|body)([ \t]+)(.*)", _groups(Keyword, Whitespace, String)),
            (r"(bytes|body-bytes)([ \t]*)(.*)", _groups(Keyword, Whitespace, Number.Hex)),
            (
                r"(header)([ \t]+)([^:\n]*)(:)(.*)",
                _groups(Keyword, Whitespace, Name.Attribute, Operator, String),
            ),
            (
                r"(close|deny)([ \t]*)(\d*)([ \t]*)(.*)",
                _groups(Keyword, Whitespace, Number.Integer, Whitespace, String),
            ),
            (
                r"(GET|HEAD|POST|PUT|PATCH|DELETE|OPTIONS)([ \t]+)(.*)",
                _groups(Keyword, Whitespace, Name.Constant),
            ),
            (r"([2-5]\d\d)([ \t]*)$", _groups(Number.Integer, Whitespace)),
            (r"(wait)([ \t]*)([\d.]*)(ms|s|min|h|)$", _groups(Keyword, Whitespace, Number.Float, Keyword)),
            (r"(connect|subprotocol|accept)([ \t]*)(.*)", _groups(Keyword, Whitespace, Name.Constant)),
            (r"[^\n]+", Text),
            (r"\n", Whitespace, "#pop"),
        ],
    }

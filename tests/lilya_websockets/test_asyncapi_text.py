"""Documents as JSON and as YAML: parsers read what was written, whatever it is."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lilya.websockets.asyncapi._text import to_json, to_yaml

yaml = pytest.importorskip("yaml", reason="PyYAML is not installed: nothing here reads YAML")

# Whatever a document may hold. A lone surrogate is no text that a file can hold.
TEXT = st.text(st.characters(exclude_categories=["Cs"])) | st.sampled_from(
    ["", "yes", "No", "null", "~", "1", "1e5", "0x1", "1:20", "=", "<<", "- a", "a: b", "a #b", "? a", "---"]
)
VALUES: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner),
)


@given(VALUES)
@example({"a": "b\nc", "d": ["e\n\n  f", {"g": "h\ni"}], "j": "\n", "k": " l\nm", "n": "o \np"})
@example(["2001-01-01", 1e22, -1e-7, 0.1, "\x85\u2028\ufeff\x7f", "a\tb\n\tc", "a\n ", "a\r\nb", "a\n#b"])
@example([[[], {}], [[1]], {"": {"a": [{}]}}])
def test_yaml_is_read_as_it_was_written(value: Any) -> None:
    assert yaml.safe_load(to_yaml(value)) == value


@given(VALUES)
def test_json_is_read_as_it_was_written(value: Any) -> None:
    assert json.loads(to_json(value)) == value


def test_what_people_see() -> None:
    value = {
        "asyncapi": "3.0.0",
        "on": True,
        "type": "application/json",
        "none": "null",
        "text": "One.\n\nTwo: it's  here.",
        "list": [{"a": 1, "b": []}, ["c"], "d"],
    }
    assert to_yaml(value) == (
        'asyncapi: "3.0.0"\n"on": true\ntype: application/json\nnone: "null"\n'
        "text: |-\n  One.\n\n  Two: it's  here.\n"
        "list:\n  - a: 1\n    b: []\n  -\n    - c\n  - d\n"
    )


@pytest.mark.parametrize("write", [to_json, to_yaml])
@pytest.mark.parametrize("value", [float("nan"), [float("inf")]])
def test_what_json_cannot_hold(write: Any, value: Any) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        write(value)


def test_a_lone_surrogate_is_escaped() -> None:
    assert to_json("\ud800") == '"\\ud800"\n'
    assert to_yaml(["\ud800"]) == '- "\\ud800"\n'
    assert to_yaml(["a\n\ud800"]) == '- "a\\n\\ud800"\n'

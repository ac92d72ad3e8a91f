"""What readers search for leads to the guide: its words are tags of the page, which the search takes first.

That the search does so is tried in a browser, by `nox -s hosted`.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.docs.pages import DOCS, at

pytestmark = pytest.mark.page("docs/guides/access.md", "tags:")

# A word, and the guide for it.
SEARCHES = {
    "authentication": "guides/access",
    "FastAPI": "guides/fastapi",
    "pydantic": "guides/typed",
    "reconnect": "guides/browser",
    "JavaScript": "guides/browser",
    "broadcast": "guides/channels",
    "rooms": "guides/channels",
    "groups": "guides/channels",
    "who is online": "guides/channels",
    "notifications": "guides/channels",
    "last value": "guides/channels",
    "kick": "guides/channels",
    "ban": "guides/channels",
    "Celery": "guides/channels",
    "Django": "guides/django",
    "scale": "guides/deploying",
    "scaling": "guides/deploying",
    "multiple workers": "guides/deploying",
    "load balancer": "guides/deploying",
    "sticky sessions": "guides/deploying",
    "failover": "guides/redis",
    "health check": "guides/redis",
    "ACL": "guides/redis-rights",
    "Node.js": "guides/wire",
    "ordering": "concepts/delivery",
    "missed messages": "concepts/delivery",
}


def untagged(index: str) -> list[str]:
    """The guides that the search does not put first for their word."""
    entries = json.loads(index)["docs"]
    problems = []
    for word, page in SEARCHES.items():
        tagged = {
            entry["location"].partition("#")[0].strip("/")
            for entry in entries
            if word.lower() in map(str.lower, entry.get("tags", ()))
        }
        if tagged != {page}:
            place = at(DOCS / f"{page}.md", "tags:")
            problems.append(
                f"{place}: the tag {word!r} is on {sorted(tagged) or 'no page'}, and not here alone"
            )
    return problems


def test_the_guides_have_the_words_that_readers_search_for(site: Path) -> None:
    assert untagged((site / "search" / "search_index.json").read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"pydantic"', '"models"', "docs/guides/typed.md:2: the tag 'pydantic' is on no page"),
        (
            '"tokens"',
            '"fastapi"',
            "docs/guides/fastapi.md:2: the tag 'FastAPI' is on ['guides/access', 'guides",
        ),
    ],
)
def test_planted_tags(old: str, new: str, said: str, site: Path) -> None:
    index = (site / "search" / "search_index.json").read_text(encoding="utf-8")
    assert old in index
    (problem,) = untagged(index.replace(old, new))
    assert problem.startswith(said)

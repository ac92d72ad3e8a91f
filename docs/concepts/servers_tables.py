"""Makes the tables of the page *Servers* from `servers.json`, which `nox -s servers -- --write` writes.

    python docs/concepts/servers_tables.py

writes them into the page. A test compares the two.
"""

from __future__ import annotations

import json
import re
from html import escape
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
PAGE = FOLDER / "servers.md"
FILE = FOLDER / "servers.json"

Results = dict[str, Any]

SHORT = {"uvicorn wsproto": "wsproto", "uvicorn websockets": "legacy", "lilya.websockets.uvicorn": "ours"}
SAME, NOTHING = "same", "\N{EN DASH}"


def read() -> Results:
    results: Results = json.loads(FILE.read_text(encoding="utf-8"))
    return results


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def short(server: str) -> str:
    return SHORT.get(server, server)


def code(text: str) -> str:
    return f"`{text}`" if text not in ("", NOTHING) else text


def at_the_handler(seen: str) -> str:
    """How the handler ended, and what the WebSocket reports about the end; not what it received."""
    left, _, rest = seen.partition("; ")
    told, *more = [part for part in rest.split("; ") if not part.startswith("got [")] or [""]
    told = "" if told == "no end" else code(told)
    notes = ", ".join(part for part in more if part)
    return ", ".join(part for part in (left if left == "quietly" else code(left), told, notes) if part)


def at_the_client(seen: str) -> str:
    return seen if seen == NOTHING else code(seen.replace("|", "\\|"))


# Between the markers of the page


def results_of(results: Results) -> str:
    """What is the same."""
    head = ["", "the client sees", "how the handler ends, and who ended the connection"]
    lines = []
    for title, group in results["groups"].items():
        rows = [
            [row["title"], at_the_client(row["same"][0]), at_the_handler(row["same"][1])] for row in group
        ]
        lines += [f"**{title}**", "", wide(table(head, rows)), ""]
    return "\n".join(lines).strip()


def numbered(results: Results) -> dict[tuple[str, str], int]:
    """The number of each reason, in the order of the table."""
    found: dict[tuple[str, str], int] = {}
    for rows in results["groups"].values():
        for row in rows:
            for server in results["servers"]:
                if why := row["why"].get(server):
                    found.setdefault((server, why), len(found) + 1)
    return found


def matrix(results: Results) -> str:
    """One column for each server: the same, or different because of the server."""
    numbers = numbered(results)
    rows = []
    for title, group in results["groups"].items():
        rows.append([f"**{title}**", *([""] * len(results["servers"]))])
        for row in group:
            cells = [row["title"]]
            for server in results["servers"]:
                if server not in row["seen"]:
                    cells.append(NOTHING)
                elif why := row["why"].get(server):
                    number = numbers[server, why]
                    cells.append(f'server <sup><a href="#why-{number}">{number}</a></sup>')
                else:
                    cells.append(SAME)
            rows.append(cells)
    return wide(table(["", *map(short, results["servers"])], rows))


def reasons(results: Results) -> str:
    """Why a cell says "server", and what is seen there."""
    lines = []
    for (server, why), number in numbered(results).items():
        seen: dict[str, list[str]] = {}
        for rows in results["groups"].values():
            for row in rows:
                if row["why"].get(server) == why:
                    client, handler = row["seen"][server]
                    parts = []
                    if client != row["same"][0]:
                        parts.append(
                            f"the client sees {'nothing' if client == NOTHING else at_the_client(client)}"
                        )
                    if handler != row["same"][1]:
                        parts.append(ends_of(handler))
                    seen.setdefault(", and ".join(parts), []).append(f"*{row['title']}*")
        first, *others = seen
        told = f"The result: {first}."
        for other in others:
            told += f" In the row{'s'[: len(seen[other]) > 1]} {' and '.join(seen[other])}, {other}."
        lines.append(f'{number}. <span id="why-{number}"></span>**{short(server)}**: {why} {told}')
    return "\n".join(lines)


def ends_of(seen: str) -> str:
    """How the handler ends, in a sentence."""
    left, *rest = at_the_handler(seen).split(", ")
    if seen.startswith("ended "):
        return "the process ends before the handler does"
    end = f"the handler ends {left}" if left == "quietly" else f"the handler ends with {left}"
    return f"{end} ({', '.join(rest)})" if rest else end


def by_hand(results: Results) -> str:
    """The same without a block: what the client sees, and below it how the handler ends."""
    rows = []
    for title, group in results["by hand"].items():
        rows.append([f"**{title}**", *([""] * len(results["servers"]))])
        for row in group:
            cells = [row["title"]]
            for server in results["servers"]:
                seen = row["seen"].get(server)
                cells.append(
                    NOTHING if seen is None else f"{at_the_client(seen[0])}<br>{at_the_handler(seen[1])}"
                )
            rows.append(cells)
    return wide(table(["", *map(short, results["servers"])], rows))


def figures(results: Results) -> str:
    """What was counted."""
    rows = [
        [title, *(number(row.get(server), limit) for server in results["servers"])]
        for title, limit, row in (
            ("MiB that the client could send to a handler that did not receive", 32, "MiB taken, block"),
            ("MiB that the handler could send to a client that did not read", 48, "MiB sent, block"),
        )
        for row in [results["figures"][row]]
    ]
    rows += [
        [
            f"Seconds from SIGTERM to the end, handlers {way}",
            *(
                number(results["stop"][key][server], results["give up"])
                if results["stop"][key].get(server, 0) is not None
                else f"more than {results['give up']:g}"
                for server in results["servers"]
            ),
        ]
        for key, way in (("block", "in a block"), ("hand", "without a block"))
    ]
    return wide(table(["", *map(short, results["servers"])], rows))


def number(value: float | None, most: float) -> str:
    if value is None:
        return NOTHING
    return f"{value:g}, all of it" if value >= most else f"{value:g}"


def run(results: Results) -> str:
    """With what the page was made."""
    servers = "; ".join(
        f"**{short(server)}**: "
        + ", ".join(f"{escape(name)} {version}" for name, version in versions.items())
        for server, versions in results["servers"].items()
    )
    return f"CPython {results['python']}. {servers}."


def wide(text: str) -> str:
    return f'<div class="tight first-column" markdown>\n\n{text}\n\n</div>'


_BLOCK = re.compile(r"(<!-- servers (?P<name>[a-z-]+) -->\n).*?(<!-- end of (?P=name) -->)", re.DOTALL)


def blocks(results: Results) -> dict[str, str]:
    """Everything on the page that is made from the file, by name."""
    return {
        "same": results_of(results),
        "matrix": matrix(results),
        "reasons": reasons(results),
        "by-hand": by_hand(results),
        "figures": figures(results),
        "run": run(results),
    }


def with_blocks(page: str, blocks: dict[str, str]) -> str:
    """The page, with everything in it that is made from the file.

    Raises:
        ValueError: The page lacks a block, or has one that nobody makes.
    """
    there = {found["name"] for found in _BLOCK.finditer(page)}
    if there != blocks.keys():
        raise ValueError(f"the page has the blocks {sorted(there)}, and {sorted(blocks)} are made")
    return _BLOCK.sub(lambda found: f"{found[1]}\n{blocks[found['name']]}\n\n{found[3]}", page)


if __name__ == "__main__":
    PAGE.write_text(with_blocks(PAGE.read_text(encoding="utf-8"), blocks(read())), encoding="utf-8")

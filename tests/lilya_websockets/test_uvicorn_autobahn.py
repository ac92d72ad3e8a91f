"""`lilya.websockets.uvicorn:WebSocketProtocol` under the cases of the Autobahn test-suite themselves.

Autobahn's own runner needs Python 2. kosoku runs its case files with a runner of its own, on any Python. It
is installed by `nox -s conformance` only: it takes minutes, and `test_uvicorn_conformance.py` has the rules.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from lilya.websockets.uvicorn import WebSocketProtocol
from lilya.websockets.uvicorn._frames import Fault

from .serving import Serving, loops

# Autobahn's cases leave the closing of their files to the interpreter.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed file .*testdata:ResourceWarning")

kosoku: Any = pytest.importorskip("kosoku", reason="Autobahn is run by nox -s conformance")

LIMIT = 600  # seconds for each of these
GROUPS = {"1.*": 16, "2.*": 11, "3.*": 7, "4.*": 10, "5.*": 20, "6.*": 145, "7.*": 37, "9.*": 54, "10.*": 1}
COMPRESSED = [f"12.{group}.{case}" for group in range(1, 6) for case in range(1, 19)]
COMPRESSED += [f"13.{group}.{case}" for group in range(1, 8) for case in range(1, 19)]
COUNTS = GROUPS | dict.fromkeys(COMPRESSED, 1)
"""How many cases there are; each compressed one sends a thousand messages."""

# A message and a fault in one go: the app gets the message, but its echo may come too late.
TOO_LATE = {"3.2", "3.3", "3.4", "4.1.3", "4.1.4", "4.1.5", "4.2.3", "4.2.4", "4.2.5", "5.15"}
# What is no UTF-8 is found when its frame is whole.
WHOLE_FRAMES = {"6.4.3", "6.4.4"}
# What Autobahn only reports.
REPORTED = {"7.1.6", "7.13.1", "7.13.2"}


def results_of(serving: Serving, group: str) -> tuple[list[Any], list[str]]:
    """The results of a group of cases, and which have failed."""

    async def main() -> list[Any]:
        run = kosoku.run_fuzzingclient(f"ws://127.0.0.1:{serving.port}/echo", [group])
        return list(await asyncio.wait_for(run, LIMIT))

    try:
        return asyncio.run(main()), []
    except kosoku.FailureError as error:
        return error.results, [result.case_id for result in error.results if not result.passed]


@pytest.mark.parametrize("loop", loops(["asyncio", "uvloop"]))
@pytest.mark.parametrize("group", COUNTS)
def test_no_case_fails(group: str, loop: str) -> None:
    with Serving(loop=loop) as serving:
        results, failed = results_of(serving, group)
        assert failed == []
        assert len(results) == COUNTS[group]
        verdicts = {result.case_id: result.behavior.value for result in results}
        not_strict = {case for case, verdict in verdicts.items() if verdict == "NON-STRICT"}
        reported = {case for case, verdict in verdicts.items() if verdict == "INFORMATIONAL"}
        assert not_strict <= TOO_LATE | WHOLE_FRAMES
        assert reported <= REPORTED
        assert {verdicts[case] for case in verdicts.keys() - not_strict - reported} <= {"OK"}
        serving.settled()


class Lenient(WebSocketProtocol):
    """It lets wrong UTF-8 pass."""

    __slots__ = ()

    def _fail(self, fault: Fault) -> None:
        if fault.code != 1007:
            super()._fail(fault)


def test_a_fault_is_found() -> None:
    with Serving(Lenient) as serving:
        _, failed = results_of(serving, "6.3.*")
        assert "6.3.1" in failed

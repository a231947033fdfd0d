"""The route decides the version: the canary's share stays true while the picker chooses inside it."""

from __future__ import annotations

import os
import signal
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests.integration.clients import many
from tests.support import until

if TYPE_CHECKING:
    from kvpilot.mesh import LocalMesh

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]


async def test_ninety_to_ten_holds_within_two_points_without_sessions(mesh: LocalMesh) -> None:
    answers = await many(mesh.url, [(f"question {n}", {}) for n in range(4000)])
    assert Counter(a.status for a in answers) == {200: 4000}
    share = Counter(a.version.rpartition("/")[2] for a in answers)["canary"] / 4000
    assert share == pytest.approx(0.10, abs=0.02)


async def test_no_session_changes_version_and_the_split_holds_within_four_points(mesh: LocalMesh) -> None:
    def turn(number: int) -> list[tuple[str, dict[str, str]]]:
        return [(f"session {n} turn {number}", {"x-session-id": f"session-{n}"}) for n in range(2000)]

    first = await many(mesh.url, turn(1))
    xds = mesh.children["xds"]
    assert xds.pid is not None
    os.kill(xds.pid, signal.SIGKILL)  # and a server that starts anew serves the same split
    await until(lambda: xds.restarts > 0 and xds.pid is not None)
    second = await many(mesh.url, turn(2))
    assert Counter(a.status for a in (*first, *second)) == {200: 4000}
    assert [a.version for a in first] == [a.version for a in second]
    share = Counter(a.version.rpartition("/")[2] for a in first)["canary"] / 2000
    assert share == pytest.approx(0.10, abs=0.04)

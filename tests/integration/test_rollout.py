"""The route decides the version: the canary's share stays true while the picker chooses inside it."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests.integration.clients import many

if TYPE_CHECKING:
    from kvpilot.mesh import LocalMesh

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]


async def test_ninety_to_ten_holds_within_two_points_without_sessions(mesh: LocalMesh) -> None:
    answers = await many(mesh.url, [(f"question {n}", {}) for n in range(4000)])
    assert Counter(a.status for a in answers) == {200: 4000}
    share = Counter(a.version.rpartition("/")[2] for a in answers)["canary"] / 4000
    assert share == pytest.approx(0.10, abs=0.02)


async def test_no_session_changes_version_and_the_split_holds_within_four_points(mesh: LocalMesh) -> None:
    turns = [
        (f"session {n} turn {turn}", {"x-session-id": f"session-{n}"})
        for turn in range(2)
        for n in range(2000)
    ]
    answers = await many(mesh.url, turns)
    assert Counter(a.status for a in answers) == {200: 4000}
    first, second = answers[:2000], answers[2000:]
    assert [a.version for a in first] == [a.version for a in second]
    share = Counter(a.version.rpartition("/")[2] for a in first)["canary"] / 2000
    assert share == pytest.approx(0.10, abs=0.04)

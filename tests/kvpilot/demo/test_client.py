from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from kvpilot.demo import client
from kvpilot.demo.client import Drive, Outcome, drive
from kvpilot.demo.workload import Session, Turn
from tests.kvpilot.demo.upstream import Upstream, serving

if TYPE_CHECKING:
    from collections.abc import Sequence

PAUSE = 0.05


def _sessions(count: int, turns: int = 1) -> tuple[Session, ...]:
    return tuple(Session(i, 0.0, 0, (Turn(PAUSE, 20, 4),) * turns) for i in range(count))


async def _run(url: str, sessions: Sequence[Session], until: float = 5.0) -> list[Outcome]:
    outcomes: list[Outcome] = []
    await drive(Drive(url, "m", tuple(sessions), until, seed=9, salt="s"), outcomes.append)
    return outcomes


async def test_a_whole_answer_is_timed_and_attributed() -> None:
    async with serving(Upstream()) as upstream:
        (outcome,) = await _run(upstream.url, _sessions(1))
    assert outcome.failure == ""
    assert (outcome.prompt_tokens, outcome.cached_tokens) == (100, 25)
    assert outcome.endpoint == "10.0.0.1:8000"
    assert outcome.ttft is not None
    assert outcome.e2e is not None
    assert 0 < outcome.ttft <= outcome.e2e


async def test_the_first_token_counts_and_not_the_headers_or_the_role() -> None:
    async with serving(Upstream(prefill_seconds=0.3)) as upstream:
        (outcome,) = await _run(upstream.url, _sessions(1))
    assert outcome.ttft is not None
    assert 0.3 <= outcome.ttft < 0.6


async def test_the_next_turn_waits_for_the_answer_and_carries_it() -> None:
    async with serving(Upstream(prefill_seconds=0.1)) as upstream:
        outcomes = await _run(upstream.url, _sessions(1, turns=3))
    first, second, third = (body["messages"] for body in upstream.bodies)
    assert second[:2] == first
    assert second[2] == {"role": "assistant", "content": "t0 t1 t2 t3 "}
    assert third[:4] == second
    assert all(b.sent - a.sent >= 0.1 + PAUSE for a, b in pairwise(outcomes))


async def test_every_session_has_an_id_of_its_own_that_depends_on_the_seed_alone() -> None:
    async with serving(Upstream()) as upstream:
        await _run(upstream.url, _sessions(2, turns=2))
    assert sorted(upstream.sessions) == ["demo-9-0", "demo-9-0", "demo-9-1", "demo-9-1"]


async def test_sessions_do_not_wait_for_each_other() -> None:
    async with serving(
        Upstream(prefill_seconds=1.5)
    ) as upstream:  # 110 is more than aiohttp lets through unless told
        outcomes = await _run(upstream.url, _sessions(110))
    assert [outcome.failure for outcome in outcomes] == [""] * 110
    assert max(outcome.sent for outcome in outcomes) < 1.5
    assert max(outcome.e2e or 0.0 for outcome in outcomes) < 3.0


async def test_a_refusal_is_counted_with_its_status_and_ends_its_session() -> None:
    async with serving(Upstream(status=503)) as upstream:
        outcomes = await _run(upstream.url, _sessions(1, turns=3))
    assert [outcome.failure for outcome in outcomes] == ["HTTP 503"]


@pytest.mark.parametrize("cut_after", [0, 2])
async def test_a_dropped_connection_is_a_cut_stream(cut_after: int) -> None:
    async with serving(Upstream(cut_after=cut_after)) as upstream:
        outcomes = await _run(upstream.url, _sessions(1, turns=3))
    assert [outcome.failure for outcome in outcomes] == ["stream cut short"]


async def test_a_stream_that_ends_politely_without_its_end_mark_is_cut_too() -> None:
    async with serving(Upstream(end_mark=False)) as upstream:
        (outcome,) = await _run(upstream.url, _sessions(1))
    assert outcome.failure == "stream cut short"


async def test_nobody_listening_is_a_failure_and_not_an_exception(unused_tcp_port: int) -> None:
    (outcome,) = await _run(f"http://127.0.0.1:{unused_tcp_port}", _sessions(1))
    assert outcome.failure == "ClientConnectorError"


async def test_requests_under_way_at_the_end_finish_and_no_new_ones_start() -> None:
    async with serving(Upstream(prefill_seconds=0.4)) as upstream:
        outcomes = await _run(upstream.url, _sessions(3, turns=5), until=0.2)
    assert [outcome.failure for outcome in outcomes] == ["", "", ""]
    assert len(upstream.bodies) == 3


async def test_a_request_that_never_ends_is_given_up_after_the_drain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "DRAIN_SECONDS", 0.2)
    async with serving(Upstream(prefill_seconds=3.0)) as upstream:
        (outcome,) = await _run(upstream.url, _sessions(1), until=0.1)
        assert outcome.failure == "no end within 0 s"
        assert outcome.ttft is None

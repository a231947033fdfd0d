from __future__ import annotations

from ext_proc.outcome import Outcome
from tests.ext_proc.small import FAST, SLOW, THIRD, make_picker, pick, request

BASE = Outcome("id", FAST, FAST, 1, False, True, 1.0, 0.1, 0.2, 100.0, 0.0, None)


def test_a_fallback_is_another_endpoint_in_a_first_attempt() -> None:
    assert not BASE.fallback
    assert BASE._replace(served=SLOW).fallback
    assert not BASE._replace(served=SLOW, attempts=2).fallback  # a retry
    assert not BASE._replace(served="").fallback  # it reached nobody


def test_the_picker_tells_how_each_of_its_requests_ended_beside_what_it_predicted() -> None:
    picker = make_picker()
    told: list[Outcome] = []
    picker.report_to(told.append)
    first = pick(picker, request(), 10.0)
    picker.running(first.id, 10.1, endpoint=first.endpoints[0])
    picker.first_token(first.id, 10.5)
    picker.finish(first.id, 12.0, endpoint=first.endpoints[0], prompt_tokens=1000, cached_tokens=250)
    (outcome,) = told
    assert (outcome.id, outcome.picked, outcome.served) == (first.id, FAST, FAST)
    assert outcome.predicted_ttft == first.predicted_ttft
    assert (outcome.ttft, outcome.seconds, outcome.attempts) == (0.5, 2.0, 1)
    assert outcome.cached_tokens == 0.25 * outcome.prompt_tokens
    assert not outcome.fallback


def test_a_retry_is_told_with_its_attempts_and_without_a_first_token() -> None:
    picker = make_picker()
    told: list[Outcome] = []
    picker.report_to(told.append)
    placed = pick(picker, request(), 10.0)
    picker.running(placed.id, 11.0, endpoint=placed.endpoints[1], attempts=2)
    picker.first_token(placed.id, 11.5)
    picker.finish(placed.id, 12.0, endpoint=placed.endpoints[1])
    (outcome,) = told
    assert (outcome.picked, outcome.served, outcome.attempts) == (FAST, placed.endpoints[1], 2)
    assert outcome.ttft is None
    assert not outcome.fallback


def test_tells_of_no_request_that_another_replica_decided_or_that_was_taken_back() -> None:
    here, there = make_picker(1, "here"), make_picker(2, "there")
    told: list[Outcome] = []
    here.report_to(told.append)
    theirs = pick(there, request(candidates=(SLOW, THIRD)), 10.0)
    here.apply(theirs.placed, 10.1)
    assert here.finish(theirs.id, 11.0, endpoint=SLOW)
    ours = pick(here, request(), 10.0)
    here.cancel(ours.id, 10.2)
    assert told == []

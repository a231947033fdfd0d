from __future__ import annotations

from ext_proc.choice import AT_HOME, CHEAPEST
from tests.ext_proc.small import FAST, SLOW, THIRD, make_picker, pick, request


def test_explains_itself_in_a_line_per_candidate_the_best_first() -> None:
    picker = make_picker()
    warm = pick(picker, request(candidates=(SLOW,)), 0.0)
    picker.finish(warm.id, 5.0, endpoint=SLOW)
    decision = pick(picker, request(range(110)), 5.0)
    why, headings, *lines = decision.explain().splitlines()
    assert why == f"{SLOW}: {CHEAPEST}"
    assert [line.split()[0] for line in lines] == [c.prediction.address for c in decision.reasons]
    assert {line.split()[0] for line in lines} == {FAST, SLOW, THIRD}
    assert [len(line) for line in lines] == [len(headings)] * 3
    best = dict(zip(headings.split(), lines[0].split(), strict=True))
    assert best["endpoint"] == SLOW
    assert best["matched"] == "6400"
    assert best["uncached"] == "641"
    assert best["tokens/s"] == "5000"
    assert float(best["TTFT"]) == round(decision.predicted_ttft, 3)
    costs = [float(line.split()[-1]) for line in lines]
    assert costs == sorted(costs)


def test_says_that_a_session_stayed_at_home() -> None:
    picker = make_picker()
    equals = (SLOW, THIRD)
    first = pick(picker, request(range(0), equals, session="secret"), 0.0)
    picker.finish(first.id, 1.0, endpoint=first.endpoints[0])
    second = pick(picker, request(range(0), equals, session="secret"), 2.0)
    assert second.explain().startswith(f"{first.endpoints[0]}: {AT_HOME}")
    assert "secret" not in second.explain()


def test_tells_no_hashes() -> None:
    blocks = [0xDEADBEEF00000000 + n for n in range(100)]
    text = make_picker().pick(request(blocks), 0.0)
    assert text is not None
    assert not any(str(block) in text.explain() or f"{block:x}" in text.explain() for block in blocks)


def test_says_what_others_must_hear_of_it() -> None:
    decision = pick(make_picker(name="a"), request(), 7.0)
    placed, best = decision.placed, decision.reasons[0].prediction
    assert (placed.id, placed.at, placed.endpoints) == (decision.id, 7.0, decision.endpoints)
    assert placed.replica == "a"
    assert (placed.work, placed.prefill) == (best.work, best.prefill)
    assert (placed.uncached_tokens, placed.matched_tokens) == (best.uncached_tokens, best.matched_tokens)

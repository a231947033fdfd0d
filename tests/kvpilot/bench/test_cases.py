from __future__ import annotations

from itertools import pairwise

from kvpilot.bench.cases import ENDPOINTS, MODES, PROMPT_BYTES, TRANSPORTS, cases


def test_measures_a_few_cases_of_one_mode_unless_told_otherwise() -> None:
    chosen = cases(None, None, None, None, every=False)
    assert {(case.site.mode, case.site.transport) for case in chosen} == {("buffered", "grpc")}
    assert (4096, 100) in {(case.prompt_bytes, case.site.endpoints) for case in chosen}
    assert len(chosen) < len(PROMPT_BYTES) * len(ENDPOINTS)


def test_measures_everything_where_asked_to() -> None:
    chosen = cases(None, None, None, None, every=True)
    assert len(set(chosen)) == len(PROMPT_BYTES) * len(ENDPOINTS) * len(MODES) * len(TRANSPORTS)


def test_measures_what_was_named_and_nothing_else() -> None:
    (one,) = cases((500,), None, ("session",), ("http2",), every=False)
    assert (one.prompt_bytes, one.site.endpoints) == (500, 100)
    assert (one.site.mode, one.site.transport) == ("session", "http2")
    both = cases(None, (7,), None, None, every=True)
    assert {case.site.endpoints for case in both} == {7}


def test_keeps_the_cases_of_one_mesh_together() -> None:
    sites = [case.site for case in cases(None, None, None, None, every=True)]
    changes = sum(before != after for before, after in pairwise(sites))
    assert changes == len(set(sites)) - 1

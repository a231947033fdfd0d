from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sim.policies.epp import ApproximateIndex, EppDefault, EppPrefixAffinity, queue_scores
from sim.policy import Job
from tests.sim.policies.routing import busy, decided, load, prompt, started

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fleet.model import Load

GATE_TOKENS = 18 * 15_928  # in flight: 18 s at the throughput that the filter assumes of every pod


def scraped(*loads: Load, warm: int | None = None, job: Job | None = None) -> EppDefault:
    policy = started(EppDefault(), len(loads))
    for index, gauges in enumerate(loads):
        policy.scrape(index, gauges, 0.0)
    if warm is not None:
        policy.placed(job or prompt(4), warm, 0.0)
    return policy


def sized(block_tokens: int, blocks: Sequence[int], tokens: int | None = None) -> Job:
    return Job(0, 0.0, tokens or len(blocks) * block_tokens, 10, blocks, block_tokens)


def test_it_scrapes_every_50_ms() -> None:
    assert EppDefault.scrape_interval == 0.05
    assert EppDefault.feedback_delay == 0


def test_a_full_match_beats_half_a_queue_and_half_a_cache() -> None:
    # Pod 0: 3*1 + 2*.5 + 2*.5 = 5.  Pod 1: 0 + 2*1 + 2*1 = 4.  Pod 2: 0 + 2*0 + 2*1 = 2.
    assert decided(scraped(load(1, 50), load(0), load(2), warm=0), prompt(4)) == {0}


def test_the_longest_queue_and_a_full_cache_beat_a_full_match() -> None:
    # Pod 0: 3*1 + 2*0 + 2*.1 = 3.2.  Pod 1: 0 + 2*1 + 2*1 = 4.
    assert decided(scraped(load(1, 90), load(0), warm=0), prompt(4)) == {1}


def test_half_a_match_counts_half() -> None:
    # Pod 0: 3*.5 + 2 + 2*(1-kv).  Pod 1: 2 + 2 = 4.  Even at kv = .75.
    job, half = prompt(4), prompt(2)
    assert decided(scraped(load(0, 74), load(0), warm=0, job=half), job) == {0}
    assert decided(scraped(load(0, 75), load(0), warm=0, job=half), job) == {0, 1}
    assert decided(scraped(load(0, 76), load(0), warm=0, job=half), job) == {1}


def test_equal_scores_are_shuffled() -> None:
    assert decided(started(EppDefault(), 3), prompt(4)) == {0, 1, 2}


def test_queues_are_scored_between_the_shortest_and_the_longest() -> None:
    assert queue_scores([load(2), load(6), load(4)]) == [1.0, 0.0, 0.5]
    assert queue_scores([load(7), load(7)]) == [1.0, 1.0]


def test_decisions_alone_fill_the_index() -> None:
    policy = started(EppDefault(), 3)
    home = policy.place(prompt(4), 0.0)
    assert decided(policy, prompt(4, id_=1)) == {home}


def test_small_blocks_are_joined_to_64_tokens() -> None:
    index = ApproximateIndex(1)
    index.insert(sized(16, range(1, 9)), 0)
    assert index.ratios(sized(16, range(1, 9))) == [1.0]
    assert index.ratios(sized(16, [1, 2, 3, 4, 95, 96, 97, 98])) == [0.5]
    assert index.ratios(sized(16, [1, 2, 3])) == [0.0], "too short for one block"


def test_no_more_than_131072_tokens_of_a_prompt_are_matched() -> None:
    index = ApproximateIndex(1)
    index.insert(sized(64, range(1, 2049)), 0)  # exactly the cap
    assert index.ratios(sized(64, range(1, 4097))) == [1.0]


def test_a_pod_is_believed_to_hold_31250_blocks_and_loses_heads_first() -> None:
    index = ApproximateIndex(2)
    for start in range(0, 31_250, 1250):
        index.insert(sized(64, range(start, start + 1250)), 0)
    first = sized(64, range(1250))
    assert index.ratios(first) == [1.0, 0.0]
    index.insert(sized(64, range(90_000, 90_625)), 0)
    assert index.ratios(first) == [0.0, 0.0], "nobody holds the head any more"
    index.insert(sized(64, range(625)), 1)
    assert index.ratios(first) == [0.5, 0.5], "a tail counts as long as another pod holds the head"


def affinity(
    in_flight_tokens: list[int], warm: int = 0, held: Job | None = None, count: int = 2
) -> EppPrefixAffinity:
    policy = busy(started(EppPrefixAffinity(), count), [0] * count, in_flight_tokens)
    policy.placed(held or prompt(4), warm, 0.0)
    return policy


def test_four_fifths_make_a_pod_warm_and_less_does_not() -> None:
    assert decided(affinity([5000, 0], held=prompt(4)), prompt(5)) == {0}
    assert decided(affinity([5000, 0], held=prompt(7)), prompt(9)) == {1}


@pytest.mark.parametrize(("behind", "chosen"), [(GATE_TOKENS, 0), (GATE_TOKENS + 1, 1)])
def test_a_warm_pod_is_kept_until_it_is_more_than_18_s_behind(behind: int, chosen: int) -> None:
    assert decided(affinity([behind, 0]), prompt(4)) == {chosen}


def test_the_gate_compares_with_the_best_cold_pod() -> None:
    assert decided(affinity([GATE_TOKENS + 1, 1], warm=0), prompt(4)) == {0}


def test_among_warm_pods_the_fewest_uncached_tokens_win() -> None:
    policy = affinity([300, 200, 0], count=3)
    policy.placed(prompt(4), 1, 0.0)
    assert decided(policy, prompt(4)) == {1}


def test_without_a_warm_pod_a_partial_match_counts_in_tokens() -> None:
    # Prompt 1000, half of it at pod 0: 500 + in flight there, against 1000.
    held = prompt(5)
    assert decided(affinity([499, 0], held=held), prompt(10)) == {0}
    assert decided(affinity([500, 0], held=held), prompt(10)) == {0, 1}
    assert decided(affinity([501, 0], held=held), prompt(10)) == {1}


def test_only_what_a_prompt_lacks_is_in_flight() -> None:
    policy = affinity([0, 0])
    assert policy.place(prompt(5), 0.0) == 0
    assert policy.prefill == [100, 0]
    policy.first_token(prompt(5), 1.0, 1.0)
    assert policy.prefill == [0, 0]

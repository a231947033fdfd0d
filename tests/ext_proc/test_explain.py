from __future__ import annotations

import json

import pytest

from ext_proc.explain import explain
from ext_proc.picker import Picker
from tests.ext_proc.test_steer import CHAT, FLEET, SETTINGS, chat, make_steerer


def test_lists_every_candidate_best_first_with_the_terms_of_its_cost_and_books_nothing() -> None:
    picker = Picker(SETTINGS, FLEET.endpoints.values())
    steerer = make_steerer(picker)
    placed = steerer.steer("llama/stable", CHAT, {}, chat("word " * 800), 1.0).decision
    assert placed is not None
    answer = json.loads(json.dumps(explain(steerer, "llama/stable", CHAT, {}, chat("word " * 800), 1.1)))
    assert picker.in_flight == 1
    assert (answer["cluster"], answer["outcome"]) == ("llama/stable", "steered")
    rows = {row["endpoint"]: row for row in answer["candidates"]}
    assert rows.keys() == {f"10.0.0.{n}:80" for n in range(1, 5)}
    there = rows[placed.endpoints[0]]
    assert there["matched_tokens"] > 900
    assert there["owed_tokens"] > 0
    assert all(row["matched_tokens"] == 0 for a, row in rows.items() if a != placed.endpoints[0])
    assert [row["cost"] for row in answer["candidates"][1:]] == sorted(
        row["cost"] for row in answer["candidates"][1:]
    )


@pytest.mark.parametrize(
    ("cluster", "body", "outcome"),
    [("elsewhere", chat("hi"), "unknown-cluster"), ("llama/stable", b"{", "no-messages")],
)
def test_says_in_a_word_why_a_request_is_left_alone(cluster: str, body: bytes, outcome: str) -> None:
    steerer = make_steerer(Picker(SETTINGS, FLEET.endpoints.values()))
    answer = explain(steerer, cluster, CHAT, {}, body, 0.0)
    assert (answer["outcome"], answer["candidates"]) == (outcome, [])

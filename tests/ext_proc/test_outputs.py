from __future__ import annotations

import pytest

from ext_proc.outputs import KINDS_MAX, OutputHistory

CHAT, BATCH = ("llama", "interactive"), ("llama", "batch")


def test_assumes_what_was_configured_and_no_more_than_the_limit_until_something_was_answered() -> None:
    outputs = OutputHistory(256)
    assert outputs.expected(CHAT, None) == 256
    assert outputs.expected(CHAT, 20) == 20
    assert outputs.expected(CHAT, 4_000) == 256


def test_expects_the_mean_of_its_kind_and_no_more_than_the_client_allows() -> None:
    outputs = OutputHistory(256)
    for n in range(300):
        outputs.observe(CHAT, 80 if n % 2 else 120)
        outputs.observe(BATCH, 1_000)
    assert outputs.expected(CHAT, None) == pytest.approx(100, rel=0.02)
    assert outputs.expected(CHAT, 4_000) == pytest.approx(100, rel=0.02)
    assert outputs.expected(CHAT, 20) == 20
    assert outputs.expected(BATCH, None) == pytest.approx(1_000)


def test_follows_answers_that_become_longer() -> None:
    outputs = OutputHistory(256)
    for tokens in [100] * 200 + [500] * 150:
        outputs.observe(CHAT, tokens)
    assert outputs.expected(CHAT, None) == pytest.approx(500, rel=0.05)


def test_made_up_names_do_not_fill_the_memory_or_push_out_a_real_one() -> None:
    outputs = OutputHistory(256)
    outputs.observe(CHAT, 100)
    for n in range(2 * KINDS_MAX):
        outputs.observe((f"made-up-{n}", "interactive"), 9)
    assert outputs.expected(CHAT, None) == 100
    assert outputs.expected((f"made-up-{2 * KINDS_MAX - 1}", "interactive"), None) == 256

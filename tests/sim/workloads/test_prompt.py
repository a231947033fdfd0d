from __future__ import annotations

from itertools import accumulate, takewhile

from hypothesis import given
from hypothesis import strategies as st

from sim.workloads.prompt import BLOCK_TOKENS, Prompt

TEXTS = st.lists(st.tuples(st.integers(0, 3), st.integers(1, 3 * BLOCK_TOKENS)), max_size=6)


def prompt(texts: list[tuple[int, int]]) -> Prompt:
    made = Prompt()
    for text, tokens in texts:
        made = made.then(text, tokens)
    return made


def shared(a: Prompt, b: Prompt) -> int:
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(a.blocks, b.blocks, strict=False)))


@given(TEXTS)
def test_has_a_block_for_every_whole_run_of_tokens_and_none_twice(texts: list[tuple[int, int]]) -> None:
    made = prompt(texts)
    assert made.tokens == sum(tokens for _, tokens in texts)
    assert len(set(made.blocks)) == len(made.blocks) == made.tokens // BLOCK_TOKENS


@given(TEXTS, TEXTS)
def test_shares_blocks_with_another_exactly_as_far_as_their_texts_agree(
    first: list[tuple[int, int]], second: list[tuple[int, int]]
) -> None:
    common = 0
    for (text, tokens), (other, others) in zip(first, second, strict=False):
        if text != other:
            break
        common += min(tokens, others)
        if tokens != others:  # one goes on in this text where the other has begun its next
            break
    a, b = prompt(first), prompt(second)
    assert shared(a, b) == common // BLOCK_TOKENS
    assert not set(a.blocks[common // BLOCK_TOKENS :]) & set(b.blocks[common // BLOCK_TOKENS :])


@given(TEXTS)
def test_begins_with_the_blocks_of_every_prompt_it_grew_from(texts: list[tuple[int, int]]) -> None:
    whole = prompt(texts)
    for end in accumulate(1 for _ in texts):
        part = prompt(texts[:end])
        assert whole.blocks[: len(part.blocks)] == part.blocks

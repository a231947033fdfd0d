from __future__ import annotations

from sim.answers import LOOK_AHEAD, answer_names
from tests.sim.small import job


def test_an_answer_is_named_by_the_next_prompt_that_repeats_it() -> None:
    first = job(1, 0.0, 100, output=100, content="a", session="s")
    second = job(2, 9.0, 640, output=10, content="a", session="s")
    assert answer_names([second, first]) == {1: second.blocks[1:3]}


def test_nothing_is_named_by_another_session_another_text_or_a_prompt_too_short() -> None:
    first = job(1, 0.0, 100, output=100, content="a", session="s")
    stranger = job(2, 1.0, 640, content="a", session="t")
    other_text = job(3, 2.0, 640, content="b", session="s")
    sibling = job(4, 3.0, 199, content="a", session="s")
    anonymous = job(5, 4.0, 640, content="a")
    assert answer_names([first, stranger, other_text, sibling, anonymous]) == {}


def test_siblings_in_between_hide_no_repetition_up_to_a_limit() -> None:
    first = job(1, 0.0, 100, output=100, content="a", session="s")
    last = job(99, 50.0, 640, content="a", session="s")
    siblings = [job(10 + n, 1.0 + n, 100, content=("b", n), session="s") for n in range(LOOK_AHEAD)]
    assert answer_names([first, *siblings[1:], last]) == {1: last.blocks[1:3]}
    assert answer_names([first, *siblings, last]) == {}

from __future__ import annotations

import statistics
from itertools import pairwise

from kvpilot.demo.workload import (
    ANSWER_TOKENS,
    SYSTEM_TOKENS,
    TURNS,
    USER_TOKENS,
    Conversation,
    Session,
    Turn,
    plan,
)
from sim.prompt import BYTES_PER_TOKEN


def _content(messages: list[dict[str, str]]) -> str:
    return "".join(message["content"] for message in messages)


def _common_prefix(a: str, b: str) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def test_the_same_seed_plans_the_same_sessions_and_another_seed_others() -> None:
    assert plan(7, 5.0, 10.0, 1.0) == plan(7, 5.0, 10.0, 1.0)
    assert plan(7, 5.0, 10.0, 1.0) != plan(8, 5.0, 10.0, 1.0)


def test_the_same_seed_says_the_same_words() -> None:
    session = plan(7, 5.0, 10.0, 1.0)[0]
    assert Conversation(session, 7, "s").request(0, "m") == Conversation(session, 7, "s").request(0, "m")
    assert Conversation(session, 7, "s").request(0, "m") != Conversation(session, 8, "s").request(0, "m")


def test_sessions_arrive_at_the_rate_and_with_exponential_gaps() -> None:
    sessions = plan(1, 20.0, 200.0, 0.5)
    whole = sorted(s.start for s in sessions if s.start > 20.0)  # behind those under way at the start
    gaps = [b - a for a, b in pairwise(whole)]
    assert 19.0 < len(whole) / 180.0 < 21.0
    assert 0.93 < statistics.pstdev(gaps) / statistics.mean(gaps) < 1.07


def test_the_load_is_there_from_the_start_and_not_after_a_sessions_lifetime() -> None:
    times = [at for session in plan(3, 100.0, 40.0, 1.0) for at in session.planned_times()]
    first, later = (sum(1 for at in times if a <= at < a + 10) for a in (0, 30))
    assert 0.9 < first / later < 1.1
    assert min(times) >= 0


def test_sizes_turns_and_pauses_keep_to_their_distributions() -> None:
    sessions = [s for s in plan(1, 20.0, 100.0, 0.5) if s.start > 20.0]
    turns = [turn for session in sessions for turn in session.turns]
    assert {len(session.turns) for session in sessions} == set(range(TURNS[0], TURNS[1] + 1))
    assert {session.system for session in sessions} == {0, 1, 2}
    assert all(USER_TOKENS[0] <= turn.user_tokens <= USER_TOKENS[2] for turn in turns)
    assert all(ANSWER_TOKENS[0] <= turn.answer_tokens <= ANSWER_TOKENS[1] for turn in turns)
    assert 0.47 < statistics.mean(turn.pause for turn in turns) < 0.53


def test_every_turn_starts_with_all_messages_before_it_and_the_real_answer() -> None:
    session = next(s for s in plan(1, 5.0, 10.0, 1.0) if len(s.turns) >= 3)
    conversation = Conversation(session, 1, "salt")
    first = conversation.request(0, "m")["messages"]
    conversation.answered("what the engine said")
    second = conversation.request(1, "m")["messages"]
    assert second[: len(first)] == first
    assert second[len(first)] == {"role": "assistant", "content": "what the engine said"}
    assert second[-1]["role"] == "user"
    assert [message["role"] for message in second] == ["system", "user", "assistant", "user"]


def test_texts_are_as_long_as_their_tokens() -> None:
    session = Session(0, 0.0, 1, (Turn(0.0, 500, 64),))
    request = Conversation(session, 1, "salt").request(0, "m")
    system, user = (len(message["content"]) for message in request["messages"])
    assert abs(system - SYSTEM_TOKENS[1] * BYTES_PER_TOKEN) <= 16
    assert abs(user - 500 * BYTES_PER_TOKEN) <= 16
    assert request["max_tokens"] == 64
    assert request["stream_options"] == {"include_usage": True}


def test_sessions_share_no_more_than_their_system_prompt() -> None:
    sessions = [Session(i, 0.0, 0, (Turn(0.0, 300, 64),)) for i in range(30)]
    prompts = [Conversation(s, 1, "salt").request(0, "m")["messages"] for s in sessions]
    systems = {p[0]["content"] for p in prompts}
    assert len(systems) == 1
    users = sorted(p[1]["content"] for p in prompts)
    assert all(_common_prefix(a, b) < 8 for a, b in pairwise(users))


def test_another_salt_leaves_nothing_in_common_with_an_earlier_phase() -> None:
    session = Session(0, 0.0, 0, (Turn(0.0, 300, 64),))
    one, two = (_content(Conversation(session, 1, s).request(0, "m")["messages"]) for s in ("aaaa", "bbbb"))
    assert _common_prefix(one, two) == 1
    assert len(one) == len(two)


def test_prompt_tokens_count_system_history_and_question() -> None:
    session = Session(0, 0.0, 2, (Turn(0.0, 300, 50), Turn(1.0, 400, 60), Turn(1.0, 500, 70)))
    system = SYSTEM_TOKENS[2]
    assert session.prompt_tokens() == [system + 300, system + 750, system + 1310]

"""Multi-turn chats for a seed: who arrives when, how long each message is, and its words.

Sessions arrive as a Poisson process and grow: every turn's prompt carries the whole conversation so far,
with the answers that really came back. Sizes and times are drawn per session, so a higher rate brings the
same sessions closer together, followed by more. Tokens are counted as the
emulated engines count them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import accumulate
from random import Random
from typing import Any

from sim.prompt import BYTES_PER_TOKEN

SYSTEM_TOKENS = (80, 100, 120)
"""The three system prompts that sessions share: a paragraph each, so that most of a prompt is its own."""

TURNS = (4, 5)
"""Fewest and most turns of a session; every number between is as likely."""

USER_TOKENS = (300, 900, 1300)
"""Shortest, most usual and longest user message: a question with a passage pasted under it."""

ANSWER_TOKENS = (40, 100)
"""Shortest and longest answer: enough for decodes to overlap, few enough chunks for a laptop."""

FIRST_TOKEN_SECONDS = 0.3
SECONDS_PER_OUTPUT_TOKEN = 0.0125
"""How long an answer takes under round robin, to place turns in time before anything ran. Only the size of
the load and the sessions under way at its start rest on it."""

_PROSE = (
    "the route weighs every cluster while a picker reads cached blocks and sends this prompt to one warm "
    "endpoint whose queue is short because older requests finished early there so that tokens arrive soon "
    "after people ask about trains rivers gardens music bread winter harbours letters maps clocks paper stone"
)
_WORDS = _PROSE.split()


@dataclass(frozen=True, slots=True)
class Turn:
    """One question: `pause` is seconds of thought after the answer before; sizes are in tokens."""

    pause: float
    user_tokens: int
    answer_tokens: int


@dataclass(frozen=True, slots=True)
class Session:
    """One conversation. `start` is when its first turn is sent, seconds from the start of the load."""

    index: int
    start: float
    system: int  # which of the shared system prompts
    turns: tuple[Turn, ...]

    def planned_times(self) -> list[float]:
        """When each turn would be sent if every answer took its usual time, seconds."""
        waits = (answer_seconds(b) + t.pause for b, t in zip(self.turns, self.turns[1:], strict=False))
        return list(accumulate(waits, initial=self.start))

    def prompt_tokens(self) -> list[int]:
        """The prompt of each turn: system prompt, all earlier turns with their answers, the question."""
        prompts, history = [], SYSTEM_TOKENS[self.system]
        for turn in self.turns:
            prompts.append(history + turn.user_tokens)
            history += turn.user_tokens + turn.answer_tokens
        return prompts


def answer_seconds(turn: Turn) -> float:
    """From sending a turn to the end of its answer, usually."""
    return FIRST_TOKEN_SECONDS + turn.answer_tokens * SECONDS_PER_OUTPUT_TOKEN


def usual_pause(seconds: float) -> float:
    """Mean think time for a phase of `seconds`: short enough that a session gets several turns in it."""
    return min(max(seconds / 20, 0.3), 5.0)


def mean_turns() -> float:
    """Turns of a session on average."""
    return sum(TURNS) / 2


def plan(seed: int, rate: float, until: float, pause: float) -> tuple[Session, ...]:
    """Sessions that arrive at `rate` a second up to `until` seconds, think times of mean `pause`.

    The process has run for a session's lifetime when the load starts: those who came before take only the
    turns they have left. Without them the first half of a short phase would be nearly idle.
    """
    longest = TURNS[1] * (pause + FIRST_TOKEN_SECONDS + ANSWER_TOKENS[1] * SECONDS_PER_OUTPUT_TOKEN)
    arrivals = Random(f"{seed}:arrivals")
    sessions: list[Session] = []
    at, index = -longest, 0
    while (at := at + arrivals.expovariate(1) / rate) < until:
        session = _still_to_come(_session(seed, index, at, pause))
        if session is not None:
            sessions.append(session)
        index += 1
    return tuple(sorted(sessions, key=lambda s: s.start))


def _session(seed: int, index: int, start: float, pause: float) -> Session:
    random = Random(f"{seed}:session:{index}")
    low, usual, high = USER_TOKENS
    turns = tuple(
        Turn(
            pause=random.expovariate(1 / pause),
            user_tokens=round(random.triangular(low, high, usual)),
            answer_tokens=random.randint(*ANSWER_TOKENS),
        )
        for _ in range(random.randint(*TURNS))
    )
    return Session(index, start, random.randrange(len(SYSTEM_TOKENS)), turns)


def _still_to_come(session: Session) -> Session | None:
    due = [(at, turn) for at, turn in zip(session.planned_times(), session.turns, strict=True) if at >= 0]
    if not due:
        return None
    return replace(session, start=due[0][0], turns=tuple(turn for _, turn in due))


class Conversation:
    """What a session has said so far. The salt comes first, so no prompt matches another run's or phase's."""

    def __init__(self, session: Session, seed: int, salt: str) -> None:
        system = f"[{salt}]\n" + _text(Random(f"system:{session.system}"), SYSTEM_TOKENS[session.system])
        self._session = session
        self._seed = seed
        self.messages: list[dict[str, str]] = [{"role": "system", "content": system}]

    def request(self, number: int, model: str) -> dict[str, Any]:
        """The chat completion request of turn `number`, whose question joins the conversation."""
        turn = self._session.turns[number]
        random = Random(f"{self._seed}:text:{self._session.index}:{number}")
        # A number first, so that no two conversations have more in common than their system prompt.
        question = f"{random.getrandbits(32):08x} {_text(random, turn.user_tokens)}"
        self.messages.append({"role": "user", "content": question})
        return {
            "model": model,
            "messages": list(self.messages),
            "max_tokens": turn.answer_tokens,
            "stream": True,
            "stream_options": {"include_usage": True},
        }

    def answered(self, text: str) -> None:
        """The answer joins the conversation."""
        self.messages.append({"role": "assistant", "content": text})


def _text(random: Random, tokens: int) -> str:
    size = tokens * BYTES_PER_TOKEN
    words = " ".join(random.choices(_WORDS, k=size // 3))  # words and spaces are longer than 3 on average
    return words[:size]

"""How much load to offer: a fixed share of what Envoy's round robin could carry on this fleet.

Round robin gives every endpoint of a version an equal share, so the slowest saturates first: a version of n
endpoints carries n times the slowest one's prefill rate, in prompt tokens that are not cached. How many
are not depends on the conversation: a turn finds its history only as far as the last turn that went to the
same endpoint, which after interleaving with other sessions is any of the n with the same chance.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kvpilot.demo.workload import SYSTEM_TOKENS, Session, mean_turns, plan

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from fleet.settings import ModelSettings, PoolSettings

TARGET = 0.78
"""Share of round robin's capacity to offer: busy enough to tell good placement from bad, still stable. A few
hundredths less may really be sent, as sessions wait for slow answers."""

MAX_REQUESTS_PER_SECOND = 50.0
"""Never more, whatever the fleet: a demo against someone's real backends must not become an attack."""

_TRIED = tuple(0.5 + 0.02 * step for step in range(51))
"""Multiples of the first estimate that are tried: the load follows the rate in proportion, but in small
jumps as turns enter and leave the window."""


@dataclass(frozen=True, slots=True)
class Arm:
    """A version: its share of sessions, 0..1, and the prefill rate of each endpoint in tokens a second."""

    share: float
    prefill: tuple[float, ...]

    @property
    def round_robin_capacity(self) -> float:
        """Uncached prompt tokens a second that round robin can carry here."""
        return len(self.prefill) * min(self.prefill)


def arms(model: ModelSettings) -> tuple[Arm, ...]:
    """The versions of `model` that take traffic, at catalogue rates times an emulated pool's speed."""
    total = sum(version.weight for version in model.versions)
    return tuple(
        Arm(version.weight / total, tuple(rate for pool in version.pools for rate in _rates(model, pool)))
        for version in model.versions
        if version.weight
    )


def _rates(model: ModelSettings, pool: PoolSettings) -> list[float]:
    number = len(pool.endpoints) if pool.emulated is None else pool.emulated.count
    return [pool.prior(model.parameters_billion).prefill] * number


def uncached_tokens(session: Session, endpoints: int) -> list[float]:
    """Prompt tokens that each turn is expected to find uncached under round robin over `endpoints`.

    The last turn on the same endpoint was i turns ago with chance (1/n)(1-1/n)^(i-1), and its prompt and
    answer are still there; only the shared system prompt is if there was none.
    """
    prompts = session.prompt_tokens()
    kept = [p + turn.answer_tokens for p, turn in zip(prompts, session.turns, strict=True)]
    same, other = 1 / endpoints, 1 - 1 / endpoints
    expected = []
    for k, prompt in enumerate(prompts):
        cached = sum(same * other ** (k - 1 - earlier) * kept[earlier] for earlier in range(k))
        cached += other**k * SYSTEM_TOKENS[session.system]
        expected.append(prompt - cached)
    return expected


def offered_load(versions: Sequence[Arm], sent: Iterable[tuple[Session, int]], seconds: float) -> float:
    """Share of round robin's capacity that turns (session and number), sent over `seconds`, ask for.

    That of the version which saturates first.
    """
    turns = list(sent)

    def share(arm: Arm) -> float:
        needed: dict[int, list[float]] = {}
        for session, _ in turns:
            if session.index not in needed:
                needed[session.index] = uncached_tokens(session, len(arm.prefill))
        total = sum(needed[session.index][number] for session, number in turns)
        return arm.share * total / seconds / arm.round_robin_capacity

    return max(share(arm) for arm in versions)


def planned_between(sessions: Iterable[Session], start: float, end: float) -> list[tuple[Session, int]]:
    """The turns planned from `start` to `end` seconds."""
    return [
        (session, number)
        for session in sessions
        for number, at in enumerate(session.planned_times())
        if start <= at < end
    ]


def session_rate(versions: Sequence[Arm], seed: int, window: tuple[float, float], pause: float) -> float:
    """Sessions a second that offer TARGET of round robin's capacity between the two times of `window`.

    Found for this very seed, so that a seed changes the conversations and not how hard they press; held
    below MAX_REQUESTS_PER_SECOND.
    """
    start, end = window
    most = MAX_REQUESTS_PER_SECOND / mean_turns()

    def load_at(rate: float) -> float:
        turns = planned_between(plan(seed, rate, end, pause), start, end)
        return offered_load(versions, turns, end - start)

    first = most / 2
    estimate = first * TARGET / (load_at(first) or TARGET)
    rates = sorted({min(most, estimate * part) for part in _TRIED})
    return min(rates, key=lambda rate: abs(load_at(rate) - TARGET))

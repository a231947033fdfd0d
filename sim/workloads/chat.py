"""Multi-turn chat: sessions whose every turn sends all that was said before, and then something new.

A trace is open: nobody waits for an answer. Each turn therefore comes when the answer before it should be
there by plan, and the person has read it and thought.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sim.workloads.draws import Lengths, Step, log_normal, poisson
from sim.workloads.prompt import Prompt

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sim.policy import Job
    from sim.workloads.draws import Source


@dataclass(frozen=True, slots=True)
class Chat:
    """Sessions of several turns with one of a few assistants. Lengths in tokens, times in seconds."""

    assistants: int = 10  # each with its own system prompt, which all its sessions begin with
    system: int = 1000
    sessions: tuple[Step, ...] = (Step(11.5, 240),)  # sessions begun a second
    turns: float = 4.0  # mean, geometric: most are short, some go on and on
    opening: Lengths = field(default=Lengths(2500, 1.0, 32_000))  # often with a pasted text
    message: Lengths = field(default=Lengths(700, 1.0, 8000))
    answer: Lengths = field(default=Lengths(250, 0.8, 2000))
    # Mean pause of reading and typing, log-normal; short, so that what is touched in one pause fits into
    # the KV caches of the fleet: else no router could keep conversations warm.
    think: float = 6.0
    context: int = 100_000  # a session ends before a prompt would be longer
    output_limit: int = 2000  # what clients ask for at most
    workload_class: str = ""


FIRST_TOKEN_BY_PLAN = 1.0
"""Seconds that a planned answer waits for its first token: what people find acceptable in a chat."""

TOKEN_BY_PLAN = 0.02
"""Seconds that each token of a planned answer takes: 50 a second, slower than any endpoint of ours."""


def generate(plan: Chat, source: Source) -> Iterator[Job]:
    """All sessions' turns up to the end of the plan, session by session."""
    systems = [Prompt().then(source.text(), plan.system) for _ in range(plan.assistants)]
    end = sum(step.seconds for step in plan.sessions)
    for number, begin in enumerate(poisson(source.random, plan.sessions)):
        yield from _session(plan, source, source.random.choice(systems), begin, end, f"chat-{number}")


def _session(plan: Chat, source: Source, prompt: Prompt, at: float, end: float, name: str) -> Iterator[Job]:
    random = source.random
    prompt = prompt.then(source.text(), plan.opening.draw(random))
    while at < end and prompt.tokens <= plan.context:
        output = plan.answer.draw(random)
        yield prompt.job(at, output, plan.output_limit, name, plan.workload_class)
        if random.random() < 1 / plan.turns:
            return
        prompt = prompt.then(source.text(), output).then(source.text(), plan.message.draw(random))
        at += FIRST_TOKEN_BY_PLAN + output * TOKEN_BY_PLAN + log_normal(random, plan.think, _THINK_SPREAD)


_THINK_SPREAD = 0.8  # of the logarithm: one pause in ten is more than twice the mean

"""Prompts in groups that share a system prompt: the shape on which prefix routers publish their figures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sim.workloads.draws import Step, poisson
from sim.workloads.prompt import Prompt

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sim.policy import Job
    from sim.workloads.draws import Source


@dataclass(frozen=True, slots=True)
class Groups:
    """`groups` x `prompts` distinct prompts, dealt in random order, again and again if there is time.

    Lengths in tokens. The client asks for exactly `output` tokens, as load generators do.
    """

    # 150 groups of 6,000 + 1,200 tokens are published by llm-d, with 5 prompts a group that are cached
    # whole after the first seconds; 40 let (nearly) every question of this run be new, and 250 of the 1,000
    # output tokens leave the KV cache enough room that prefill is what fills up first.
    groups: int = 150
    prompts: int = 40
    system: int = 6000
    question: int = 1200
    output: int = 250
    steps: tuple[Step, ...] = (Step(40, 150),)  # 6,000 requests


# As peers publish them. Where only the ends of a ladder of rates are known, the steps between are ours.
PUBLISHED = {
    "groups_ladder": Groups(
        prompts=5, output=1000, steps=tuple(Step(rate, 60) for rate in (3, 10, 20, 30, 40, 50, 60))
    ),
    "groups_nightly": Groups(150, 5, 9500, 500, 1000, (Step(1, 15), Step(10, 300))),
    "groups_100k": Groups(10, 5, 95_000, 5000, 1000, (Step(1, 15), Step(10, 300))),
    "groups_high_cache": Groups(256, 16, 2048, 256, 256, (Step(100, 30), Step(300, 30), Step(500, 30))),
    "groups_low_cache": Groups(256, 16, 256, 2048, 256, (Step(100, 30), Step(300, 30), Step(500, 30))),
}


def generate(plan: Groups, source: Source) -> Iterator[Job]:
    """The plan's requests, by arrival."""
    deck = _deal(plan, source)
    for at in poisson(source.random, plan.steps):
        prompt = next(deck)
        yield prompt.job(at, plan.output, plan.output)


def _deal(plan: Groups, source: Source) -> Iterator[Prompt]:
    systems = [Prompt().then(source.text(), plan.system) for _ in range(plan.groups)]
    cards = [(system, source.text()) for system in systems for _ in range(plan.prompts)]
    while True:
        source.random.shuffle(cards)
        for system, question in cards:
            yield system.then(question, plan.question)

"""Several kinds of work on one fleet: people who wait, documents that take long, batches that can wait.

Each kind says its `workload_class`: `interactive`, `long`, `batch`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sim.workloads import chat
from sim.workloads.draws import Lengths, Step, log_normal, poisson
from sim.workloads.prompt import Prompt

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sim.policy import Job
    from sim.workloads.chat import Chat
    from sim.workloads.draws import Source


@dataclass(frozen=True, slots=True)
class Documents:
    """Long documents, each asked about several times. Lengths in tokens, times in seconds."""

    documents: tuple[Step, ...]  # opened a second
    length: Lengths = field(default=Lengths(36_000, 0.6, 120_000))  # reports and contracts
    question: int = 100
    questions: float = 3.0  # mean per document, geometric
    between: float = 10.0  # mean pause before the next question, log-normal
    answer: Lengths = field(default=Lengths(400, 0.6, 2000))
    system: int = 500  # the same for all
    output_limit: int = 2000


@dataclass(frozen=True, slots=True)
class Batch:
    """A job every `every` seconds: one instruction for many items, sent as fast as a client can.

    Lengths in tokens, times in seconds.
    """

    seconds: float  # jobs begin until then
    every: float = 40.0
    items: int = 250
    send: float = 5.0  # over which a job's items arrive
    instruction: int = 2000  # the job's own, before each item
    item: Lengths = field(default=Lengths(2000, 0.8, 16_000))
    answer: Lengths = field(default=Lengths(200, 0.5, 500))
    output_limit: int = 500


@dataclass(frozen=True, slots=True)
class Mix:
    """What runs side by side; None for a kind that does not."""

    chat: Chat
    batch: Batch
    documents: Documents | None = None


# Of the load, people make half at most: what waits or is long is work enough to be in
# their way.
LONG_MIX = Mix(
    chat.Chat(sessions=(Step(4.0, 240),), workload_class="interactive"),
    Batch(seconds=240, items=150),
    Documents(documents=(Step(0.9, 240),)),
)
BATCH_MIX = Mix(
    chat.Chat(sessions=(Step(5.8, 240),), workload_class="interactive"),
    Batch(seconds=240, items=600),
)


def generate(plan: Mix, source: Source) -> Iterator[Job]:
    """The requests of all kinds, kind by kind."""
    yield from chat.generate(plan.chat, source)
    yield from _batches(plan.batch, source)
    if plan.documents is not None:
        yield from _documents(plan.documents, source)


def _documents(plan: Documents, source: Source) -> Iterator[Job]:
    random = source.random
    system = Prompt().then(source.text(), plan.system)
    end = sum(step.seconds for step in plan.documents)
    for number, begin in enumerate(poisson(random, plan.documents)):
        document = system.then(source.text(), plan.length.draw(random))
        at = begin
        while at < end:
            yield _job(plan, source, document.then(source.text(), plan.question), at, "long", f"doc-{number}")
            if random.random() < 1 / plan.questions:
                break
            at += log_normal(random, plan.between, _PAUSE_SPREAD)


def _batches(plan: Batch, source: Source) -> Iterator[Job]:
    random = source.random
    begin = random.uniform(0, plan.every)
    while begin < plan.seconds:
        instruction = Prompt().then(source.text(), plan.instruction)
        for _ in range(plan.items):
            item = instruction.then(source.text(), plan.item.draw(random))
            yield _job(plan, source, item, begin + random.uniform(0, plan.send), "batch")
        begin += plan.every


def _job(
    plan: Documents | Batch, source: Source, prompt: Prompt, at: float, workload_class: str, session: str = ""
) -> Job:
    return prompt.job(at, plan.answer.draw(source.random), plan.output_limit, session, workload_class)


_PAUSE_SPREAD = 0.8  # of the logarithm, as a chat's

"""Agents: contexts that grow with every tool result, and bursts of siblings that begin from one context.

A task is a run of steps: the model calls a tool, its result is appended, the model is asked again. At some
steps it instead hands parts of the work to siblings, all at once: each begins with everything the task
holds so far and an instruction of its own, and the task goes on with their reports when the last is done.
Times are planned, as in `chat`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sim.workloads.chat import FIRST_TOKEN_BY_PLAN, TOKEN_BY_PLAN
from sim.workloads.draws import Lengths, Step, log_normal, poisson
from sim.workloads.prompt import Prompt

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sim.policy import Job
    from sim.workloads.draws import Source


@dataclass(frozen=True, slots=True)
class Agents:
    """Tasks of several steps for agents of a few kinds. Lengths in tokens, times in seconds."""

    kinds: int = 12  # each with its own system prompt and tools, which all its tasks begin with
    system: int = 6000
    tasks: tuple[Step, ...] = (Step(1.75, 240),)  # tasks begun a second
    brief: Lengths = field(default=Lengths(1500, 0.8, 16_000))
    steps: float = 11.0  # mean of a task, geometric
    call: Lengths = field(default=Lengths(150, 0.7, 1500))  # short: mostly tool calls
    result: Lengths = field(default=Lengths(2000, 1.2, 16_000))  # of a tool: often a line, sometimes a file
    tool_time: float = 2.0  # mean, log-normal
    burst_share: float = 0.08  # of the steps hand work to siblings
    siblings: tuple[int, int] = (4, 12)  # fewest and most of a burst
    sibling_steps: int = 3
    instruction: int = 120  # what each sibling is told beyond the common context
    burst_seconds: float = 0.05  # within which a program starts all siblings
    context: int = 100_000  # an agent stops before a prompt would be longer
    output_limit: int = 4000  # what agent frameworks ask for at most


def generate(plan: Agents, source: Source) -> Iterator[Job]:
    """All tasks' requests up to the end of the plan, task by task."""
    systems = [Prompt().then(source.text(), plan.system) for _ in range(plan.kinds)]
    end = sum(step.seconds for step in plan.tasks)
    for number, begin in enumerate(poisson(source.random, plan.tasks)):
        prompt = source.random.choice(systems).then(source.text(), plan.brief.draw(source.random))
        task = _Task(plan, source, f"task-{number}")
        task.run(prompt, begin)
        yield from (job for job in task.jobs if job.arrival < end)


class _Task:
    """One task as it unfolds; `jobs` gathers its requests and those of its siblings."""

    def __init__(self, plan: Agents, source: Source, name: str) -> None:
        self.jobs: list[Job] = []
        self._plan = plan
        self._source = source
        self._random = source.random
        self._name = name
        self._bursts = 0

    def run(self, prompt: Prompt, at: float) -> None:
        """The task's own steps."""
        plan, random = self._plan, self._random
        while prompt.tokens <= plan.context:
            prompt, at = self._ask(prompt, at, self._name)
            if random.random() < 1 / plan.steps:
                return
            if random.random() < plan.burst_share:
                prompt, at = self._burst(prompt, at)
            else:
                prompt, at = self._use_tool(prompt, at)

    def _ask(self, prompt: Prompt, at: float, session: str) -> tuple[Prompt, float]:
        """One request; the prompt with its answer, and when that should be complete."""
        output = self._plan.call.draw(self._random)
        self.jobs.append(prompt.job(at, output, self._plan.output_limit, session))
        answered = prompt.then(self._source.text(), output)
        return answered, at + FIRST_TOKEN_BY_PLAN + output * TOKEN_BY_PLAN

    def _use_tool(self, prompt: Prompt, at: float) -> tuple[Prompt, float]:
        result = self._plan.result.draw(self._random)
        took = log_normal(self._random, self._plan.tool_time, _TOOL_SPREAD)
        return prompt.then(self._source.text(), result), at + took

    def _burst(self, prompt: Prompt, at: float) -> tuple[Prompt, float]:
        """Siblings at work; the prompt with all their reports, and when the last has come."""
        self._bursts += 1
        last = at
        reported = prompt
        for number in range(self._random.randint(*self._plan.siblings)):
            session = f"{self._name}/{self._bursts}.{number}"
            begin = at + self._random.uniform(0, self._plan.burst_seconds)
            report, done = self._sibling(prompt, begin, session)
            reported = reported.then(self._source.text(), report)
            last = max(last, done)
        return reported, last

    def _sibling(self, prompt: Prompt, at: float, session: str) -> tuple[int, float]:
        """One sibling's steps; the length of its last answer, which is its report, and when it is done."""
        prompt = prompt.then(self._source.text(), self._plan.instruction)
        report, done = 0, at
        for _ in range(self._plan.sibling_steps):
            if prompt.tokens > self._plan.context:
                break
            answered, done = self._ask(prompt, at, session)
            report = answered.tokens - prompt.tokens
            prompt, at = self._use_tool(answered, done)
        return report, done


_TOOL_SPREAD = 1.0  # of the logarithm: most tools answer at once, some run for long

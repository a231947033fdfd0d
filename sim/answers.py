"""The names of the blocks that answers fill: known only where a later prompt of the session repeats them."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sim.policy import Job

LOOK_AHEAD = 32
"""Later jobs of a session that are searched for a repeated answer: siblings of a burst come in between."""


def answer_names(jobs: Sequence[Job]) -> dict[int, Sequence[int]]:
    """By job id, the names of the whole blocks after its prompt's, up to the end of its answer.

    Answers that nobody repeats have no names: they are left out.
    """
    sessions: dict[str, list[Job]] = defaultdict(list)
    for job in sorted(jobs, key=lambda job: (job.arrival, job.id)):
        if job.session:
            sessions[job.session].append(job)
    names: dict[int, Sequence[int]] = {}
    for session in sessions.values():
        for position, job in enumerate(session, start=1):
            ahead = session[position : position + LOOK_AHEAD]
            later = next((other for other in ahead if _repeats(other, job)), None)
            if later is not None:
                names[job.id] = later.blocks[_prompt_blocks(job) : _all_blocks(job)]
    return names


def _repeats(later: Job, job: Job) -> bool:
    """Whether `later` begins with the whole blocks of this prompt and is long enough for its answer, too."""
    own = _prompt_blocks(job)
    return (
        later.prompt_tokens >= job.prompt_tokens + job.output_tokens
        and 0 < own <= len(job.blocks)
        and own <= len(later.blocks)
        and later.blocks[own - 1] == job.blocks[own - 1]  # chained: so are all before it
    )


def _prompt_blocks(job: Job) -> int:
    return job.prompt_tokens // job.block_tokens


def _all_blocks(job: Job) -> int:
    return (job.prompt_tokens + job.output_tokens) // job.block_tokens

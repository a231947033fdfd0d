"""Prompts without words: a chain of texts, each known by a number and a length in tokens.

Two prompts share a block exactly where they are made of the same texts up to that block's end, as real
prompts hashed block by block do.
"""

from __future__ import annotations

from dataclasses import dataclass

from xxhash import xxh3_64_intdigest

from sim.policy import Job

BLOCK_TOKENS = 128
"""Tokens per block of the generated workloads: between the engines' 32, which would quadruple the hashes of
long documents, and the 512 of published traces, which would hide a third of a short message."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """`blocks` are chained hashes of the whole blocks; the tokens after the last of them have none."""

    tokens: int = 0
    blocks: tuple[int, ...] = ()
    chain: int = 0  # 64-bit hash of every text so far and its length

    def then(self, text: int, tokens: int) -> Prompt:
        """This prompt followed by so many tokens of a text."""
        chain = _mix(self.chain, text)
        total = self.tokens + tokens
        # Named by where it ends in this text, a block is the same in a longer cut of the same text.
        fresh = (_mix(chain, index) for index in range(len(self.blocks), total // BLOCK_TOKENS))
        return Prompt(total, (*self.blocks, *fresh), _mix(chain, tokens))

    def job(
        self, arrival: float, output: int, limit: int | None, session: str = "", workload_class: str = ""
    ) -> Job:
        """A request for an answer of `output` tokens, `limit` of them allowed; numbered later, by arrival."""
        return Job(
            id=0,
            arrival=arrival,
            prompt_tokens=self.tokens,
            output_tokens=output,
            blocks=self.blocks,
            block_tokens=BLOCK_TOKENS,
            session=session,
            workload_class=workload_class,
            output_limit=limit,
        )


def _mix(chain: int, value: int) -> int:
    return xxh3_64_intdigest(value.to_bytes(8, "little"), chain)

"""How fast an engine goes: what an iteration of its batch takes, and how a prompt proceeds meanwhile.

`sim.engine` decides who runs; a `Timing` says how long it takes. It is asked for a `Pace` whenever who runs
has changed, and the pace holds until that changes again, so it is exact in closed form: no iteration is
played by itself.

`StandardTiming` is what emulated backends have, and close to what our predictor assumes. `SharedBudgetTiming`
is unlike it on purpose: attention costs more the longer the context, prefill and decode share iterations of
a limited number of tokens, and everything is noisy. What routing gains must hold on both.
"""

from __future__ import annotations

import math
import random
from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from fleet.errors import ConfigError
from fleet.gpu import BYTES_PER_PARAMETER
from sim.capacity import kv_bytes_per_token

if TYPE_CHECKING:
    from collections.abc import Callable

    from fleet.model import Rate

PREFILL_SLOWDOWN = 0.012
"""Share by which each running decode slows a prefill: its tokens ride in the same iterations."""

DECODE_SLOWDOWN = 0.004
"""Share by which each further stream slows all streams: one more KV cache to read per iteration."""

MIXED_SLOWDOWN = 0.25
"""Share by which iterations that carry a chunk of prefill are slower for the streams in them."""

TOKEN_BUDGET = 2048
"""Most tokens of one iteration with chunked prefill: vLLM's usual `max_num_batched_tokens`. Larger budgets
(TensorRT-LLM's `max_num_tokens` is 8192) make prompts faster and stall streams for longer."""

ITERATION_OVERHEAD = 0.001
"""Seconds of host work per iteration that no stream's time per token includes: scheduling, launches."""

# The dense model of 32e9 weights that simulated fleets serve, in the shape of Qwen3-32B.
_PARAMETERS = 32e9
_LAYERS, _HEADS, _HEAD_DIM = 64, 64, 128

ATTENTION_TOKENS = 2 * _PARAMETERS / (4 * _LAYERS * _HEADS * _HEAD_DIM)
"""Context at which a prompt token costs twice what it does at the start, about 30,500 tokens: the weights
take 2 FLOP each, and attention 4 (a score, a weighted sum) per layer, head, dimension and context token."""

KV_READ_TOKENS = BYTES_PER_PARAMETER * _PARAMETERS / kv_bytes_per_token(_PARAMETERS)
"""Tokens of KV cache, of all streams together, that take as long to read as the weights: about 273,000."""

NOISE = 0.1
"""Standard deviation of the variant's log-normal factors, as a share of their mean, which is 1."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """What is left of the prompt that is being prefilled."""

    position: float  # tokens before the next to compute: cached, or computed already
    tokens_left: float
    overhead_left: float  # seconds before its first token can be computed
    cost: float  # factor on its work, from `Timing.prompt_cost`


@dataclass(frozen=True, slots=True)
class Batch:
    """Who runs: the decoding streams, the tokens of KV cache they read, and the prompt being prefilled."""

    streams: int
    context_tokens: float
    prompt: Prompt | None


class Pace(Protocol):
    """How one batch proceeds from the moment it was formed; seconds and iterations count from there."""

    def iterations(self, seconds: float) -> float:
        """Iterations done after `seconds`; each gives every stream one token."""

    def seconds(self, iterations: float) -> float:
        """The inverse, for a batch with streams. Past the prompt's end, the figure is only that: past it."""

    def tokens(self, seconds: float) -> float:
        """Prompt tokens computed after `seconds`."""

    def prefill_seconds(self) -> float:
        """Seconds until the prompt is computed."""


class Timing(Protocol):
    """One engine's speed. May remember and draw: one object for each engine."""

    def prompt_cost(self) -> float:
        """A factor on the work of the prompt that is about to start."""

    def pace(self, rate: Rate, batch: Batch) -> Pace:
        """How `batch` proceeds on an engine that has `rate` while nothing else runs there."""


@dataclass(frozen=True, slots=True)
class _Steady:
    """Iterations that all take the same, and a prompt at a constant rate beside them."""

    iteration_seconds: float
    prefill_rate: float = 0.0
    overhead: float = 0.0
    prompt_tokens: float = 0.0

    def iterations(self, seconds: float) -> float:
        return seconds / self.iteration_seconds

    def seconds(self, iterations: float) -> float:
        return iterations * self.iteration_seconds

    def tokens(self, seconds: float) -> float:
        return max(0.0, seconds - self.overhead) * self.prefill_rate

    def prefill_seconds(self) -> float:
        return self.overhead + self.prompt_tokens / self.prefill_rate


class StandardTiming:
    """Prompts at a rate that each stream lowers a little; streams slower in company and beside a prompt."""

    def prompt_cost(self) -> float:
        """No prompt differs from another."""
        return 1.0

    def pace(self, rate: Rate, batch: Batch) -> Pace:
        """Constant, whatever the contexts."""
        mixed = 0.0 if batch.prompt is None else MIXED_SLOWDOWN
        among = 1 + DECODE_SLOWDOWN * max(0, batch.streams - 1)
        iteration = rate.tpot * among * (1 + mixed)
        if batch.prompt is None:
            return _Steady(iteration)
        prefill_rate = rate.prefill / (1 + PREFILL_SLOWDOWN * batch.streams)
        return _Steady(iteration, prefill_rate, batch.prompt.overhead_left, batch.prompt.tokens_left)


@dataclass(frozen=True, slots=True)
class _Chunked:
    """A prompt in chunks, one per iteration, the streams' tokens beside each.

    x tokens take `linear * x + square * x**2` seconds. While the host prepares the prompt, streams go on
    without it.
    """

    decode_seconds: float  # of an iteration without a chunk; infinity without streams
    overhead: float
    prompt_tokens: float
    chunk: float  # tokens
    linear: float
    square: float

    def iterations(self, seconds: float) -> float:
        return min(seconds, self.overhead) / self.decode_seconds + self.tokens(seconds) / self.chunk

    def seconds(self, iterations: float) -> float:
        alone = self.overhead / self.decode_seconds
        if iterations <= alone:
            return iterations * self.decode_seconds
        return self.overhead + self._seconds_for((iterations - alone) * self.chunk)

    def tokens(self, seconds: float) -> float:
        computing = max(0.0, seconds - self.overhead)
        # The quadratic's root in the form that loses no digits where the square's share is small.
        return 2 * computing / (self.linear + math.sqrt(self.linear**2 + 4 * self.square * computing))

    def prefill_seconds(self) -> float:
        return self.overhead + self._seconds_for(self.prompt_tokens)

    def _seconds_for(self, tokens: float) -> float:
        return (self.linear + self.square * tokens) * tokens


class SharedBudgetTiming:
    """Iterations of at most TOKEN_BUDGET tokens: one of each stream, the rest a chunk of the prompt.

    An iteration takes its decode part (longer with more streams and with their contexts) and its chunk's
    part (longer with the chunk's position in its prompt). So streams nearly stand still beside a prompt, and
    a prompt is the slower the more streams there are. Each prompt's work, and the streams' part whenever
    their number changes, is off by a factor from a log-normal distribution.

    Prompts are fluid: the last chunk's iteration is as much shorter as the chunk, as if the next prompt
    filled it up, and none waits for an iteration to begin. Contexts count as they were when the batch formed.
    """

    def __init__(self, draw: random.Random) -> None:
        self._draw = draw
        self._streams = 0
        self._noise = 1.0

    def __copy__(self) -> SharedBudgetTiming:
        """It will draw the same as this one, each for itself."""
        made = SharedBudgetTiming(copy(self._draw))
        vars(made).update(_streams=self._streams, _noise=self._noise)
        return made

    def prompt_cost(self) -> float:
        """Drawn anew for each."""
        return self._factor()

    def pace(self, rate: Rate, batch: Batch) -> Pace:
        """Quadratic in the prompt's tokens."""
        streams, prompt = batch.streams, batch.prompt
        decode = self._decode_seconds(rate, batch)
        if prompt is None:
            return _Steady(decode)
        chunk = max(1, TOKEN_BUDGET - streams)
        per_token = prompt.cost / rate.prefill
        return _Chunked(
            decode_seconds=decode,
            overhead=prompt.overhead_left,
            prompt_tokens=prompt.tokens_left,
            chunk=chunk,
            # The integral of 1 + c / ATTENTION_TOKENS over contexts c from the position on.
            linear=(decode if streams else ITERATION_OVERHEAD) / chunk
            + per_token * (1 + prompt.position / ATTENTION_TOKENS),
            square=per_token / (2 * ATTENTION_TOKENS),
        )

    def _decode_seconds(self, rate: Rate, batch: Batch) -> float:
        if batch.streams != self._streams:
            self._streams = batch.streams
            self._noise = self._factor()
        if not batch.streams:
            return math.inf
        # Contexts are read for themselves here; what else a stream costs (sampling, its activations) stays.
        slower = DECODE_SLOWDOWN * (batch.streams - 1) + batch.context_tokens / KV_READ_TOKENS
        return rate.tpot * (1 + slower) * self._noise

    def _factor(self) -> float:
        return self._draw.lognormvariate(-(_SIGMA**2) / 2, _SIGMA)


_SIGMA = math.sqrt(math.log(1 + NOISE**2))  # of the logarithm

ENGINES: dict[str, Callable[[random.Random], Timing]] = {
    "standard": lambda _: StandardTiming(),
    "variant": SharedBudgetTiming,
}
"""Kinds of engine by name; what they are made with draws their noise."""


def timing(engine: str, seed: int, endpoint: int) -> Timing:
    """The timing of a fleet's endpoint of that number. Raises ConfigError, naming the kinds there are."""
    if engine not in ENGINES:
        raise ConfigError("engine", "", engine, f"must be one of {', '.join(ENGINES)}")
    return ENGINES[engine](random.Random(f"{seed}/{endpoint}"))

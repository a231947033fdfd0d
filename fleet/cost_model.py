"""What makes one prompt's tokens dearer than another's, learned over all endpoints of a model.

    seconds of a prefill = overhead + tokens x (1 + context x mean position + decode x streams) / rate

A token attends to all before it, and shares its iterations with the streams that decode meanwhile. What that
costs is a matter of the model and the engine, the rate one of the endpoint. So endpoints' observations are
compared with that endpoint's own mean, and only the deviations are pooled: whatever the rates are, they
cancel out. The same goes for what a prefill costs the streams beside it (`stall`).
"""

from __future__ import annotations

from dataclasses import dataclass

MEMORY = 0.995
"""What one observation leaves of those before: about 200, over all endpoints; these change with a release."""

SLOWDOWN_PER_DECODE = 0.012
"""Assumed until learned: one token of every batch step per stream (facts of the emulated engine's model)."""

STALL = 0.25
"""Assumed until learned: the share of its speed that a stream loses while a prompt is prefilled beside it."""

POSITION_UNIT = 30_000.0  # tokens
STREAMS_UNIT = 20.0
"""Positions and streams are of this order, so that one ridge suits both."""

RIDGE = 1.0
"""Strength of the assumptions, in observations that deviate by one unit."""

STALL_RIDGE = 2.0
"""The same for `stall`, whose deviations are relative."""

LARGEST_DEVIATION = 3.0
"""Relative to the mean: beyond it an observation tells of an accident, not of the engine."""

LARGEST_SHARE = 0.7
"""Of a mean prefill, at most so much is context and streams: more is a fit of noise."""


@dataclass(slots=True)
class Means:
    """One endpoint's decayed means of its prefills: what deviations are taken from."""

    weight: float = 0.0
    seconds_per_token: float = 0.0
    position: float = 0.0
    streams: float = 0.0

    def add(self, seconds_per_token: float, position: float, streams: float, weight: float) -> None:
        """One more prefill, which counts as `weight`, 0..1."""
        self.weight = MEANS_MEMORY * self.weight + weight
        share = weight / self.weight
        self.seconds_per_token += share * (seconds_per_token - self.seconds_per_token)
        self.position += share * (position - self.position)
        self.streams += share * (streams - self.streams)


MEANS_MEMORY = 0.95
"""An endpoint's own means follow it within about 20 prefills."""

MEANS_MIN = 4.0
"""Prefills before an endpoint's means are means."""


class CostModel:
    """`context`: per token of position; `decode`: per stream; `stall`: 0 (streams do not notice) to 1."""

    def __init__(self) -> None:
        self.context = 0.0
        self.decode = SLOWDOWN_PER_DECODE
        self.stall = STALL
        self._pp = self._ps = self._ss = self._py = self._sy = 0.0  # decayed sums of products of deviations
        self._weight = 0.0
        self._position = self._streams = 0.0  # means over all endpoints, in units
        self._xx, self._xy = STALL_RIDGE, STALL_RIDGE * STALL

    def work(self, matched: float, uncached: float) -> float:
        """Tokens at the start of a prompt that would take as long as `uncached` ones after `matched`."""
        return uncached * (1 + self.context * (matched + uncached / 2))

    def slowdown(self, streams: int) -> float:
        """Factor on a prefill's time beside so many decoding streams."""
        return 1 + self.decode * streams

    def observe_prefill(
        self, means: Means, seconds_per_token: float, position: float, streams: float, weight: float
    ) -> None:
        """A prefill at mean position `position` beside `streams`, at the endpoint whose means are given."""
        if means.weight >= MEANS_MIN:
            deviation = seconds_per_token / means.seconds_per_token - 1
            self._position += (
                weight / max(1.0, self._weight) * (means.position / POSITION_UNIT - self._position)
            )
            self._streams += weight / max(1.0, self._weight) * (means.streams / STREAMS_UNIT - self._streams)
            self._add(
                min(LARGEST_DEVIATION, deviation),
                (position - means.position) / POSITION_UNIT,
                (streams - means.streams) / STREAMS_UNIT,
                weight,
            )
            self._solve()
        means.add(seconds_per_token, position, streams, weight)

    def observe_stream(self, prefill_share: float, slowdown: float) -> None:
        """A stream saw so much more prefill than others there, and took so much longer.

        Both are deviations from the endpoint's means as shares of its time per token.
        """
        share = max(-LARGEST_DEVIATION, min(LARGEST_DEVIATION, prefill_share))
        slowdown = max(-LARGEST_DEVIATION, min(LARGEST_DEVIATION, slowdown))
        forgotten = (1 - MEMORY) * STALL_RIDGE
        self._xx = MEMORY * self._xx + share * share + forgotten
        self._xy = MEMORY * self._xy + share * slowdown + forgotten * STALL
        self.stall = min(1.0, max(0.0, self._xy / self._xx))

    def _add(self, deviation: float, position: float, streams: float, weight: float) -> None:
        self._pp = MEMORY * self._pp + weight * position * position
        self._ps = MEMORY * self._ps + weight * position * streams
        self._ss = MEMORY * self._ss + weight * streams * streams
        self._py = MEMORY * self._py + weight * position * deviation
        self._sy = MEMORY * self._sy + weight * streams * deviation
        self._weight = MEMORY * self._weight + weight

    def _solve(self) -> None:
        """Ridge regression of relative deviations; then from shares of the mean to shares of the start."""
        assumed = SLOWDOWN_PER_DECODE * STREAMS_UNIT
        assumed /= 1 + assumed * self._streams
        pp, ss = self._pp + RIDGE, self._ss + RIDGE
        py, sy = self._py, self._sy + RIDGE * assumed
        determinant = pp * ss - self._ps * self._ps
        context = max(0.0, (py * ss - sy * self._ps) / determinant)
        decode = max(0.0, (sy * pp - py * self._ps) / determinant)
        share = context * self._position + decode * self._streams
        fit = min(1.0, LARGEST_SHARE / share) if share > 0 else 1.0
        start = 1 - fit * share
        self.context = fit * context / start / POSITION_UNIT
        self.decode = fit * decode / start / STREAMS_UNIT

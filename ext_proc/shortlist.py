"""Which of many candidates are worth a close look: a few array operations instead of a price for each.

A close look at an endpoint (predict, price) costs some 4 us, so a thousand would cost 4 ms a pick. Instead
every endpoint has a row on a board: when its queue ends and what a token costs there. From these follows a
bound, in seconds, below which its cost cannot be. Looking closely at those with the lowest bounds, until no
bound left is below the best cost found, finds the cheapest. What the clock alone changes is a second old.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ext_proc.choice import TIE_SECONDS, TIE_SHARE
from ext_proc.price import OPTIMISM, STREAM_PRICE, Sums, behind, memory_price
from fleet.ledger import REQUEST_OVERHEAD_SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from ext_proc.endpoint import EndpointState
    from ext_proc.request import RoutingRequest
    from fleet.index import Members

AT_ONCE = 4
"""Endpoints looked at closely before their costs are compared with the bounds of the others."""

LOOKS_MAX = 64
"""Endpoints looked at closely at most: what is cheaper beyond them is so by next to nothing."""

FADED = 0.95
"""What is left of a demand, at least, a second after its row was written."""

SUMS_SECONDS = 0.25
"""How long the sums over all candidates stand: they change by one placement in hundreds meanwhile."""

IDLE = float("-inf")
"""When the queue of an endpoint ends that has none."""

LONG_PAST = 1e6
"""Seconds; infinity less infinity would be no number."""


class Board:
    """A row for every endpoint: what a first look needs, as columns."""

    def __init__(self, states: Sequence[EndpointState], seed: int) -> None:
        """Each state's `row` is its place in `states`. `seed` shuffles those that are equal."""
        self._states = states
        self._changed = set(range(len(states)))
        for row, state in enumerate(states):
            state.watch(row, self._changed)
        self.free_at = np.full(len(states), IDLE)
        self.variance = np.zeros(len(states))  # of that, as the ledger's formula takes it
        self.per_token = np.zeros(len(states))  # seconds, of this request's own waiting
        self.streams = np.zeros(len(states))  # seconds for others, by second of prefill
        self.trust = np.ones(len(states))
        self.longest = np.zeros(len(states))  # prefill that counts for those behind it, seconds,
        self.behind = np.zeros(len(states))  # and what delaying those costs
        self.memory = np.zeros(len(states))  # seconds by token of KV cache, squared
        self.load = np.zeros(len(states))  # as `choice` compares it
        # Twice as long as needed, so that any slice of the right length is a different order.
        self._noise = np.random.default_rng(seed % (1 << 63)).random(2 * len(states))

    def bring_up(self, now: float) -> None:
        """Write anew the rows of those that changed."""
        for row in self._changed:
            state = self._states[row]
            rate = state.rates.prefill
            slowdown = state.costs.slowdown(len(state.ledger.decodes))
            self.free_at[row], self.variance[row] = state.ledger.outlook(now, rate)
            self.per_token[row] = slowdown / (rate * (1 + OPTIMISM * state.rates.uncertainty))
            self.streams[row] = STREAM_PRICE * state.costs.stall * len(state.ledger.decodes)
            self.trust[row] = state.trust
            self.longest[row], self.behind[row] = behind(state, now)
            self.memory[row] = memory_price(state, 1.0)
            self.load[row] = state.ledger.in_flight * state.decoding.tpot
        self._changed.clear()

    def refresh(self) -> None:
        """What the clock alone changes must be written anew, too."""
        self._changed.update(range(len(self._states)))

    def noise(self, offset: int, length: int) -> NDArray[np.float64]:
        """Numbers in 0..1, other ones for another `offset`."""
        start = offset % len(self._states)
        return self._noise[start : start + length]


class Group:
    """The candidates of one cluster, or of one part of it."""

    def __init__(self, states: Sequence[EndpointState], members: Members, board: Board) -> None:
        """`members` are the same endpoints, as the prefix index knows them."""
        self.states = states
        self.members = members
        self._board = board
        self._rows = np.array([state.row for state in states])
        self._place = {state.endpoint.address: n for n, state in enumerate(states)}
        self._bits = np.array([bit.bit_length() - 1 for bit in members.bits])
        self._mask_bytes = int(self._bits.max()) // 8 + 1
        self._sums: Sums | None = None
        self._sums_until = IDLE

    def sums(self, now: float) -> Sums:
        """Over all of them, at most SUMS_SECONDS old."""
        if self._sums is None or now >= self._sums_until:
            self._sums = Sums.of(self.states, now)
            self._sums_until = now + SUMS_SECONDS
        return self._sums

    def blocks(self, depths: Iterable[tuple[int, int]]) -> NDArray[np.float64]:
        """Leading blocks that each of them holds, from what `PrefixIndex.depths` says."""
        blocks = np.zeros(len(self._rows))
        for mask, depth in depths:
            data = np.frombuffer(mask.to_bytes(self._mask_bytes, "little"), np.uint8)
            blocks[np.unpackbits(data, bitorder="little")[self._bits] != 0] = depth
        return blocks

    def matched(self, blocks: NDArray[np.float64], states: Iterable[EndpointState]) -> dict[str, int]:
        """The blocks of some of them, by address."""
        addresses = [state.endpoint.address for state in states]
        return {address: int(blocks[self._place[address]]) for address in addresses}

    def waits(self, now: float) -> NDArray[np.float64]:
        """Seconds until a prompt placed now should begin, where nothing is late: `Ledger.wait_seconds`."""
        board, rows = self._board, self._rows
        board.bring_up(now)
        left = np.maximum(board.free_at[rows] - now, -LONG_PAST)
        waits: NDArray[np.float64] = 0.5 * (left + np.sqrt(left * left + board.variance[rows]))
        return waits

    def look(
        self,
        waits: NDArray[np.float64],
        request: RoutingRequest,
        blocks: NDArray[np.float64],
        reserved: Mapping[str, float],
        needed_tokens: float,
        price_per_token: float,
        patience: float,
        offset: int,
    ) -> Look:
        """The order in which to look at them closely, for this request, given their `waits`.

        So many `blocks` of it are at each; there are `reserved` seconds ahead; `needed_tokens` of KV
        cache will be taken; a token costs all others `price_per_token`, and a second of this request's own
        waiting counts as `patience`.
        """
        board, rows = self._board, self._rows
        believed = np.minimum(blocks * request.tokens_per_block, max(0.0, request.prompt_tokens - 1))
        uncached = request.prompt_tokens - believed * board.trust[rows]
        wait = waits.copy() if reserved else waits
        for address, seconds in reserved.items():
            if seconds and address in self._place:
                wait[self._place[address]] += seconds
        per_token = board.per_token[rows]
        prefill = REQUEST_OVERHEAD_SECONDS + uncached * per_token
        bounds = patience * (wait + prefill) + uncached * price_per_token + prefill * board.streams[rows]
        length = np.minimum(prefill, board.longest[rows])
        bounds += board.memory[rows] * needed_tokens**2
        bounds += FADED * board.behind[rows] * length * (waits + 0.5 * length)
        load = board.load[rows]
        most = float(load.max())
        tie = TIE_SECONDS + TIE_SHARE * prefill
        order = bounds + 0.01 * tie * board.noise(offset, len(rows))
        if most:
            order += 0.5 / most * tie * load
        return Look(self.states, bounds, order)

    def at(self, address: str | None) -> EndpointState | None:
        """The member of that address, if there is one."""
        place = None if address is None else self._place.get(address)
        return None if place is None else self.states[place]


class Look:
    """Endpoints by what they may cost at least, a few at a time."""

    def __init__(
        self,
        states: Sequence[EndpointState],
        bounds: NDArray[np.float64],
        order: NDArray[np.float64],
    ) -> None:
        self._states = states
        self._bounds = bounds
        self._order = order

    def batches(self) -> Iterator[tuple[list[EndpointState], float]]:
        """The next AT_ONCE endpoints each time, and the lowest bound of those that are left after them."""
        order, bounds = self._order, self._bounds
        looked = 0
        while looked < len(order):
            count = min(AT_ONCE, len(order) - looked)
            # Those looked at before have gone to the end: their order is infinite.
            best = np.argpartition(order, count - 1)[:count]
            order[best] = np.inf
            bounds[best] = np.inf
            looked += count
            yield [self._states[place] for place in best.tolist()], float(bounds.min())

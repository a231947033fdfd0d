"""Tokens out of a common budget: what is asked of a store, what it grants, and the sliding window behind it.

A window of `window` seconds is kept in BUCKETS equal buckets of the clock. What is counted is the current
bucket and the BUCKETS before it, so at least a whole window: all that is granted within any `window`
seconds, together with debts booked before, stays within the budget.
"""

from __future__ import annotations

from dataclasses import dataclass

BUCKETS = 20
"""Of a window: what was used counts for 5 % of it too long at most."""


@dataclass(frozen=True, slots=True)
class LeaseAsk:
    """One account's `debt`, booked whatever its budget says, and what it `wants` besides.

    Tokens; below 0 it gives back. `account` is any text; accounts of the same text share a budget.
    """

    account: str
    debt: int
    wants: int
    budget: int
    window: float  # seconds


@dataclass(frozen=True, slots=True)
class Lease:
    """What was granted of what was wanted, and in how many seconds some of the budget will be free again."""

    granted: int
    used: int  # of the budget, by all, with this
    frees_in: float


class SlidingWindow:
    """Tokens used within the last `window` seconds, or up to a bucket more."""

    def __init__(self, window: float) -> None:
        self._span = window / BUCKETS
        self._buckets: dict[int, float] = {}

    def add(self, tokens: float, now: float) -> None:
        """Use tokens; fewer than none were never used after all."""
        bucket = int(now // self._span)
        self._buckets[bucket] = self._buckets.get(bucket, 0) + tokens

    def used(self, now: float) -> float:
        """Tokens that count at `now`."""
        oldest = int(now // self._span) - BUCKETS
        for bucket in [bucket for bucket in self._buckets if bucket < oldest]:
            del self._buckets[bucket]
        return max(0.0, sum(self._buckets.values()))

    def take_back(self, tokens: float) -> None:
        """Tokens that were not used after all, from the oldest on: what is left counts for longer."""
        for bucket in sorted(self._buckets):
            part = min(tokens, self._buckets[bucket])
            self._buckets[bucket] -= part
            tokens -= part

    def frees_in(self, now: float) -> float:
        """Seconds until the oldest tokens no longer count; 0 where none do."""
        self.used(now)
        full = [bucket for bucket, tokens in self._buckets.items() if tokens > 0]
        return max(0.0, (min(full) + BUCKETS + 1) * self._span - now) if full else 0.0


def lend(window: SlidingWindow, ask: LeaseAsk, now: float) -> Lease:
    """What the account behind `window` grants at `now`."""
    used = window.used(now)
    if ask.wants < 0:
        window.take_back(-ask.wants)
    window.add(ask.debt, now)
    granted = int(max(0.0, min(ask.wants, ask.budget - used - ask.debt)))
    window.add(granted, now)
    return Lease(granted, int(window.used(now)), window.frees_in(now))


LUA = """
redis.replicate_commands()
local debt, wants, budget = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local span, count = tonumber(ARGV[4]), tonumber(ARGV[5])
local clock = redis.call('TIME')
local now = tonumber(clock[1]) + tonumber(clock[2]) / 1e6
local bucket = math.floor(now / span)
local all, used, buckets, tokens = redis.call('HGETALL', KEYS[1]), 0, {}, {}
for n = 1, #all, 2 do
  local each, held = tonumber(all[n]), tonumber(all[n + 1])
  if each == nil or held == nil or each < bucket - count or each > bucket then
    redis.call('HDEL', KEYS[1], all[n])
  else
    used = used + held
    table.insert(buckets, each)
    tokens[each] = held
  end
end
table.sort(buckets)
local function change(each, by)
  if by ~= 0 then
    tokens[each] = (tokens[each] or 0) + by
    used = used + by
    redis.call('HSET', KEYS[1], string.format('%d', each), string.format('%d', tokens[each]))
  end
end
local back = math.max(0, -wants)
local granted = math.max(0, math.min(wants, budget - used - debt))
for _, each in ipairs(buckets) do
  local part = math.min(back, tokens[each])
  change(each, -part)
  back = back - part
end
change(bucket, debt + granted)
redis.call('PEXPIRE', KEYS[1], math.ceil((count + 2) * span * 1000))
local frees = 0
for _, each in ipairs(buckets) do
  if tokens[each] > 0 then frees = (each + count + 1) * span - now break end
end
if frees == 0 and (tokens[bucket] or 0) > 0 then frees = (bucket + count + 1) * span - now end
return {granted, used, string.format('%.6f', frees)}
"""
"""`lend` inside Redis, by Redis's own clock, so that replicas' clocks do not matter. KEYS: the account's hash
of bucket to tokens. ARGV: debt, wants, budget, seconds of a bucket, BUCKETS."""

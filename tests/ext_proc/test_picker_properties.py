"""Whatever happens to requests, in whatever order: decisions are sound, and nothing is owed in the end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from ext_proc.choice import TIE_SECONDS, TIE_SHARE
from ext_proc.events import Began, BlocksRemoved, BlocksStored, Cancelled, Ended
from ext_proc.picker import Picker
from ext_proc.request import RoutingRequest
from fleet.model import Load
from fleet.settings import PickerSettings
from tests.ext_proc.small import ENDPOINTS, FAST, SLOW, THIRD, TOKENS

if TYPE_CHECKING:
    from ext_proc.decision import Decision

STRANGER = "9.9.9.9:9"
ADDRESSES = (FAST, SLOW, THIRD, STRANGER)
PLACEMENTS = ("pick", "pick", "pick")  # often, so that there is something to be told of
NEWS = ("first_token", "running", "finish", "fail", "leave", "cancel", "told", "told_end")
ENGINE = ("expire", "stored", "removed", "scrape", "down", "loaded")

STEP = st.tuples(
    st.sampled_from(PLACEMENTS + NEWS + ENGINE),
    st.integers(0, 40),
    st.lists(st.sampled_from(ADDRESSES), min_size=1, max_size=4, unique=True),
    st.booleans(),
    st.floats(0, 4),
)
Step = tuple[str, int, list[str], bool, float]


class Course:
    """Two replicas that tell each other of their placements, sometimes, and a clock."""

    def __init__(self, per_pick: int) -> None:
        settings = PickerSettings(endpoints_per_pick=per_pick)
        self.per_pick = per_pick
        self.settings = settings
        self.pickers = [Picker(settings, ENDPOINTS, seed=n, name=f"replica-{n}") for n in range(2)]
        self.decisions: list[Decision] = []
        self.now = 0.0

    def step(self, step: Step) -> None:
        action, n, addresses, flag, elapsed = step
        self.now += elapsed
        picker = self.pickers[n % 2]
        if action == "pick":
            self.pick(picker, n, addresses, flag)
        elif action in ENGINE:
            self.engine(action, picker, n, addresses[0])
        elif self.decisions:
            self.news(action, self.decisions[n % len(self.decisions)], addresses[0], n, flag)

    def pick(self, picker: Picker, n: int, addresses: list[str], flag: bool) -> None:
        asked = RoutingRequest(
            candidates=addresses,
            prompt_tokens=n * TOKENS + 1,
            blocks=range(n),
            tokens_per_block=TOKENS,
            output_limit=n * 10 if flag else None,
            session=f"s{n % 3}",
            streamed=flag,
            model="m",
            lora="sql" if n % 5 == 0 else "",
            workload_class="batch" if n % 4 == 0 else "interactive",
        )
        decision = picker.pick(asked, self.now)
        known = set(addresses) - {STRANGER}
        assert (decision is None) == (not known)
        if decision is not None:
            self.check(decision, known)
            self.decisions.append(decision)

    def check(self, decision: Decision, known: set[str]) -> None:
        listed = [found.prediction.address for found in decision.reasons]
        assert set(listed) <= known
        assert len(set(listed)) == len(listed)
        assert decision.endpoints == tuple(listed[: self.per_pick])
        best, *others = decision.reasons
        costs = [found.cost for found in others]
        assert costs == sorted(costs)
        cheapest = min(decision.reasons, key=lambda found: found.cost)
        assert best.cost <= cheapest.cost + TIE_SECONDS + TIE_SHARE * cheapest.prediction.prefill
        assert 0 < decision.predicted_ttft < float("inf")
        assert all(min(found[1:]) >= 0 for found in decision.reasons)

    def engine(self, action: str, picker: Picker, n: int, address: str) -> None:
        if action == "stored":
            picker.apply(BlocksStored(address, range(n)), self.now)
        elif action == "removed":
            picker.apply(BlocksRemoved(address, range(n // 2, n) if n % 3 else None), self.now)
        elif action == "scrape":
            load = Load(0.0, True, "", n * 50, 2_000, 32, max_requests=n % 4)
            picker.observe(address, load, self.now)
        elif action == "down":
            picker.observe(address, Load(at=0.0, ready=False, reason="refused"), self.now)
        elif action == "loaded":
            picker.observe_loaded(address, ["m"] if n % 2 else None, ["sql"] if n % 3 else None)
        else:
            picker.expire(self.now)

    def news(self, action: str, decision: Decision, address: str, n: int, flag: bool) -> None:
        picker, other = self.pickers if flag else reversed(self.pickers)
        id_, now = decision.id, self.now
        if action == "first_token":
            picker.first_token(id_, now)
            other.apply(Began(id_, now), now)
        elif action == "running":
            picker.running(id_, now, endpoint=address, attempts=n % 4)
        elif action == "cancel":
            picker.cancel(id_, now)
            other.apply(Cancelled(id_, now), now)
        elif action == "told":
            other.apply(decision.placed, now)  # in time, late, or again
        elif action == "told_end":
            other.apply(Ended(id_, now, address, output_tokens=n), now)
        else:
            picker.finish(
                id_,
                now,
                endpoint=address,
                failed=action == "fail",
                answered=action == "finish",
                decode_seconds=1.0 if flag else None,
                output_tokens=n if flag else None,
                prompt_tokens=1_000 if flag else None,
                cached_tokens=n * 25 if flag else None,
            )


@given(steps=st.lists(STEP, max_size=50), per_pick=st.integers(1, 4), all_expire=st.booleans())
def test_whatever_happens_decisions_are_sound_and_nothing_is_owed_in_the_end(
    steps: list[Step], per_pick: int, all_expire: bool
) -> None:
    course = Course(per_pick)
    for step in steps:
        course.step(step)
    for decision in [] if all_expire else course.decisions:
        for picker in course.pickers:
            picker.finish(decision.id, course.now, endpoint=decision.endpoints[0])
    late = course.now + course.settings.silence_seconds + 1
    for picker in course.pickers:
        expired = picker.expire(late)
        assert all_expire or expired == 0
        assert picker.in_flight == len(picker._in_flight) == 0
        for state in picker._endpoints.values():
            assert state.ledger.in_flight == 0
            assert not state.ledger.prefills
            assert not state.ledger.decodes
            assert state.ledger.wait_seconds(late, state.rates.prefill) == 0

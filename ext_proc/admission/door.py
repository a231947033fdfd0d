"""Before a request is placed: its tenant's budget, its priority's standing, its objective.

`Admission` is asked once for each request and gives its `Visit`, which the waiting room asks in turn: whether
to refuse, now that it is known where the request would go. What it is counted with stays until its end.
"""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING

from ext_proc.admission.budget import Budgets, Charge
from ext_proc.admission.refusal import Refusal
from ext_proc.admission.shedding import Saturation, Shedder

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ext_proc.admission.refusal import Reason
    from ext_proc.choice import Considered
    from ext_proc.decision import Decision
    from ext_proc.events import Ended
    from ext_proc.picker import Picker
    from ext_proc.request import RoutingRequest
    from ext_proc.trust import Caller
    from fleet.settings import AdmissionSettings, TenantsSettings

RETRY_MAX_SECONDS = 600
"""Nobody can say what will be in more than ten minutes."""

RETRY_SPREAD = 0.5
"""Those who were refused together come again over so much more of the time: not all at once."""

OCCUPANCY_FRESH_SECONDS = 0.2
"""How full KV caches are is added up again after this time: scrapes come once a second."""


class Admission:
    """In front of one picker; `admissions` by model. With nothing switched on it gives no visits."""

    def __init__(
        self,
        admissions: Mapping[str, AdmissionSettings],
        tenants: TenantsSettings,
        picker: Picker,
        seed: int = 0,
    ) -> None:
        self._picker = picker
        self._draw = random.Random(seed)
        self.budgets = Budgets(tenants, lambda: picker.replicas.count) if tenants.has_budgets else None
        weights = {tenant.name: tenant.weight for tenant in tenants.known}
        self._models = {
            name: _Model(name, admission, weights, picker, seed) for name, admission in admissions.items()
        }
        self._charges: dict[str, Charge] = {}  # by pick
        if self.budgets is not None:
            picker.when_over = self.over

    def priority(self, model: str, caller: Caller) -> int:
        """The caller's, or the model's default."""
        if caller.priority is not None:
            return caller.priority
        return self._models[model].settings.default_priority

    def deadline(self, model: str, caller: Caller, now: float) -> float:
        """When the caller wants its first token, by the picker's clock; infinite where nobody says."""
        objective = caller.ttft_objective
        default = self._models[model].settings.ttft_objective_ms
        if objective is None and default is not None:
            objective = default / 1e3
        return math.inf if objective is None else now + objective

    def visit(self, model: str, request: RoutingRequest, now: float) -> Visit | Refusal | None:
        """What goes with the request to the waiting room; None where nothing can turn it away."""
        of_model = self._models[model]
        tokens = request.prompt_tokens + self._picker.expected_output(request)
        charge: Charge | None = None
        if self.budgets is not None:
            found = self.budgets.charge(request.tenant, model, tokens, now)
            if isinstance(found, float):
                return self.refusal("budget", of_model, request, found)
            charge = found
        if charge is None and not of_model.settings.shed and math.isinf(request.deadline):
            return None
        return Visit(self, of_model, request, tokens, charge)

    def refusal(self, reason: Reason, of_model: _Model, request: RoutingRequest, wait: float) -> Refusal:
        """Turned away for about `wait` seconds."""
        seconds = wait * (1 + RETRY_SPREAD * self._draw.random())
        return Refusal(
            reason,
            max(1, min(RETRY_MAX_SECONDS, math.ceil(seconds))),
            of_model.name,
            of_model.level(request.priority),
            request.tenant,
        )

    def placed(self, id_: str, charge: Charge) -> None:
        """The pick of a request that was counted with `charge`."""
        self._charges[id_] = charge

    def over(self, id_: str, ended: Ended | None, now: float) -> None:
        """A pick is over; without an end nobody ever came, or nobody knows what became of it."""
        charge = self._charges.pop(id_, None)
        if charge is None or self.budgets is None:
            return
        if ended is None or ended.failed:
            self.budgets.correct(charge, 0.0, now)
        elif ended.prompt_tokens is not None and ended.output_tokens is not None:
            self.budgets.correct(charge, float(ended.prompt_tokens + ended.output_tokens), now)

    def withdraw(self, charge: Charge) -> None:
        """The request was not placed at all."""
        if self.budgets is not None:
            self.budgets.correct(charge, 0.0, charge.at)


class Visit:
    """One request at the door: what the waiting room asks about it."""

    __slots__ = ("_admission", "_charge", "_model", "_request", "_tokens", "_wait", "head_start")

    def __init__(
        self,
        admission: Admission,
        model: _Model,
        request: RoutingRequest,
        tokens: float,
        charge: Charge | None,
    ) -> None:
        self._admission = admission
        self._model = model
        self._request = request
        self._tokens = tokens
        self._charge = charge
        self._wait = 1.0
        self.head_start = model.head_start(request.priority)

    def crowded(self, considered: Considered, now: float) -> bool:
        """Whether those that are less important should leave the waiting room for this one."""
        if not self._model.settings.shed:
            return False
        saturation = self._model.saturation(self._request, considered, now)
        return self._model.shedder.crowded(self._request.priority, saturation)

    def refuse(self, considered: Considered, now: float) -> Refusal | None:
        """Turn it away, or let it in."""
        request, model = self._request, self._model
        if request.deadline < math.inf and model.sheds_for_objective(request.priority):
            missed = min(c.prediction.ttft for c in considered.candidates) - (request.deadline - now)
            if missed > 0:
                return self._admission.refusal("objective", model, request, missed)
        if not model.settings.shed:
            return None
        saturation = model.saturation(request, considered, now)
        self._wait = saturation.wait
        if model.shedder.sheds(request.tenant, request.priority, self._tokens, saturation, now):
            return self._admission.refusal("saturated", model, request, saturation.wait)
        return None

    def displaced(self) -> Refusal:
        """A more important one has taken its place."""
        return self._admission.refusal("displaced", self._model, self._request, self._wait)

    def over(self, decision: Decision | None) -> None:
        """It is decided where it goes, or that it will not go."""
        if self._charge is None:
            return
        if decision is None:
            self._admission.withdraw(self._charge)
        else:
            self._admission.placed(decision.id, self._charge)


class _Model:
    """One model's settings and state."""

    def __init__(
        self, name: str, settings: AdmissionSettings, weights: Mapping[str, float], picker: Picker, seed: int
    ) -> None:
        self.name = name
        self.settings = settings
        self.shedder = Shedder(settings.levels, weights, seed)
        self._picker = picker
        self._occupancies: dict[tuple[int, str], tuple[float, float]] = {}  # when, how much; by candidates

    def level(self, priority: int) -> int:
        """The lowest priority of the level that `priority` belongs to."""
        return self.settings.levels[self.shedder.level(priority)].priority

    def head_start(self, priority: int) -> float:
        """Seconds by which it goes before others that are held."""
        if not self.settings.shed:
            return 0.0
        return self.settings.levels[self.shedder.level(priority)].head_start_seconds

    def sheds_for_objective(self, priority: int) -> bool:
        """Whether a request is turned away that cannot be answered in time."""
        return self.settings.objective_unmet == "shed" and priority < self.settings.objective_sheds_below

    def saturation(self, request: RoutingRequest, considered: Considered, now: float) -> Saturation:
        """Of the request's candidates, with what is held for them."""
        wait = min(c.prediction.prefill_wait + c.prediction.room_wait for c in considered.candidates)
        key = len(request.candidates), request.candidates[0]
        at, share = self._occupancies.get(key, (-math.inf, 0.0))
        if not 0 <= now - at < OCCUPANCY_FRESH_SECONDS:
            share = self._picker.kv_share(request.candidates, now)
            self._occupancies[key] = (now, share)
        return Saturation(wait, share)

"""What an endpoint has loaded: models, and the LoRA adapters that it need not fetch again."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

LORAS_MAX = 8
"""Adapters believed resident where the engine does not list them: its usual number of slots."""


@dataclass(slots=True)
class Residency:
    """`models` and `listed` adapters are what the engine said; None where it did not."""

    models: frozenset[str] | None = None
    listed: frozenset[str] | None = None
    _served: OrderedDict[str, None] = field(default_factory=OrderedDict)  # adapters, the latest last

    def serves(self, model: str) -> bool:
        """Whether a request for `model` can be answered here, as far as anybody knows."""
        return self.models is None or not model or model in self.models or self.lists_lora(model)

    def has_lora(self, name: str) -> bool:
        """Whether the adapter is loaded; the engine's own word counts where there is one."""
        return not name or name in (self._served if self.listed is None else self.listed)

    def lists_lora(self, name: str) -> bool:
        """Whether the engine itself said that it has an adapter of that name."""
        return self.listed is not None and name in self.listed

    def placed(self, lora: str) -> None:
        """A request for the adapter is on its way here, and makes the engine load it."""
        if lora:
            self._served[lora] = None
            self._served.move_to_end(lora)
            if len(self._served) > LORAS_MAX:
                self._served.popitem(last=False)

    def restarted(self) -> None:
        """Whatever was loaded is gone."""
        self._served.clear()
        self.models = self.listed = None

from __future__ import annotations

import pytest

from fleet.gpu import CATALOGUE, prior_rate, tensor_parallel_efficiency
from fleet.model import Hardware


def test_keeps_the_reported_efficiencies_and_interpolates_between_them() -> None:
    assert [tensor_parallel_efficiency(n) for n in (1, 2, 4, 8)] == [1.0, 0.85, 0.78, 0.64]
    assert 0.64 < tensor_parallel_efficiency(6) < 0.78
    assert tensor_parallel_efficiency(16) == 0.64


def test_prefill_scales_with_compute_and_decode_with_bandwidth() -> None:
    h100, a100 = (prior_rate(Hardware(gpu, 4), 32e9) for gpu in ("H100-80GB", "A100-80GB"))
    assert h100.prefill / a100.prefill == pytest.approx(989 / 312)
    assert a100.tpot / h100.tpot == pytest.approx(3.35 / 2.039)


def test_every_generation_has_a_source_and_a_positive_rate() -> None:
    for name, gpu in CATALOGUE.items():
        assert gpu.source
        assert prior_rate(Hardware(name), 8e9).prefill > 0

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fleet.errors import ConfigError
from sim.fleets import NAMES, REFERENCE_RATE, fleet

if TYPE_CHECKING:
    from pathlib import Path

POOL = "{name: %s, gpu: H100-80GB, tensor_parallel: 4, emulated: {count: %d, speed: %s}}"


def write(folder: Path, *pools: str) -> str:
    file = folder / "mine.yaml"
    versions = f"[{{name: v, pools: [{', '.join(pools)}]}}]"
    file.write_text(f"models: [{{name: m, parameters_billion: 32, versions: {versions}}}]\n")
    return str(file)


def test_a_uniform_fleet_has_equal_endpoints() -> None:
    uniform = fleet("uniform8")
    assert [c.rate.prefill for c in uniform.capacities] == [20_480.0] * 8
    assert {round(c.kv_tokens, -3) for c in uniform.capacities} == {982_000}
    assert len({e.address for e in uniform.endpoints}) == 8


def test_mixed8_has_two_of_each_generation_as_fast_together_as_uniform8() -> None:
    mixed = fleet("mixed8")
    rates = sorted(c.rate.prefill for c in mixed.capacities)
    assert [r / rates[0] * 0.7 for r in rates] == pytest.approx([0.7, 0.7, 1.0, 1.0, 1.6, 1.6, 2.5, 2.5])
    assert sum(rates) == pytest.approx(8 * REFERENCE_RATE.prefill)
    members = zip(mixed.endpoints, mixed.capacities, strict=True)
    assert {(e.hardware.gpu, round(c.kv_tokens, -3)) for e, c in members} == {
        ("B200-180GB", 2_516_000),
        ("H100-80GB", 982_000),
        ("A100-80GB", 982_000),
        ("A100-40GB", 368_000),
    }


def test_a_faster_generation_decodes_faster_in_the_same_proportion() -> None:
    products = {round(c.rate.prefill * c.rate.tpot, 6) for c in fleet("mixed8").capacities}
    assert products == {round(REFERENCE_RATE.prefill * REFERENCE_RATE.tpot, 6)}


@pytest.mark.parametrize("name", [*NAMES, "mixed3", "mixed256", "uniform1024"])
def test_any_number_of_endpoints_has_that_many_times_the_reference_and_true_priors(name: str) -> None:
    made = fleet(name)
    number = int(name.removeprefix("uniform").removeprefix("mixed"))
    assert len({e.address for e in made.endpoints}) == number
    assert sum(c.rate.prefill for c in made.capacities) == pytest.approx(number * 20_480)
    assert [e.prior for e in made.endpoints] == [c.rate for c in made.capacities]


@pytest.mark.parametrize("name", ["uniform0", "mixed", "uniform1025", "mixed9999", "nope", "uniform8 "])
def test_an_unknown_fleet_is_refused_naming_the_known(name: str) -> None:
    with pytest.raises(ConfigError, match=r"--fleet is .*uniformN.*mixed8"):
        fleet(name)


def test_a_file_gives_its_emulated_pools(tmp_path: Path) -> None:
    made = fleet(write(tmp_path, POOL % ("slow", 2, 1), POOL % ("fast", 1, 2)))
    assert [e.pool for e in made.endpoints] == ["slow", "slow", "fast"]
    assert len({e.address for e in made.endpoints}) == 3
    slow, _, fast = made.capacities
    assert fast.rate.prefill == pytest.approx(2 * slow.rate.prefill)


def test_a_file_without_emulated_pools_is_refused(tmp_path: Path) -> None:
    real = "{name: p, gpu: H100-80GB, endpoints: ['10.0.0.1:80']}"
    with pytest.raises(ConfigError, match="expected a pool with `emulated`"):
        fleet(write(tmp_path, real))


def test_a_pool_too_small_for_its_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected more GPUs"):
        fleet(write(tmp_path, "{name: p, gpu: L4-24GB, emulated: {count: 1}}"))


def test_a_file_of_several_models_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "two.yaml"
    versions = f"versions: [{{name: v, pools: [{POOL % ('p', 1, 1)}]}}]"
    file.write_text(f"models: [{{name: a, {versions}}}, {{name: b, {versions}}}]\n")
    with pytest.raises(ConfigError, match="expected one model"):
        fleet(str(file))

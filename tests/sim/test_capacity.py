from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fleet import settings_file
from fleet.gpu import prior_rate
from fleet.model import Hardware
from sim.capacity import TOKENS_PER_BLOCK, capacity, kv_bytes_per_token, kv_tokens

if TYPE_CHECKING:
    from fleet.settings import ModelSettings


def model(**emulated: float) -> ModelSettings:
    pool = {"name": "p", "gpu": "H100-80GB", "tensor_parallel": 4, "emulated": emulated}
    version = {"name": "v", "pools": [pool]}
    data = {"models": [{"name": "m", "parameters_billion": 32, "versions": [version]}]}
    return settings_file.parse(data, source="test").models[0]


@pytest.mark.parametrize(("parameters", "published"), [(8e9, 131_072), (32e9, 262_144), (70e9, 327_680)])
def test_kv_bytes_per_token_are_near_those_of_published_models(parameters: float, published: int) -> None:
    assert kv_bytes_per_token(parameters) == pytest.approx(published, rel=0.12)


def test_kv_capacity_is_what_the_weights_leave() -> None:
    hardware = Hardware("H100-80GB", 4)
    assert kv_tokens(hardware, 32e9) == int((320e9 - 64e9) * 0.9 / kv_bytes_per_token(32e9))
    assert kv_tokens(Hardware("B200-180GB", 4), 32e9) > 2 * kv_tokens(hardware, 32e9)
    assert kv_tokens(Hardware("L4-24GB", 1), 32e9) == 0


def test_a_pool_without_settings_has_the_catalogues_rate_and_capacity() -> None:
    m = model(count=1)
    size = capacity(m, m.versions[0].pools[0])
    assert size.rate == prior_rate(Hardware("H100-80GB", 4), 32e9)
    assert size.kv_blocks == kv_tokens(Hardware("H100-80GB", 4), 32e9) // TOKENS_PER_BLOCK


def test_speed_shortens_every_time_alike_and_kv_tokens_replaces_the_formula() -> None:
    plain, fast = model(count=1), model(count=1, speed=10, kv_tokens=6400, max_requests=5)
    slow_size = capacity(plain, plain.versions[0].pools[0])
    fast_size = capacity(fast, fast.versions[0].pools[0])
    assert fast_size.rate.prefill == pytest.approx(10 * slow_size.rate.prefill)
    assert fast_size.rate.tpot == pytest.approx(slow_size.rate.tpot / 10)
    assert fast_size.overhead == pytest.approx(slow_size.overhead / 10)
    assert (fast_size.kv_blocks, fast_size.max_requests) == (200, 5)


def test_other_blocks_hold_as_many_tokens_up_to_a_block() -> None:
    m = model(count=1, kv_tokens=6400)
    size = capacity(m, m.versions[0].pools[0])
    assert size.kv_tokens == 6400
    cut = size.in_blocks_of(512)
    assert (cut.kv_blocks, cut.tokens_per_block, cut.kv_tokens) == (12, 512, 6144)
    assert cut.rate == size.rate

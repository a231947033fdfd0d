"""From a pool's hardware to what one emulated engine of it can do: its rate and its KV cache."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from fleet.gpu import BYTES_PER_PARAMETER, CATALOGUE

if TYPE_CHECKING:
    from fleet.model import Hardware, Rate
    from fleet.settings import ModelSettings, PoolSettings

TOKENS_PER_BLOCK = 32
"""TensorRT-LLM's default `tokens_per_block`."""

PREFILL_OVERHEAD = 0.008
"""Seconds that every request costs before its prefill: tokenizing, scheduling, the first sampled token."""

# TensorRT-LLM's default `free_gpu_memory_fraction`: the share of the memory left by the weights that
# becomes KV cache; the rest is for activations.
_KV_SHARE = 0.9

# KV bytes of one token, all layers, BF16, grouped-query attention: 128 KiB in Llama-3-8B, 256 KiB in
# Qwen3-32B, 320 KiB in Llama-3-70B. A power of the model's size goes through these within 11 %.
_KV_BYTES_AT_8B = 131_072
_KV_EXPONENT = 0.42


@dataclass(frozen=True, slots=True)
class Capacity:
    """One emulated engine. `rate` and `overhead` include the pool's `speed`."""

    rate: Rate  # while nothing else runs there
    kv_blocks: int  # of `tokens_per_block`
    max_requests: int
    gpu_bytes: int  # memory of all its GPUs
    overhead: float  # seconds per request before its prefill
    tokens_per_block: int = TOKENS_PER_BLOCK

    @property
    def kv_tokens(self) -> int:
        """KV cache in tokens."""
        return self.kv_blocks * self.tokens_per_block

    def in_blocks_of(self, tokens: int) -> Capacity:
        """The same engine with its KV cache cut into blocks of so many tokens."""
        return replace(self, kv_blocks=self.kv_tokens // tokens, tokens_per_block=tokens)


def kv_bytes_per_token(parameters: float) -> float:
    """KV cache bytes that one token takes, over all GPUs of the engine, for a model of so many weights."""
    return float(_KV_BYTES_AT_8B * (parameters / 8e9) ** _KV_EXPONENT)


def kv_tokens(hardware: Hardware, parameters: float) -> int:
    """Tokens that fit beside the weights: (memory x GPUs - weights) x 0.9 / bytes per token; 0 if none."""
    memory = CATALOGUE[hardware.gpu].memory_gb * 1e9 * hardware.tensor_parallel
    left = (memory - BYTES_PER_PARAMETER * parameters) * _KV_SHARE
    return max(0, int(left / kv_bytes_per_token(parameters)))


def capacity(model: ModelSettings, pool: PoolSettings) -> Capacity:
    """What each endpoint of an emulated pool is; no KV blocks where the model does not fit its GPUs."""
    if pool.emulated is None:
        raise ValueError(f"pool {pool.name} is not emulated")
    tokens = pool.emulated.kv_tokens or kv_tokens(pool.hardware, model.parameters_billion * 1e9)
    return Capacity(
        rate=pool.prior(model.parameters_billion),
        kv_blocks=tokens // TOKENS_PER_BLOCK,
        max_requests=pool.emulated.max_requests,
        gpu_bytes=int(CATALOGUE[pool.gpu].memory_gb * 1e9 * pool.tensor_parallel),
        overhead=PREFILL_OVERHEAD / pool.emulated.speed,
    )

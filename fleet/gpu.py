"""The GPU catalogue: data-sheet figures per generation, and the rates they let us expect.

Priors only: the picker replaces them with what it measures. Prefill is bound by compute and decode by
memory bandwidth, so each scales by its own figure, times the GPUs, times tensor-parallel efficiency.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

from fleet.model import Hardware, Rate


@dataclass(frozen=True, slots=True)
class Gpu:
    """One generation: memory in GB, bandwidth in TB/s, dense BF16 throughput in TFLOP/s."""

    memory_gb: float
    hbm_tb_s: float
    bf16_tflops: float
    source: str


CATALOGUE: dict[str, Gpu] = {
    "A100-40GB": Gpu(40, 1.555, 312, "NVIDIA A100 data sheet, SXM 40 GB"),
    "A100-80GB": Gpu(80, 2.039, 312, "NVIDIA A100 data sheet, SXM 80 GB"),
    "H100-80GB": Gpu(80, 3.35, 989, "NVIDIA H100 data sheet, SXM"),
    "H200-141GB": Gpu(141, 4.8, 989, "NVIDIA H200 data sheet, SXM"),
    "B200-180GB": Gpu(180, 8.0, 2250, "NVIDIA DGX B200 data sheet"),
    "L40S-48GB": Gpu(48, 0.864, 362, "NVIDIA L40S data sheet"),
    "L4-24GB": Gpu(24, 0.300, 121, "NVIDIA L4 data sheet"),
}

# Share of ideal scaling kept at each tensor-parallel size: Llama-3-70B FP8 throughput at TP2, TP4 and TP8
# (6,000, 11,000 and 18,000 tokens/s) as practitioners report it.
_TP_EFFICIENCY = ((1, 1.0), (2, 0.85), (4, 0.78), (8, 0.64))

# Share of the data sheet that serving engines reach: dense prefill in BF16, and weight streaming in decode.
_PREFILL_UTILIZATION = 0.45
_DECODE_UTILIZATION = 0.6
BYTES_PER_PARAMETER = 2  # BF16
_FLOP_PER_PARAMETER_AND_TOKEN = 2  # one multiply and one add


def tensor_parallel_efficiency(size: int) -> float:
    """Share of linear scaling kept when a model is sharded over `size` GPUs, 0..1."""
    if size <= 1:
        return 1.0
    for (low, at_low), (high, at_high) in pairwise(_TP_EFFICIENCY):
        if size <= high:
            part = math.log2(size / low) / math.log2(high / low)
            return at_low + part * (at_high - at_low)
    return _TP_EFFICIENCY[-1][1]


def prior_rate(hardware: Hardware, parameters: float, speed: float = 1.0) -> Rate:
    """What `hardware` should do for a model of `parameters` weights, before anything was measured.

    `speed` makes emulated hardware faster. Raises KeyError for a GPU that the catalogue does not have
    (settings refuse it earlier).
    """
    gpu = CATALOGUE[hardware.gpu]
    scale = hardware.tensor_parallel * tensor_parallel_efficiency(hardware.tensor_parallel)
    flops = gpu.bf16_tflops * 1e12 * _PREFILL_UTILIZATION * scale
    bandwidth = gpu.hbm_tb_s * 1e12 * _DECODE_UTILIZATION * scale
    return Rate(
        prefill=speed * flops / (_FLOP_PER_PARAMETER_AND_TOKEN * parameters),
        tpot=BYTES_PER_PARAMETER * parameters / bandwidth / speed,
    )

"""An engine's gauges as Triton's Prometheus text: TensorRT-LLM's families and labels, exactly.

`used` counts blocks of running requests only (cached ones nobody runs on are free), `waiting` is active
less scheduled, and the timestamp is in microseconds, all as the C++ backend has it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sim.engine import Gauges

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

PREFILL_BUSY_COUNTER = "kvpilot_emulated_prefill_busy_seconds_total"
"""Seconds that the engine's prefill ran: the one family here that real engines do not have."""

# What Triton's ensembles call the engine; a client's model name appears nowhere in these metrics.
_MODEL = 'model="tensorrt_llm"'
_VERSION = 'version="1"'


def exposition(gauges: Gauges, at: float, gpu_bytes: int) -> str:
    """The text of /metrics. `at`: Unix time in seconds; `gpu_bytes`: memory that the engine holds."""
    families = "".join(_family(*row) for row in _table(gauges, at, gpu_bytes))
    finished = _counter(
        "nv_inference_request_success", "Number of successful inference requests", gauges.finished
    )
    busy = _counter(
        PREFILL_BUSY_COUNTER, "Seconds that the emulated engine spent on prefill", gauges.prefill_busy_seconds
    )
    return families + finished + busy


def _table(g: Gauges, at: float, gpu_bytes: int) -> list[tuple[str, str, dict[str, float]]]:
    """TensorRT-LLM's gauges: family, the label that tells its samples apart, and their values."""
    return [
        ("nv_trt_llm_request_metrics", "request_type", _requests(g)),
        ("nv_trt_llm_runtime_memory_metrics", "memory_type", {"cpu": 0, "gpu": gpu_bytes, "pinned": 0}),
        ("nv_trt_llm_kv_cache_block_metrics", "kv_cache_block_type", _blocks(g)),
        ("nv_trt_llm_inflight_batcher_metrics", "inflight_batcher_specific_metric", _batcher(g)),
        (
            "nv_trt_llm_general_metrics",
            "general_type",
            {"timestamp": int(at * 1e6), "iteration_counter": g.iterations},
        ),
    ]


def _requests(g: Gauges) -> dict[str, float]:
    return {
        "active": g.active,
        "max": g.max_requests,
        "scheduled": g.scheduled,
        "context": g.context,
        "waiting": g.waiting,
    }


def _blocks(g: Gauges) -> dict[str, float]:
    return {
        "max": g.blocks_max,
        "free": g.blocks_max - g.blocks_used,
        "used": g.blocks_used,
        "tokens_per": g.tokens_per_block,
        "reused": g.blocks_reused,
        "fraction": g.blocks_used / g.blocks_max if g.blocks_max else 0.0,
    }


def _batcher(g: Gauges) -> dict[str, float]:
    return {
        "total_context_tokens": g.context_tokens,
        "generation_requests": g.scheduled - g.context,
        "micro_batch_id": 0,
        "paused_requests": 0,
    }


def _family(name: str, label: str, values: dict[str, float]) -> str:
    text = name.removeprefix("nv_trt_llm_").replace("_", " ")
    lines = [f"# HELP {name} TRT LLM {text}", f"# TYPE {name} gauge"]
    for kind, value in values.items():
        labels = ",".join(sorted((_MODEL, _VERSION, f'{label}="{kind}"')))
        lines.append(f"{name}{{{labels}}} {value}")
    return "\n".join(lines) + "\n"


def _counter(name: str, text: str, value: float) -> str:
    return f"# HELP {name} {text}\n# TYPE {name} counter\n{name}{{{_MODEL},{_VERSION}}} {value}\n"

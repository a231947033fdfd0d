from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from sim.engine import Gauges
from sim.exposition import exposition

GAUGES = Gauges(
    active=5,
    scheduled=3,
    context=1,
    waiting=2,
    max_requests=64,
    context_tokens=700,
    blocks_max=200,
    blocks_used=50,
    tokens_per_block=32,
    blocks_reused=9,
    iterations=1234,
    finished=17,
    prefill_busy_seconds=2.5,
)


def samples() -> dict[tuple[str, str], float]:
    """Value by family and its own label; every sample carries Triton's model and version."""
    found: dict[tuple[str, str], float] = {}
    for family in text_string_to_metric_families(exposition(GAUGES, at=1_700_000_000.25, gpu_bytes=8)):
        assert family.documentation
        for sample in family.samples:
            labels = dict(sample.labels)
            assert labels.pop("model") == "tensorrt_llm"
            assert labels.pop("version") == "1"
            found[sample.name, ",".join(f"{k}={v}" for k, v in labels.items())] = sample.value
    return found


def test_the_success_counter_has_tritons_bare_name() -> None:
    text = exposition(GAUGES, at=1.0, gpu_bytes=8)
    assert 'nv_inference_request_success{model="tensorrt_llm",version="1"} 17\n' in text


def test_has_exactly_tensorrt_llms_families_labels_and_values() -> None:
    assert samples() == {
        ("nv_trt_llm_request_metrics", "request_type=active"): 5,
        ("nv_trt_llm_request_metrics", "request_type=max"): 64,
        ("nv_trt_llm_request_metrics", "request_type=scheduled"): 3,
        ("nv_trt_llm_request_metrics", "request_type=context"): 1,
        ("nv_trt_llm_request_metrics", "request_type=waiting"): 2,
        ("nv_trt_llm_runtime_memory_metrics", "memory_type=cpu"): 0,
        ("nv_trt_llm_runtime_memory_metrics", "memory_type=gpu"): 8,
        ("nv_trt_llm_runtime_memory_metrics", "memory_type=pinned"): 0,
        ("nv_trt_llm_kv_cache_block_metrics", "kv_cache_block_type=max"): 200,
        ("nv_trt_llm_kv_cache_block_metrics", "kv_cache_block_type=free"): 150,
        ("nv_trt_llm_kv_cache_block_metrics", "kv_cache_block_type=used"): 50,
        ("nv_trt_llm_kv_cache_block_metrics", "kv_cache_block_type=tokens_per"): 32,
        ("nv_trt_llm_kv_cache_block_metrics", "kv_cache_block_type=reused"): 9,
        ("nv_trt_llm_kv_cache_block_metrics", "kv_cache_block_type=fraction"): 0.25,
        (
            "nv_trt_llm_inflight_batcher_metrics",
            "inflight_batcher_specific_metric=total_context_tokens",
        ): 700,
        ("nv_trt_llm_inflight_batcher_metrics", "inflight_batcher_specific_metric=generation_requests"): 2,
        ("nv_trt_llm_inflight_batcher_metrics", "inflight_batcher_specific_metric=micro_batch_id"): 0,
        ("nv_trt_llm_inflight_batcher_metrics", "inflight_batcher_specific_metric=paused_requests"): 0,
        ("nv_trt_llm_general_metrics", "general_type=timestamp"): 1_700_000_000_250_000,
        ("nv_trt_llm_general_metrics", "general_type=iteration_counter"): 1234,
        ("nv_inference_request_success_total", ""): 17,  # the parser's suffix; the text has none
        ("kvpilot_emulated_prefill_busy_seconds_total", ""): 2.5,
    }

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.errors import ScrapeError
from fleet.model import Load
from xds_server.collect.engines import read_load

NOW = 1_000.0

TRITON = """\
# HELP nv_trt_llm_request_metrics TRT LLM request metrics
# TYPE nv_trt_llm_request_metrics gauge
nv_inference_request_success{model="tensorrt_llm",version="1"} 12
nv_trt_llm_request_metrics{model="tensorrt_llm",request_type="waiting",version="1"} 3
nv_trt_llm_request_metrics{model="tensorrt_llm",request_type="scheduled",version="1"} 5
nv_trt_llm_request_metrics{model="tensorrt_llm",request_type="active",version="1"} 8
nv_trt_llm_request_metrics{model="tensorrt_llm",request_type="max",version="1"} 512
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="fraction",model="tensorrt_llm",version="1"} 0.4875
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="tokens_per",model="tensorrt_llm",version="1"} 64
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="used",model="tensorrt_llm",version="1"} 100
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="max",model="tensorrt_llm",version="1"} 6239
"""

TRTLLM = """\
trtllm_kv_cache_used_blocks{model_name="m",engine_type="trtllm"} 3.0
trtllm_kv_cache_max_blocks{model_name="m",engine_type="trtllm"} 1.01256e+05
trtllm_kv_cache_tokens_per_block{model_name="m",engine_type="trtllm"} 32.0
trtllm_num_requests_running{model_name="m",engine_type="trtllm"} 2.0 1700000000000
trtllm_num_requests_waiting{model_name="m",engine_type="trtllm"} 1.0
trtllm_max_num_active_requests{model_name="m",engine_type="trtllm"} 2048.0
"""


def test_reads_tritons_tensorrt_llm_families() -> None:
    expected = Load(NOW, True, "", 100, 6239, 64, running=5, waiting=3, max_requests=512)
    assert read_load("triton", "m", TRITON, NOW) == expected


@pytest.mark.parametrize("text", [TRTLLM, TRTLLM.replace("trtllm_", "")])
def test_reads_trtllm_serve_with_and_without_its_prefix(text: str) -> None:
    expected = Load(NOW, True, "", 3, 101_256, 32, running=2, waiting=1, max_requests=2048)
    assert read_load("trtllm-serve", "m", text, NOW) == expected


def test_the_prefixed_name_wins_over_the_bare_one() -> None:
    text = "num_requests_running 90\ntrtllm_num_requests_running 4\n"
    assert read_load("trtllm-serve", "m", text, NOW).running == 4


def test_instances_add_up_but_their_block_size_does_not() -> None:
    second = TRITON.replace('version="1"', 'version="2"')
    load = read_load("triton", "m", TRITON + second, NOW)
    assert (load.kv_blocks_used, load.kv_blocks_max, load.running) == (200, 12_478, 10)
    assert load.tokens_per_block == 64


def test_the_endpoints_own_model_wins_whatever_the_order() -> None:
    other = TRITON.replace("tensorrt_llm", "other").replace("} 100", "} 900")
    mine = TRITON.replace('"tensorrt_llm"', '"m"')
    for text in (other + mine, mine + other):
        assert read_load("triton", "m", text, NOW).kv_blocks_used == 100


def test_missing_series_stay_zero() -> None:
    assert read_load("triton", "m", "nv_inference_count 1\n", NOW) == Load(NOW)
    assert read_load("triton", "m", "", NOW) == Load(NOW)


def test_label_values_may_hold_anything() -> None:
    text = 'nv_trt_llm_request_metrics{model="a,b=\\"}{",request_type="waiting"} 7\n'
    assert read_load("triton", "m", text, NOW).waiting == 7


@pytest.mark.parametrize(
    "text",
    [
        "<html><body>Not Found</body></html>",
        '{"error": "no such page"}',
        'nv_trt_llm_request_metrics{request_type="waiting"} many\n',
        'nv_trt_llm_request_metrics{request_type="waiting"} NaN\n',
        'nv_trt_llm_request_metrics{request_type="waiting"} -1\n',
        'nv_trt_llm_request_metrics{request_type="waiting"} 1e300\n',
        "x 1\nnv_trt_llm_request_metrics\n",
    ],
)
def test_garbage_is_a_failed_scrape(text: str) -> None:
    with pytest.raises(ScrapeError):
        read_load("triton", "m", text, NOW)


@given(st.text())
def test_no_text_raises_anything_else(text: str) -> None:
    for engine in ("triton", "trtllm-serve"):
        try:
            read_load(engine, "m", text, NOW)
        except ScrapeError:
            continue

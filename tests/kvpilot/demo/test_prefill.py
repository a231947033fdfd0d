from __future__ import annotations

from fleet.model import Endpoint, Hardware
from kvpilot.demo.prefill import PrefillReading, busy_seconds, read_prefill
from sim.exposition import PREFILL_BUSY_COUNTER as COUNTER
from tests.kvpilot.demo.upstream import Upstream, serving


def _endpoint(address: str, url: str) -> Endpoint:
    return Endpoint(address, "m", "v", "p", Hardware("L4-24GB"), metrics_url=f"{url}/metrics")


def test_the_counter_is_found_among_others_with_and_without_labels() -> None:
    assert busy_seconds(f'# TYPE {COUNTER} counter\n{COUNTER}_else 1\n{COUNTER}{{model="m"}} 2.5\n') == 2.5
    assert busy_seconds(f"{COUNTER} 7\n") == 7.0


def test_a_real_engine_has_no_such_counter() -> None:
    assert busy_seconds("nv_inference_count 5\n") is None
    assert busy_seconds(f"{COUNTER} nonsense\n") is None


def test_the_share_is_of_the_time_between_two_readings() -> None:
    before = PrefillReading(10.0, {"a": 1.0, "gone": 1.0})
    after = PrefillReading(14.0, {"a": 2.0, "new": 3.0})
    assert before.share_until(after) == {"a": 0.25}


async def test_endpoints_that_do_not_answer_are_left_out(unused_tcp_port: int) -> None:
    async with serving(Upstream(metrics=f"{COUNTER} 3\n")) as upstream:
        away = f"http://127.0.0.1:{unused_tcp_port}"
        reading = await read_prefill([_endpoint("a", upstream.url), _endpoint("b", away)])
    assert reading.busy_seconds == {"a": 3.0}

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from envoy.data.accesslog.v3 import accesslog_pb2 as pb
from envoy.service.accesslog.v3 import als_pb2
from hypothesis import given
from hypothesis import strategies as st

from ext_proc import completions
from ext_proc.picker import Picker
from ext_proc.request import RoutingRequest
from fleet.model import Endpoint, Hardware, Rate
from fleet.settings import PickerSettings
from tests.ext_proc.messages import ADDRESS, entry

if TYPE_CHECKING:
    from ext_proc.decision import Decision


def read(*entries: pb.HTTPAccessLogEntry) -> list[completions.LogEntry]:
    message = als_pb2.StreamAccessLogsMessage()
    message.http_logs.log_entry.extend(entries)
    return list(completions.read(message.SerializeToString()))


def test_reads_an_answer_that_is_over_with_its_usage() -> None:
    (found,) = read(
        entry(first_body_ms="350", sent_ms=50, completion_tokens=12, prompt_tokens=100, cached_tokens=64)
    )
    assert found.first_token == pytest.approx(0.3)
    assert found == completions.LogEntry(
        pick_id="id-1",
        over=True,
        first_token=found.first_token,
        attempts=1,
        endpoint=ADDRESS,
        ok=True,
        output_tokens=12,
        prompt_tokens=100,
        cached_tokens=64,
    )


def test_anthropics_prompt_tokens_are_counted_with_those_of_its_cache() -> None:
    (found,) = read(
        entry(completion_tokens=9, prompt_tokens=20, cache_read_tokens=64, cache_written_tokens=16)
    )
    assert (found.output_tokens, found.prompt_tokens, found.cached_tokens) == (9, 100, 64)
    (found,) = read(entry(cache_read_tokens=64))
    assert (found.prompt_tokens, found.cached_tokens) == (None, None)


def test_reads_a_first_token_from_a_stream_that_still_runs() -> None:
    (found,) = read(entry(over=False, first_body_ms="20"))
    assert (found.over, found.first_token) == (False, 0.02)


@pytest.mark.parametrize("tag", ["-", "", "abc"])
def test_a_first_token_that_has_not_come_is_none(tag: str) -> None:
    (found,) = read(entry(over=False, first_body_ms=tag))
    assert found.first_token is None


@pytest.mark.parametrize(
    ("code", "failed"), [(200, False), (400, False), (429, False), (500, True), (503, True)]
)
def test_tells_failures_of_the_endpoint_from_those_of_the_request(code: int, failed: bool) -> None:
    (found,) = read(entry(code=code))
    assert found.failed is failed


def test_a_broken_answer_is_a_failure_and_a_client_that_left_is_none() -> None:
    broken, left = entry(), entry()
    broken.common_properties.response_flags.upstream_connection_termination = True
    left.common_properties.response_flags.downstream_connection_termination = True
    assert [(e.failed, e.cut) for e in read(broken, left)] == [(True, False), (False, True)]


def test_measures_decoding_from_the_first_body_byte_to_the_last_whatever_the_log_is_late() -> None:
    made = entry(first_body_ms="350")
    made.common_properties.time_to_last_upstream_rx_byte.FromMilliseconds(2350)
    assert read(made)[0].decode_seconds == pytest.approx(2.0)
    assert read(entry(first_body_ms="350"))[0].decode_seconds is None


def test_passes_over_entries_that_name_no_pick() -> None:
    stranger = pb.HTTPAccessLogEntry()
    assert [e.pick_id for e in read(stranger, entry(""), entry("id-2"))] == ["id-2"]


def test_writes_ipv6_endpoints_as_envoy_dials_them() -> None:
    made = entry()
    made.common_properties.upstream_remote_address.socket_address.address = "fd00::1"
    assert read(made)[0].endpoint == "[fd00::1]:8000"


@given(data=st.binary(max_size=80))
def test_other_bytes_give_nothing_and_never_raise(data: bytes) -> None:
    list(completions.read(data))


def test_absurd_token_counts_are_left_out() -> None:
    (found,) = read(entry(completion_tokens=float("nan"), prompt_tokens=-5, cached_tokens=1e300))
    assert (found.output_tokens, found.prompt_tokens, found.cached_tokens) == (None, None, None)


def make_pick(picker: Picker) -> Decision:
    decision = picker.pick(RoutingRequest((ADDRESS,), 10_000, range(150), 64), now=100.0)
    assert decision is not None
    return decision


def test_the_picker_learns_from_the_log_and_forgets_the_request() -> None:
    picker = Picker(
        PickerSettings(), [Endpoint(ADDRESS, "m", "v", "p", Hardware("H100-80GB"), prior=Rate(20_000, 0.01))]
    )
    pick_id = make_pick(picker).id
    (early,) = read(entry(pick_id, over=False, first_body_ms="1008"))
    (late,) = read(entry(pick_id, first_body_ms="1008"))
    assert completions.apply(early, picker, 101.5)
    assert picker.in_flight == 1
    assert completions.apply(late, picker, 102.0)
    assert picker.in_flight == 0
    assert not completions.apply(late, picker, 102.0)
    picker.expire(110.0)
    learned = picker.rates(at=1.0)[ADDRESS].prefill
    assert learned == pytest.approx((0.98 * 3000 + 10_000) / (0.98 * 0.15 + 1.0), rel=0.01)


def test_a_retried_request_teaches_no_rate() -> None:
    picker = Picker(PickerSettings(), [Endpoint(ADDRESS, "m", "v", "p", Hardware("H100-80GB"))])
    (found,) = read(entry(make_pick(picker).id, first_body_ms="900", attempts=2))
    assert completions.apply(found, picker, 102.0)
    picker.expire(110.0)
    assert picker.rates(at=1.0) == {}


@pytest.mark.parametrize("code", [400, 404, 429, 500, 503])
def test_error_pages_that_come_at_once_never_make_an_endpoint_look_fast(code: int) -> None:
    picker = Picker(PickerSettings(), [Endpoint(ADDRESS, "m", "v", "p", Hardware("H100-80GB"))])
    for n in range(50):
        decision = picker.pick(RoutingRequest((ADDRESS,), 10_000, range(n * 200, n * 200 + 150), 64), n + 0.0)
        assert decision is not None
        (found,) = read(entry(decision.id, code=code, first_body_ms="1"))
        assert completions.apply(found, picker, n + 0.1)
        picker.expire(n + 0.95)
    assert picker.in_flight == 0
    assert picker.rates(at=1.0) == {}
    assert picker.traffic(at=1.0)[ADDRESS].ttft_p50 is None


def test_a_first_token_is_never_later_than_the_news_of_it() -> None:
    picker = Picker(PickerSettings(), [Endpoint(ADDRESS, "m", "v", "p", Hardware("H100-80GB"))])
    (found,) = read(entry(make_pick(picker).id, over=False, first_body_ms="9000000"))
    completions.apply(found, picker, 102.0)
    assert picker.traffic(at=1.0)[ADDRESS].ttft_p50 == pytest.approx(2.0)

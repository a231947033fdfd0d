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


@pytest.mark.parametrize(
    ("status", "ok", "failed"),
    [
        ("-", True, False),  # no gRPC
        ("0", True, False),
        ("1", False, False),  # cancelled
        ("3", False, False),  # invalid argument: the request's own fault
        ("8", False, False),  # resource exhausted
        ("13", False, True),
        ("14", False, True),
        ("2", False, True),
    ],
)
def test_a_grpc_call_ends_with_a_status_of_its_own(status: str, ok: bool, failed: bool) -> None:
    made = entry()
    made.common_properties.custom_tags["grpc_status"] = status
    (found,) = read(made)
    assert (found.ok, found.failed) == (ok, failed)


def test_the_status_that_envoy_makes_up_before_trailers_have_come_says_nothing() -> None:
    running, left = entry(over=False), entry()
    left.common_properties.response_flags.downstream_remote_reset = True
    for made in (running, left):
        made.common_properties.custom_tags["grpc_status"] = "2"
    assert [(e.ok, e.failed) for e in read(running, left)] == [(True, False), (True, False)]


def test_silence_is_the_endpoints_failure_only_where_it_should_speak() -> None:
    answer, stream = entry(), entry()
    stream.request.path = "/inference.GRPCInferenceService/ModelStreamInfer"
    for made in (answer, stream):
        made.common_properties.response_flags.stream_idle_timeout = True
    assert [e.failed for e in read(answer, stream)] == [True, False]
    stream.common_properties.response_flags.upstream_remote_reset = True
    assert read(stream)[0].failed


def test_news_of_a_grpc_address_is_news_of_its_endpoint() -> None:
    first, second = (
        Endpoint(f"10.0.0.{n}:80", "m", "v", "p", Hardware("H100-80GB"), grpc_address=f"10.0.0.{n}:81")
        for n in (1, 2)
    )
    picker = Picker(PickerSettings(), [first, second])
    asked = RoutingRequest((first.address, second.address), 1000, range(15), 64, grpc=True)
    decision = picker.pick(asked, 0.0)
    assert decision is not None
    named, other = decision.endpoints
    assert decision.destinations == (f"{named[:-1]}1", f"{other[:-1]}1")
    made = entry(decision.id, attempts=2)
    address = made.common_properties.upstream_remote_address.socket_address
    address.address, address.port_value = other[:-3], 81
    assert completions.apply(read(made)[0], picker, 1.0)
    again = picker.pick(asked, 2.0)
    assert again is not None
    assert again.endpoints[0] == other  # its blocks are there now, not where it was sent first
    assert again.matched_tokens > 0

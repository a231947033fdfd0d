from __future__ import annotations

import re
from typing import Any

from envoy.config.core.v3 import config_source_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.extensions.access_loggers.grpc.v3 import als_pb2
from envoy.extensions.filters.http.ext_proc.v3 import ext_proc_pb2, processing_mode_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2

from fleet.names import (
    CLUSTER_ATTRIBUTE,
    FIRST_BODY_FORMAT,
    FIRST_BODY_TAG,
    GRPC_STATUS_FORMAT,
    GRPC_STATUS_TAG,
    HOLD_SLACK_SECONDS,
    LB_NAMESPACE,
    PICK_ID_KEY,
    PICK_NAMESPACE,
    PICKER_CLUSTER,
    SAN_ATTRIBUTE,
)
from fleet.settings import PickerSettings
from tests.support import one_pool_settings
from xds_server.resources.clusters import LOG_CLUSTER
from xds_server.resources.listener import http_listener
from xds_server.resources.routes import ROUTE_CONFIGURATION
from xds_server.snapshot import CLUSTER, ROUTE

Mode = processing_mode_pb2.ProcessingMode


def unpacked(any_message: Any, kind: type[Any]) -> Any:
    message = kind()
    assert any_message.Unpack(message), f"{any_message.type_url} is no {kind.DESCRIPTOR.full_name}"
    return message


def listener(**more: Any) -> Any:
    return listener_pb2.Listener.FromString(http_listener(one_pool_settings(**more)).body)


def manager(**envoy: Any) -> Any:
    config = listener(envoy=envoy).filter_chains[0].filters[0].typed_config
    return unpacked(config, http_connection_manager_pb2.HttpConnectionManager)


def picker(**envoy: Any) -> Any:
    return unpacked(manager(**envoy).http_filters[0].typed_config, ext_proc_pb2.ExternalProcessor)


def access_log() -> tuple[Any, Any]:
    """When an entry is written, and what it says to whom."""
    (log,) = manager().access_log
    config = unpacked(log.typed_config, als_pb2.HttpGrpcAccessLogConfig).common_config
    return log.filter.metadata_filter, config


def seconds(duration: Any) -> float:
    return float(duration.ToTimedelta().total_seconds())


def test_listens_where_the_settings_say_and_keeps_so_much_for_retries() -> None:
    made = listener(listen="[::1]:8081", envoy={"buffer_bytes": 1 << 20})
    assert made.address.socket_address.address == "::1"
    assert made.address.socket_address.port_value == 8081
    assert made.per_connection_buffer_limit_bytes.value == 1 << 20


def test_routes_come_over_the_same_stream_and_are_waited_for_with_the_pickers_clusters() -> None:
    rds = manager().rds
    assert rds.route_config_name == ROUTE_CONFIGURATION
    assert rds.config_source.WhichOneof("config_source_specifier") == "ads"
    assert rds.config_source.resource_api_version == config_source_pb2.V3
    needs = http_listener(one_pool_settings()).needs
    assert needs == {(ROUTE, ROUTE_CONFIGURATION), (CLUSTER, PICKER_CLUSTER), (CLUSTER, LOG_CLUSTER)}


def test_asks_the_picker_first_and_routes_last() -> None:
    names = [f.name.removeprefix("envoy.filters.http.") for f in manager().http_filters]
    assert names == ["ext_proc", "sse_to_metadata", "json_to_metadata", "router"]


def test_a_picker_that_is_away_or_late_costs_no_request() -> None:
    asked = picker(message_timeout_seconds=0.125)
    assert asked.failure_mode_allow
    assert seconds(asked.message_timeout) == 0.125
    assert asked.grpc_service.envoy_grpc.cluster_name == PICKER_CLUSTER


def test_a_picker_may_ask_for_the_time_that_it_holds_a_request() -> None:
    assert seconds(picker().max_message_timeout) == PickerSettings().hold_seconds + HOLD_SLACK_SECONDS


def test_the_picker_gets_headers_and_as_much_body_as_fits_and_no_part_of_the_answer() -> None:
    mode = picker().processing_mode
    assert (mode.request_header_mode, mode.request_body_mode) == (Mode.SEND, Mode.BUFFERED_PARTIAL)
    assert (mode.response_header_mode, mode.response_body_mode) == (Mode.SKIP, Mode.NONE)
    assert (mode.request_trailer_mode, mode.response_trailer_mode) == (Mode.SKIP, Mode.SKIP)


def test_the_picker_may_name_endpoints_and_its_pick_but_neither_edit_nor_reroute() -> None:
    asked = picker()
    assert list(asked.request_attributes) == [CLUSTER_ATTRIBUTE]
    assert list(asked.metadata_options.receiving_namespaces.untyped) == [LB_NAMESPACE, PICK_NAMESPACE]
    assert asked.mutation_rules.disallow_all.value
    allowed = asked.mutation_rules.allow_expression.regex
    for header in (":path", "host", "authorization", "x-gateway-destination-endpoint", "x-request-id"):
        assert not re.fullmatch(allowed, header)
    for header in ("retry-after", "content-type", "x-kvpilot-reason", "x-llm-d-request-dropped-reason"):
        assert re.fullmatch(allowed, header)
    assert asked.route_cache_action == ext_proc_pb2.ExternalProcessor.RETAIN


def test_the_picker_may_do_without_the_body() -> None:
    assert picker().allow_mode_override


def trusting(*tenant: str) -> Any:
    config = listener(trust={"tenant": list(tenant)}).filter_chains[0].filters[0].typed_config
    made = unpacked(config, http_connection_manager_pb2.HttpConnectionManager)
    return unpacked(made.http_filters[0].typed_config, ext_proc_pb2.ExternalProcessor)


def test_the_picker_hears_of_claims_and_certificates_only_where_they_are_trusted() -> None:
    for sources, forwarded, attributes in (
        ((), [], [CLUSTER_ATTRIBUTE]),
        (("header:x-tenant",), [], [CLUSTER_ATTRIBUTE]),
        (("claim:payload.org",), ["envoy.filters.http.jwt_authn"], [CLUSTER_ATTRIBUTE]),
        (("certificate",), [], [CLUSTER_ATTRIBUTE, SAN_ATTRIBUTE]),
    ):
        asked = trusting(*sources)
        assert list(asked.metadata_options.forwarding_namespaces.untyped) == forwarded
        assert list(asked.request_attributes) == attributes


def test_only_requests_that_carry_a_pick_id_are_logged() -> None:
    condition, _ = access_log()
    assert condition.matcher.filter == PICK_NAMESPACE
    assert [step.key for step in condition.matcher.path] == [PICK_ID_KEY]
    assert condition.matcher.value.present_match
    assert condition.HasField("match_if_key_not_found")  # absent means true
    assert not condition.match_if_key_not_found.value


def test_log_entries_go_to_the_picker_soon_and_tell_of_the_first_body_byte() -> None:
    _, config = access_log()
    assert config.grpc_service.envoy_grpc.cluster_name == LOG_CLUSTER
    assert 0 < seconds(config.buffer_flush_interval) <= 0.1
    assert {tag.tag: tag.value for tag in config.custom_tags} == {
        FIRST_BODY_TAG: FIRST_BODY_FORMAT,
        GRPC_STATUS_TAG: GRPC_STATUS_FORMAT,
    }


def test_entries_come_while_an_answer_still_streams() -> None:
    made = manager(log_interval_seconds=0.25)
    assert seconds(made.access_log_options.access_log_flush_interval) == 0.25


def test_a_silent_answer_is_cut_when_the_settings_say_or_never() -> None:
    for limit in (0, 30):
        made = manager(stream_idle_timeout_seconds=limit)
        assert made.HasField("stream_idle_timeout")  # absent means Envoy's five minutes
        assert seconds(made.stream_idle_timeout) == limit

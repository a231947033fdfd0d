from __future__ import annotations

import re
from typing import Any

import pytest
from envoy.extensions.common.matching.v3 import extension_matcher_pb2
from envoy.extensions.filters.common.matcher.action.v3 import skip_action_pb2
from envoy.extensions.filters.http.json_to_metadata.v3 import json_to_metadata_pb2
from envoy.type.matcher.v3 import http_inputs_pb2

from fleet.names import (
    CACHE_READ_KEY,
    CACHED_TOKENS_KEY,
    COMPLETION_TOKENS_KEY,
    PROMPT_TOKENS_KEY,
    USAGE_NAMESPACE,
)
from xds_server.resources.messages import json_parser, sse_to_metadata
from xds_server.resources.usage import streamed_usage, whole_usage

ANSWERS = [
    (
        {
            "usage": {
                "completion_tokens": 1,
                "prompt_tokens": 2,
                "prompt_tokens_details": {"cached_tokens": 3},
            }
        },
        "",
    ),
    ({"usage": {"output_tokens": 1, "input_tokens": 2, "input_tokens_details": {"cached_tokens": 3}}}, ""),
    ({"usage": {"output_tokens": 1, "input_tokens": 2, "cache_read_input_tokens": 3}}, "messages"),
]
TOLD = {COMPLETION_TOKENS_KEY: 1, PROMPT_TOKENS_KEY: 2, CACHED_TOKENS_KEY: 3}
TOLD_BY_ANTHROPIC = {COMPLETION_TOKENS_KEY: 1, PROMPT_TOKENS_KEY: 2, CACHE_READ_KEY: 3}


def whole() -> Any:
    """The conditional filter, as Envoy reads it."""
    return extension_matcher_pb2.ExtensionWithMatcher.FromString(bytes(whole_usage()))


def whole_rules() -> Any:
    filter_ = json_to_metadata_pb2.JsonToMetadata()
    assert whole().extension_config.typed_config.Unpack(filter_)
    return filter_.response_rules


def streamed_rules() -> list[Any]:
    """Rules of the stream filter. xds-protos lacks its messages; the rules inside are those of the other."""
    filter_ = sse_to_metadata.SseToMetadata.parse(bytes(streamed_usage()))
    assert filter_.response_rules is not None
    assert filter_.response_rules.content_parser is not None
    assert filter_.response_rules.content_parser.typed_config is not None
    parser = filter_.response_rules.content_parser.typed_config.unpack()
    assert isinstance(parser, json_parser.JsonContentParser)
    rule = json_to_metadata_pb2.JsonToMetadata.Rule
    return [rule.FromString(bytes(each.rule)) for each in parser.rules if each.rule is not None]


def lifted(rules: Any, answer: Any) -> dict[str, Any]:
    """What Envoy's filters take out of one JSON answer or event."""
    found = {}
    for rule in rules:
        value = answer
        for selector in rule.selectors:
            value = value.get(selector.key) if isinstance(value, dict) else None
        if value is not None:
            found[rule.on_present.key] = value
    return found


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize(("answer", "protocol"), ANSWERS)
def test_lifts_the_token_counts_of_every_protocols_answers(
    answer: Any, protocol: str, streamed: bool
) -> None:
    rules = streamed_rules() if streamed else whole_rules().rules
    assert lifted(rules, answer) == (TOLD_BY_ANTHROPIC if protocol == "messages" else TOLD)


def test_lifts_them_out_of_the_events_that_hold_them_deeper() -> None:
    assert lifted(streamed_rules(), {"type": "response.completed", "response": ANSWERS[1][0]}) == TOLD
    begun = lifted(streamed_rules(), {"type": "message_start", "message": ANSWERS[2][0]})
    assert begun == {PROMPT_TOKENS_KEY: 2, CACHE_READ_KEY: 3}


@pytest.mark.parametrize("streamed", [True, False])
def test_they_are_numbers_in_our_namespace(streamed: bool) -> None:
    rules = streamed_rules() if streamed else whole_rules().rules
    assert {r.on_present.metadata_namespace for r in rules} == {USAGE_NAMESPACE}
    assert {r.on_present.type for r in rules} == {json_to_metadata_pb2.JsonToMetadata.NUMBER}
    assert not any(r.HasField("on_missing") or r.HasField("on_error") for r in rules)


@pytest.mark.parametrize(
    ("content_type", "read"),
    [
        ("application/json", True),
        ("application/json; charset=utf-8", True),
        ("application/jsonl", False),
        ("text/event-stream", False),
    ],
)
def test_reads_whole_answers_of_json_with_or_without_a_charset(content_type: str, read: bool) -> None:
    pattern = whole_rules().allow_content_types_regex.regex
    assert bool(re.fullmatch(pattern, content_type)) == read


def test_skips_whole_answers_that_do_not_promise_to_be_short() -> None:
    (case,) = whole().xds_matcher.matcher_list.matchers
    assert case.on_match.action.typed_config.Is(skip_action_pb2.SkipFilter.DESCRIPTOR)
    promise = case.predicate.not_matcher.single_predicate
    header = http_inputs_pb2.HttpResponseHeaderMatchInput()
    assert promise.input.typed_config.Unpack(header)
    assert header.header_name == "content-length"
    pattern = promise.value_match.safe_regex.regex
    short = [length for length in ("0", "999999", "1000000", "", "12a") if re.fullmatch(pattern, length)]
    assert short == ["0", "999999"]


def test_a_streamed_event_is_searched_up_to_a_limit() -> None:
    rules = sse_to_metadata.SseToMetadata.parse(bytes(streamed_usage())).response_rules
    assert rules is not None
    assert rules.max_event_size is not None
    assert 16 << 10 <= rules.max_event_size <= 1 << 20

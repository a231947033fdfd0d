"""Token usage, lifted out of answers by Envoy's own filters into metadata that the access log carries.

No filter here may cost an answer anything: what is not understood passes unread.
"""

from __future__ import annotations

from fleet.names import (
    CACHE_READ_KEY,
    CACHE_WRITTEN_KEY,
    CACHED_TOKENS_KEY,
    COMPLETION_TOKENS_KEY,
    PROMPT_TOKENS_KEY,
    USAGE_NAMESPACE,
)
from xds_server.resources.messages import (
    Any,
    extension,
    filter_action,
    json_parser,
    json_to_metadata,
    matcher,
    matching,
    sse_to_metadata,
    xds_core,
    xds_matcher,
)

LARGEST_EVENT = 64 << 10
"""Bytes of one server-sent event that are searched for usage; a larger one passes unread. Events with usage
are small, except where a protocol repeats the whole answer in its last event."""

_SHORT_LENGTH = "[0-9]{1,6}"
"""Answers of a declared length below 1 MB are searched as a whole. Envoy holds an answer back while it does,
and turns one larger than its buffer into a 500; one without a length may be a stream, which must flow."""

_JSON = r"application/json\s*(;.*)?"  # many servers add a charset, which the filter's own list would refuse

_USAGE = (
    # Chats, completions and embeddings.
    (COMPLETION_TOKENS_KEY, ("usage", "completion_tokens")),
    (PROMPT_TOKENS_KEY, ("usage", "prompt_tokens")),
    (CACHED_TOKENS_KEY, ("usage", "prompt_tokens_details", "cached_tokens")),
    # Responses, whole; and Anthropic's messages, whole or at the end of a stream.
    (COMPLETION_TOKENS_KEY, ("usage", "output_tokens")),
    (PROMPT_TOKENS_KEY, ("usage", "input_tokens")),
    (CACHED_TOKENS_KEY, ("usage", "input_tokens_details", "cached_tokens")),
    (CACHE_READ_KEY, ("usage", "cache_read_input_tokens")),
    (CACHE_WRITTEN_KEY, ("usage", "cache_creation_input_tokens")),
)
"""Metadata key and the path in an answer."""

_STREAMED_USAGE = (
    # The last event of a response.
    (COMPLETION_TOKENS_KEY, ("response", "usage", "output_tokens")),
    (PROMPT_TOKENS_KEY, ("response", "usage", "input_tokens")),
    (CACHED_TOKENS_KEY, ("response", "usage", "input_tokens_details", "cached_tokens")),
    # The first event of a message: the only one with the prompt's where the last tells the answer's alone.
    (PROMPT_TOKENS_KEY, ("message", "usage", "input_tokens")),
    (CACHE_READ_KEY, ("message", "usage", "cache_read_input_tokens")),
    (CACHE_WRITTEN_KEY, ("message", "usage", "cache_creation_input_tokens")),
)
"""The same for events that say it otherwise."""


def streamed_usage() -> sse_to_metadata.SseToMetadata:
    """Usage out of server-sent events; the last event that carries it wins."""
    parser = json_parser.JsonContentParser(
        rules=[
            json_parser.JsonContentParserRuleConfig(rule=rule) for rule in _rules(*_USAGE, *_STREAMED_USAGE)
        ]
    )
    return sse_to_metadata.SseToMetadata(
        response_rules=sse_to_metadata.SseToMetadataProcessingRules(
            content_parser=extension("envoy.content_parsers.json", parser), max_event_size=LARGEST_EVENT
        )
    )


def whole_usage() -> matching.ExtensionWithMatcher:
    """Usage out of short answers that are JSON as a whole; the filter is skipped for all others."""
    parser = json_to_metadata.JsonToMetadata(
        response_rules=json_to_metadata.JsonToMetadataMatchRules(
            rules=_rules(*_USAGE), allow_content_types_regex=matcher.RegexMatcher(regex=_JSON)
        )
    )
    return matching.ExtensionWithMatcher(
        extension_config=extension("envoy.filters.http.json_to_metadata", parser),
        xds_matcher=_unless_short(),
    )


def _rules(*paths: tuple[str, tuple[str, ...]]) -> list[json_to_metadata.JsonToMetadataRule]:
    return [
        json_to_metadata.JsonToMetadataRule(
            selectors=[json_to_metadata.JsonToMetadataSelector(key=step) for step in path],
            on_present=json_to_metadata.JsonToMetadataKeyValuePair(
                metadata_namespace=USAGE_NAMESPACE,
                key=key,
                type=json_to_metadata.JsonToMetadataValueType.NUMBER,
            ),
        )
        for key, path in paths
    ]


def _unless_short() -> xds_matcher.Matcher:
    """Skip the filter unless the answer's headers promise a short body."""
    length = matcher.HttpResponseHeaderMatchInput(header_name="content-length")
    short = xds_matcher.StringMatcher(
        safe_regex=xds_matcher.RegexMatcher(
            google_re2=xds_matcher.RegexMatcherGoogleRe2(), regex=_SHORT_LENGTH
        )
    )
    predicate = xds_matcher.MatcherMatcherListPredicate
    is_short = predicate(
        single_predicate=xds_matcher.MatcherMatcherListPredicateSinglePredicate(
            input=_extension("content-length", length), value_match=short
        )
    )
    skip = xds_matcher.MatcherOnMatch(action=_extension("skip", filter_action.SkipFilter()))
    return xds_matcher.Matcher(
        matcher_list=xds_matcher.MatcherMatcherList(
            matchers=[
                xds_matcher.MatcherMatcherListFieldMatcher(
                    predicate=predicate(not_matcher=is_short), on_match=skip
                )
            ]
        )
    )


def _extension(
    name: str, config: matcher.HttpResponseHeaderMatchInput | filter_action.SkipFilter
) -> xds_core.TypedExtensionConfig:
    return xds_core.TypedExtensionConfig(name=name, typed_config=Any.pack(config))

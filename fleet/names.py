"""Names that the xDS server writes into Envoy's configuration and the picker meets again at run time."""

from __future__ import annotations

PICKER_CLUSTER = "kvpilot-picker"
"""Envoy's cluster for the picker: ext_proc and access logs go there."""

XDS_CLUSTER = "kvpilot-xds"
"""The only cluster in the bootstrap: where Envoy finds its xDS server."""

ACCESS_LOG = "kvpilot"
"""Log name in the gRPC access log."""

CLUSTER_ATTRIBUTE = "xds.cluster_name"
"""The ext_proc attribute that names the weighted cluster which the route already chose."""

SAN_ATTRIBUTE = "connection.uri_san_peer_certificate"
"""The ext_proc attribute that names the client by its certificate, asked for only where that is trusted."""

LB_NAMESPACE = "envoy.lb"
DESTINATION_KEY = "x-gateway-destination-endpoint"
"""Dynamic metadata that Envoy's override_host obeys: `ip:port[,ip:port…]`, in order of preference."""

SERVED_KEY = "x-gateway-destination-endpoint-served"
"""Beside it, while the answer comes: who serves, where the cluster tells (`selected_host_key`)."""

SUBSET_NAMESPACE = "envoy.lb.subset_hint"
SUBSET_KEY = "x-gateway-destination-endpoint-subset"
"""Metadata in which a gateway names the endpoints that its endpoint picker may choose from."""

PICK_NAMESPACE = "kvpilot"
PICK_ID_KEY = "pick_id"
"""Dynamic metadata that ties an access-log entry to a pick. A string that nobody can guess."""

USAGE_NAMESPACE = "kvpilot.usage"
COMPLETION_TOKENS_KEY = "completion_tokens"
CACHED_TOKENS_KEY = "cached_tokens"
PROMPT_TOKENS_KEY = "prompt_tokens"
CACHE_READ_KEY = "cache_read_tokens"
CACHE_WRITTEN_KEY = "cache_written_tokens"
"""Dynamic metadata that Envoy's own filters lift out of answers that carry `usage`; numbers.

Where the last two are there, the answer is Anthropic's, whose prompt tokens leave them out.
"""

FIRST_BODY_TAG = "first_body_ms"
FIRST_BODY_FORMAT = "%COMMON_DURATION(DS_RX_BEG:US_RX_BODY_BEG:ms)%"
"""Access-log tag: milliseconds from the request's arrival to the first response *body* byte, or `-`.

Engines send their headers before prefill, so the first byte says nothing about the first token.
"""

GRPC_STATUS_TAG = "grpc_status"
GRPC_STATUS_FORMAT = "%GRPC_STATUS_NUMBER%"
"""Access-log tag: how a gRPC call ended, or `-`. Its HTTP status is 200 whatever happened."""

LOG_FLUSH_SECONDS = 0.05
"""How long an Envoy worker gathers access-log entries for one message: news is late by this at most."""

HOLD_SLACK_SECONDS = 1.0
"""Envoy waits so much longer than the picker may hold a request: its way, and one late dispatch."""

KSERVE_SERVICE = "inference.GRPCInferenceService"
"""KServe's v2 inference protocol over gRPC, as Triton serves it."""

KSERVE_INFER = f"/{KSERVE_SERVICE}/ModelInfer"
KSERVE_STREAM = f"/{KSERVE_SERVICE}/ModelStreamInfer"
"""Paths of the calls that make tokens: a request and its answer, and a stream of both that stays open."""

ENDPOINT_FAILURE_CODES = (502, 503, 504)
"""HTTP status codes that speak of the endpoint and not of the request: worth a retry elsewhere."""

RETRY_AFTER_HEADER = "retry-after"
REASON_HEADER = "x-kvpilot-reason"
DROPPED_HEADER = "x-llm-d-request-dropped-reason"
"""Response headers of a request that the picker refused: when to come again, and why in our words and in
those of the endpoint-picker protocol."""

REFUSAL_HEADERS = f"{RETRY_AFTER_HEADER}|content-type|x-kvpilot-.*|{DROPPED_HEADER}"
"""What Envoy lets the picker write, as a regular expression: nothing but an answer of its own."""

ENDPOINT_HEADER = "x-kvpilot-endpoint"
VERSION_HEADER = "x-kvpilot-version"
"""Response headers that name who served a request, only where `envoy.debug_headers` is on."""

"""Which API answers where, and what else an endpoint is asked."""

from __future__ import annotations

from sim.apis import anthropic, openai, responses, triton

_MODEL = "/v2/models/{model}"
_VERSION = f"{_MODEL}/versions/{{version}}"

APIS = {
    "/v1/chat/completions": openai.CHAT,
    "/v1/completions": openai.COMPLETIONS,
    "/v1/embeddings": openai.EMBEDDINGS,
    "/v1/responses": responses.RESPONSES,
    "/v1/messages": anthropic.MESSAGES,
    **{
        f"{base}/{verb}": api
        for base in (_MODEL, _VERSION)
        for verb, api in (
            ("generate", triton.GENERATE),
            ("generate_stream", triton.GENERATE_STREAM),
            ("infer", triton.INFER),
        )
    },
}
"""POST paths, as aiohttp writes variable parts."""

READY = ("/health", "/v2/health/ready", "/v2/health/live", f"{_MODEL}/ready", f"{_VERSION}/ready")
"""GET paths that an endpoint answers with an empty 200 while it serves."""

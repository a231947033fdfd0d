from __future__ import annotations

import pytest

from ext_proc import protocols
from tests.ext_proc.protocols.reading import PATHS


@pytest.mark.parametrize("name", sorted(protocols.NAMES))
def test_finds_every_protocol_behind_any_prefix_and_before_a_query(name: str) -> None:
    for path in (PATHS[name], f"/gateway/x{PATHS[name]}", f"{PATHS[name]}?timeout=5"):
        found = protocols.find("POST", path)
        assert found is not None
        assert found.name == name
        assert protocols.find("GET", path) is None


@pytest.mark.parametrize(
    "path",
    [
        "/v1/models",
        "/v1/chat/completions/extra",
        "/v1/messages/count_tokens",
        "/v1/responses/resp_1/cancel",
        "/v2/models/m/ready",
        "/v2/models/m/infer/x",
        "/v2/models//infer",
        "/v2/health/ready",
        "/",
        "",
        "*",
    ],
)
def test_leaves_all_other_paths_alone(path: str) -> None:
    assert protocols.find("POST", path) is None

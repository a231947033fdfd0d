"""A whole local mesh for the tests: real Envoy, real Redis, our servers, emulated engines sped up."""

from __future__ import annotations

import contextlib
import copy
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from fleet import settings_file
from kvpilot.mesh import LocalMesh
from tests.support import TRANSPORT, free_address

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

MODEL = "llama-3.1-8b"
SPEED = 20.0
KV_TOKENS = 4_000_000  # room for a prompt of 5 MB, which is 1.3 M tokens


def emulated(name: str, gpu: str, count: int) -> dict[str, Any]:
    return {
        "name": name,
        "gpu": gpu,
        "emulated": {"count": count, "speed": SPEED, "kv_tokens": KV_TOKENS},
    }


FLEET: dict[str, Any] = {
    "models": [
        {
            "name": MODEL,
            "parameters_billion": 8,
            "versions": [
                {
                    "name": "stable",
                    "weight": 90,
                    "pools": [emulated("h100", "H100-80GB", 2), emulated("a100", "A100-80GB", 2)],
                },
                {"name": "canary", "weight": 10, "pools": [emulated("l40s", "L40S-48GB", 2)]},
            ],
        }
    ]
}


@contextlib.asynccontextmanager
async def running_mesh(data: dict[str, Any] | None = None, **changes: Any) -> AsyncIterator[LocalMesh]:
    """A mesh that is ready, on free ports; `changes` are top-level settings."""
    chosen = copy.deepcopy(data or FLEET)
    chosen |= {"listen": free_address(), "picker_metrics": free_address()}
    # What nobody reports is over soon enough for a test.
    picker = {"silence_seconds": 4, "transport": TRANSPORT, **changes.pop("picker", {})}
    chosen |= {**changes, "picker": picker}
    said: list[str] = []
    made = LocalMesh(settings_file.parse(chosen, "test"), source="test", announce=said.append)
    async with made as mesh:
        await mesh.wait_ready()
        yield mesh


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def mesh() -> AsyncIterator[LocalMesh]:
    async with running_mesh() as made:
        yield made


@pytest.fixture(scope="session")
def long_text() -> str:
    """Words for a prompt of some 25,000 tokens: enough that computing it again shows."""
    return " ".join(f"word{n % 997}" for n in range(15_000))

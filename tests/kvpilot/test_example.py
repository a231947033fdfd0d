from __future__ import annotations

import re
import typing
from pathlib import Path

import pytest
from pydantic import BaseModel

from fleet.settings import Settings
from fleet.settings_file import load

EXAMPLE = Path(__file__).parents[2] / "manifests" / "kvpilot.example.yaml"
OWN_CHOICE = {"models", "redis_url"}


def _sections(model: type[BaseModel]) -> dict[str, type[BaseModel]]:
    found = {model.__name__: model}
    for info in model.model_fields.values():
        for inner in _types(info.annotation):
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                found |= _sections(inner)
    return found


def _types(annotation: object) -> list[object]:
    inner = typing.get_args(annotation)
    return [annotation, *(found for each in inner for found in _types(each))]


FIELDS = sorted((name, field) for name, model in _sections(Settings).items() for field in model.model_fields)


def test_the_example_loads_with_real_triton_and_trtllm_addresses() -> None:
    fleet = load(EXAMPLE).fleet()
    urls = {endpoint.engine: endpoint.metrics_url for endpoint in fleet.endpoints.values()}
    assert urls == {
        "triton": "http://10.0.0.12:8002/metrics",
        "trtllm-serve": "http://10.0.0.31:8000/prometheus/metrics",
    }


@pytest.mark.parametrize(("section", "field"), FIELDS)
def test_every_field_is_in_the_example_with_a_comment(section: str, field: str) -> None:
    lines = EXAMPLE.read_text(encoding="utf-8").splitlines()
    at = [n for n, line in enumerate(lines) if re.match(rf"[\s#-]*{field}:", line)]
    assert at, f"{section}.{field} is missing"
    assert any(_is_explained(lines, n) for n in at), f"{section}.{field} has no comment"


def _is_explained(lines: list[str], at: int) -> bool:
    """By a comment behind it, or by prose above it that it may share with other optional fields."""
    above = next(line for line in reversed(lines[:at]) if not re.match(r"\s*# \w+:", line))
    return bool(re.search(r":.*\s#\s+\S", lines[at]) or re.match(r"\s*# \S", above))


def test_optional_sections_show_the_defaults() -> None:
    example = load(EXAMPLE)
    for name, info in Settings.model_fields.items():
        if name not in OWN_CHOICE and not info.is_required():
            assert getattr(example, name) == info.get_default(call_default_factory=True), name

from __future__ import annotations

import pytest

from ext_proc.inference_headers import ALIASES, InferenceHeaders, add_present_names, read


def test_reads_what_a_request_asks() -> None:
    headers = {
        "x-llm-d-inference-objective": "urgent",
        "x-llm-d-inference-fairness-id": "acme",
        "x-llm-d-model-name-rewrite": "llama",
        "x-llm-d-slo-ttft-ms": "500",
        "x-llm-d-slo-tpot-ms": "12.5",
    }
    assert read(headers) == InferenceHeaders("urgent", "acme", "llama", 0.5, 0.0125)
    assert read({}) == InferenceHeaders()


@pytest.mark.parametrize(("old", "new"), ALIASES.items())
def test_older_names_say_the_same_and_the_present_ones_win(old: str, new: str) -> None:
    for sent, expected in (({old: "1"}, {old: "1", new: "1"}), ({old: "1", new: "2"}, {old: "1", new: "2"})):
        add_present_names(sent)
        assert sent == expected


def test_leaves_other_headers_as_they_are() -> None:
    headers = {"x-session-id": "s"}
    add_present_names(headers)
    assert headers == {"x-session-id": "s"}


@pytest.mark.parametrize("text", ["", "soon", "-5", "0", "nan", "inf", "1e99"])
def test_an_objective_that_makes_no_sense_is_none(text: str) -> None:
    assert read({"x-llm-d-slo-ttft-ms": text}).slo_ttft is None

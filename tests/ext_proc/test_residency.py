from __future__ import annotations

from ext_proc.residency import LORAS_MAX, Residency


def test_serves_whatever_it_is_asked_for_until_it_says_what_it_has() -> None:
    residency = Residency()
    assert residency.serves("llama")
    residency.models = frozenset({"qwen"})
    assert not residency.serves("llama")
    assert residency.serves("qwen")
    assert residency.serves("")  # a request that names no model


def test_an_adapter_is_there_once_a_request_for_it_was_placed() -> None:
    residency = Residency()
    assert residency.has_lora("")
    assert not residency.has_lora("sql")
    residency.placed("sql")
    assert residency.has_lora("sql")
    assert not residency.lists_lora("sql")


def test_the_engines_own_list_counts_for_more() -> None:
    residency = Residency(listed=frozenset({"sql"}))
    residency.placed("poems")
    assert residency.has_lora("sql")
    assert residency.lists_lora("sql")
    assert not residency.has_lora("poems")


def test_keeps_the_adapters_used_last() -> None:
    residency = Residency()
    names = [f"lora-{n}" for n in range(LORAS_MAX)]
    for name in [*names, names[0], "one-more"]:
        residency.placed(name)
    assert not residency.has_lora(names[1])
    assert all(residency.has_lora(name) for name in (names[0], *names[2:], "one-more"))


def test_requests_without_an_adapter_push_none_out() -> None:
    residency = Residency()
    residency.placed("sql")
    for _ in range(3 * LORAS_MAX):
        residency.placed("")
    assert residency.has_lora("sql")


def test_a_restart_loses_all() -> None:
    residency = Residency(models=frozenset({"qwen"}), listed=frozenset({"sql"}))
    residency.placed("poems")
    residency.restarted()
    assert residency.serves("llama")
    assert not residency.has_lora("sql")
    assert not residency.has_lora("poems")

from __future__ import annotations

from collections import OrderedDict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.overlay import Overlay

keys = st.integers(0, 7)
changes = st.lists(st.tuples(st.sampled_from(["set", "pop", "first"]), keys))


@given(st.lists(keys, unique=True), changes)
@settings(max_examples=300)
def test_behaves_as_a_copy_would_and_leaves_what_lies_below(
    below: list[int], plan: list[tuple[str, int]]
) -> None:
    lower = OrderedDict((key, f"below {key}") for key in below)
    copied, overlay = lower.copy(), Overlay(lower)
    for what, key in plan:
        if what == "set":
            copied[key] = overlay[key] = f"set {key}"
            copied.move_to_end(key)
        elif what == "pop":
            assert overlay.pop(key, None) == copied.pop(key, None)
        elif copied:
            assert overlay.pop_first() == copied.popitem(last=False)[0]
        assert len(overlay) == len(copied)
        assert list(overlay.items()) == list(copied.items())
        assert all((key in overlay) == (key in copied) for key in range(8))
    assert lower == OrderedDict((key, f"below {key}") for key in below)


def test_an_empty_one_has_no_first_and_no_key() -> None:
    overlay = Overlay[int]({})
    with pytest.raises(KeyError):
        overlay.pop_first()
    with pytest.raises(KeyError):
        overlay[1]
    with pytest.raises(KeyError):
        del overlay[1]

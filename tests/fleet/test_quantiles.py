from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.quantiles import nearest_rank


@pytest.mark.parametrize(("q", "expected"), [(0.0, 1), (0.2, 1), (0.21, 2), (0.5, 3), (0.99, 5), (1.0, 5)])
def test_gives_the_value_of_the_nearest_rank(q: float, expected: float) -> None:
    assert nearest_rank([1, 2, 3, 4, 5], q) == expected


@given(values=st.lists(st.floats(0, 1e6), min_size=1, max_size=50), q=st.floats(0, 1))
def test_at_least_the_share_asked_for_does_not_exceed_it(values: list[float], q: float) -> None:
    found = nearest_rank(sorted(values), q)
    assert found in values
    assert sum(value <= found for value in values) >= q * len(values) - 1e-9

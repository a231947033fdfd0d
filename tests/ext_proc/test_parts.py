from __future__ import annotations

from ext_proc.parts import PARTS_MAX, SMALL, Parts

CANDIDATES = tuple(f"10.0.0.{n}:80" for n in range(100))
MANY = CANDIDATES[: SMALL + 1]


def same(address: str) -> str:
    return address


def test_a_part_has_the_allowed_ones_in_the_clusters_order_and_no_stranger() -> None:
    parts = Parts(same)
    for part in (CANDIDATES[10:13], MANY):
        assert parts.of(CANDIDATES, (*reversed(part), "10.9.9.9:80")) == part
    assert parts.of(CANDIDATES, ()) == ()


def test_endpoints_are_allowed_by_where_they_are_dialled() -> None:
    parts = Parts(lambda address: address.replace(":81", ":80"))
    assert parts.of(CANDIDATES, ("10.0.0.1:81",)) == (CANDIDATES[1],)


def test_the_same_part_is_the_same_object_however_it_is_named() -> None:
    parts = Parts(same)
    part = parts.of(CANDIDATES, MANY)
    assert parts.of(CANDIDATES, list(MANY)) is part
    assert parts.of(CANDIDATES, [*reversed(MANY)]) is part
    assert len(parts) == 1


def test_where_nothing_is_left_out_it_is_the_clusters_own_list() -> None:
    parts = Parts(same)
    assert parts.of(CANDIDATES, list(CANDIDATES)) is CANDIDATES
    few = CANDIDATES[:2]
    assert parts.of(few, list(few)) is few


def test_parts_of_different_clusters_are_told_apart() -> None:
    parts = Parts(same)
    other = CANDIDATES[:3]
    assert parts.of(CANDIDATES, MANY) == MANY
    assert parts.of(other, MANY) is other


def test_remembers_so_many_the_ones_in_use_longest_and_no_small_ones() -> None:
    parts = Parts(same)
    used = parts.of(CANDIDATES, MANY)
    for n in range(PARTS_MAX + 5):
        parts.of(CANDIDATES, (*MANY, f"10.9.9.{n}:80"))
        assert parts.of(CANDIDATES, MANY) is used
        parts.of(CANDIDATES, CANDIDATES[:SMALL])
    assert len(parts) == PARTS_MAX

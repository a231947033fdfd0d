from __future__ import annotations

from ext_proc.pick_id import PickIds


def test_the_same_seed_names_alike_and_another_seed_otherwise() -> None:
    one, again, other = PickIds(1), PickIds(1), PickIds(2)
    names = [one.next() for _ in range(1000)]
    assert names == [again.next() for _ in range(1000)]
    assert len({*names, *(other.next() for _ in range(1000))}) == 2000
    assert all(len(name) == 32 and int(name, 16) >= 0 for name in names)


def test_any_seed_of_a_process_will_do() -> None:
    assert PickIds(-1).next() != PickIds(2**128 - 1).next()

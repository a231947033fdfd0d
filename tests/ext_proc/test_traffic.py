from __future__ import annotations

from ext_proc.traffic import RECENT, RecentTraffic


def test_knows_nothing_of_what_it_has_not_seen() -> None:
    traffic = RecentTraffic()
    assert traffic.match_ratio() is None
    assert traffic.ttft_quantile(0.5) is None
    traffic.answered(0, 0)
    assert traffic.match_ratio() is None


def test_the_match_ratio_is_of_tokens_and_not_of_requests() -> None:
    traffic = RecentTraffic()
    traffic.answered(9_000, 9_000)
    for _ in range(10):
        traffic.answered(100, 0)
    assert traffic.match_ratio() == 0.9


def test_quantiles_are_times_that_were_seen() -> None:
    traffic = RecentTraffic()
    for n in range(100):
        traffic.first_token((n * 37) % 100 + 1)  # 1 to 100 out of order
    assert [traffic.ttft_quantile(q) for q in (0.5, 0.95, 1.0)] == [50, 95, 100]
    assert list(traffic.ttfts)[:3] == [1, 38, 75]  # asking does not reorder what is forgotten first


def test_one_time_is_every_quantile() -> None:
    traffic = RecentTraffic()
    traffic.first_token(0.25)
    assert {traffic.ttft_quantile(q) for q in (0.0, 0.5, 0.95, 1.0)} == {0.25}


def test_forgets_all_but_the_last_requests() -> None:
    traffic = RecentTraffic()
    for _ in range(RECENT):
        traffic.answered(100, 0)
        traffic.first_token(9.0)
    for _ in range(RECENT):
        traffic.answered(100, 50)
        traffic.first_token(1.0)
    assert traffic.match_ratio() == 0.5
    assert traffic.ttft_quantile(1.0) == 1.0

from __future__ import annotations

import pytest

from fleet.errors import StoreError
from fleet.store.redis_client import connect, without_password


@pytest.mark.parametrize(
    "url",
    ["redis+sentinel://127.0.0.1/main", "redis+sentinel://u:p@a:1,b:2/main/3", "redis://a:1", "unix:///a"],
)
def test_takes_urls_of_a_redis_and_of_sentinels(url: str) -> None:
    assert connect(url) is not None


@pytest.mark.parametrize(
    "url",
    ["http://a", "redis+sentinel://a:1", "redis+sentinel:///main", "redis+sentinel://a:x/main", "", "a:1"],
)
def test_refuses_what_names_no_redis(url: str) -> None:
    with pytest.raises(StoreError, match="not a Redis URL"):
        connect(url)


def test_never_shows_the_password() -> None:
    shown = without_password("redis+sentinel://ops:s3cret@a:1,b:2/main")
    assert "s3cret" not in shown
    assert shown == "redis+sentinel://***@a:1,b:2/main"

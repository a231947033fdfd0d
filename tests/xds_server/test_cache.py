from __future__ import annotations

import asyncio

from xds_server.cache import SnapshotCache
from xds_server.snapshot import ENDPOINT, Resource, Snapshot


def snapshot(body: bytes) -> Snapshot:
    return Snapshot((Resource(ENDPOINT, "a", body),))


def test_wakes_its_watchers_for_news_only() -> None:
    cache, event = SnapshotCache(), asyncio.Event()
    with cache.watching(event):
        assert not event.is_set()
        cache.publish(snapshot(b"1"))
        assert event.is_set()
        event.clear()
        cache.publish(snapshot(b"1"))
        assert not event.is_set()
    cache.publish(snapshot(b"2"))
    assert not event.is_set()


def test_a_late_watcher_is_woken_at_once() -> None:
    cache, event = SnapshotCache(), asyncio.Event()
    cache.publish(snapshot(b"1"))
    with cache.watching(event):
        assert event.is_set()

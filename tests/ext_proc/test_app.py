from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from ext_proc.app import become_ready, read_key, run
from ext_proc.metrics import PickerMetrics
from ext_proc.picker import Picker
from ext_proc.view import View
from ext_proc.watchdog import Watchdog
from fleet.errors import ConfigError, StartError
from fleet.outage import StoreOutage
from fleet.store.memory import MemoryStore
from fleet.store.redis_streams import RedisStreams
from tests.ext_proc.replication.replicas import Replica, running
from tests.support import free_address, one_pool_settings, running_redis, until

if TYPE_CHECKING:
    from pathlib import Path

    from fleet.settings import Settings


def keyed(path: Path) -> Settings:
    return one_pool_settings(picker={"key_file": str(path)})


def test_without_a_file_every_process_has_a_fresh_key() -> None:
    first, second = (read_key(one_pool_settings(), "mine.yaml") for _ in range(2))
    assert len(first) == len(second) == 32
    assert first != second


def test_the_key_is_what_the_file_holds_however_its_last_line_ends(tmp_path: Path) -> None:
    for text in (b"a secret\xff", b"a secret\xff\n", b"a secret\xff\r\n"):
        (tmp_path / "key").write_bytes(text)
        assert read_key(keyed(tmp_path / "key"), "mine.yaml") == b"a secret\xff"


def test_a_file_that_cannot_be_read_is_named_with_the_reason(tmp_path: Path) -> None:
    for path, reason in ((tmp_path / "none", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(ConfigError, match=f"cannot be read: .*{reason}") as caught:
            read_key(keyed(path), "mine.yaml")
        assert str(caught.value).startswith(f"mine.yaml: picker.key_file is '{path}': ")
        assert isinstance(caught.value.__cause__, OSError)


def test_an_empty_file_is_no_key(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text(" \n")
    with pytest.raises(ConfigError) as caught:
        read_key(keyed(path), "mine.yaml")
    assert str(caught.value).startswith(f"mine.yaml: picker.key_file is '{path}': is empty: expected ")


async def test_a_key_that_others_do_not_have_is_one_error_though_it_is_found_out_late(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    (tmp_path / "key").write_bytes(b"nobody else's")
    there = tmp_path / "here.sock"
    settings = one_pool_settings(
        picker={"key_file": str(tmp_path / "key"), "transport": "http2"},
        picker_address=free_address(),
        redis_url=f"unix://{there}",
    )
    async with running_redis(tmp_path) as url:
        streams = RedisStreams(url)
        async with running(Replica("older", streams)):
            ending = asyncio.ensure_future(run(settings, "mine.yaml", asyncio.Event()))
            await until(lambda: "picking among" in caplog.text and "without the store" in caplog.text)
            there.symlink_to(tmp_path / "redis.sock")
            with pytest.raises(StartError, match="with another secret"):
                await ending
        await streams.close()


def make_view() -> View:
    settings, metrics = one_pool_settings(), PickerMetrics()
    fleet = settings.fleet()
    outage = StoreOutage(metrics.registry, "test")
    picker = Picker(settings.picker, fleet.endpoints.values())
    return View(fleet, picker, MemoryStore(), metrics, outage)


async def test_is_ready_once_it_has_joined_the_others_and_the_fleet_was_read() -> None:
    watchdog, view, joined = Watchdog(0.1, 1.0), make_view(), asyncio.Event()
    becoming = asyncio.ensure_future(become_ready(watchdog, joined, view, seconds=60))
    running = asyncio.ensure_future(view.run(interval=60))
    await view.read.wait()
    await asyncio.sleep(0)
    assert not watchdog.ready
    joined.set()
    await becoming
    running.cancel()
    assert watchdog.ready


async def test_is_ready_without_the_store_after_a_while(caplog: pytest.LogCaptureFixture) -> None:
    watchdog, joined = Watchdog(0.1, 1.0), asyncio.Event()
    joined.set()
    await become_ready(watchdog, joined, make_view(), seconds=0.01)
    assert watchdog.ready
    assert "serving with the settings' endpoints alone" in caplog.text

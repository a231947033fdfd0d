from __future__ import annotations

import io
import json
import subprocess

import pytest
from rich.console import Console

from fleet.errors import StartError
from fleet.model import Load, Weight
from fleet.store.memory import MemoryStore
from kvpilot import live
from kvpilot.live import Screen, example, read, show
from kvpilot.table import Records
from tests.support import AwayStore, one_pool_settings

ADDRESS = "10.0.0.1:9000"
SETTINGS = one_pool_settings(ADDRESS, model="qwen3-32b")


class FakeMesh:
    def __init__(self, store: MemoryStore) -> None:
        self.url = "http://127.0.0.1:8080"
        self.settings = SETTINGS
        self.store = store
        self.failure: StartError | None = None

    def check(self) -> None:
        if self.failure:
            raise self.failure


async def _filled() -> MemoryStore:
    store = MemoryStore()
    await store.write("qwen3-32b", {ADDRESS: Load(at=1.0, kv_blocks_used=1, kv_blocks_max=2)})
    await store.write("qwen3-32b", {ADDRESS: Weight(at=1.0, value=77)})
    return store


def _screen(*, terminal: bool, as_json: bool = False) -> tuple[Screen, io.StringIO]:
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=150)
    return Screen(as_json=as_json, console=console), out


def test_the_example_is_a_request_that_a_shell_sends_whole() -> None:
    script = "curl() { printf '%s\\n' \"$@\"; }\n" + example("http://127.0.0.1:8080", "qwen3-32b")
    done = subprocess.run(["/bin/sh", "-c", script], capture_output=True, text=True, check=True)
    words = done.stdout.splitlines()
    assert "http://127.0.0.1:8080/v1/chat/completions" in words
    body = json.loads(words[words.index("-d") + 1])
    assert body["model"] == "qwen3-32b"
    assert body["max_tokens"] > 0
    assert max(len(line) for line in example("http://127.0.0.1:8080", "qwen3-32b").splitlines()) <= 120


async def test_prints_a_plain_table_where_there_is_no_terminal() -> None:
    screen, out = _screen(terminal=False)
    await show(FakeMesh(await _filled()), screen, seconds=0.05)
    text = out.getvalue()
    assert text.startswith("kvpilot is up at http://127.0.0.1:8080\n\ncurl -s ")
    assert text.count(ADDRESS) == 1
    assert "77" in text
    assert "\x1b" not in text


async def test_keeps_the_last_figures_and_says_so_while_redis_is_away() -> None:
    before = await read(await _filled(), SETTINGS.fleet(), Records())
    after = await read(AwayStore(), SETTINGS.fleet(), before)
    assert after.load == before.load
    assert "does not answer" in after.away
    assert not (await read(await _filled(), SETTINGS.fleet(), after)).away


async def test_announces_above_a_live_table() -> None:
    screen, out = _screen(terminal=True)
    mesh = FakeMesh(await _filled())

    def announce_and_go_on() -> None:
        screen.announce("picker was ended by SIGKILL; restarting in 0.2 s: [/odd]")

    mesh.check = announce_and_go_on  # type: ignore[method-assign]
    await show(mesh, screen, seconds=0.05)
    text = out.getvalue()
    assert "picker was ended by SIGKILL; restarting in 0.2 s: [/odd]" in text
    assert text.index("picker was ended") < text.index(ADDRESS)


async def test_ends_when_a_child_cannot_start() -> None:
    mesh = FakeMesh(await _filled())
    mesh.failure = StartError("xds cannot start: x")
    with pytest.raises(StartError):
        await show(mesh, _screen(terminal=False)[0], seconds=5)


async def test_json_is_one_object_a_second_and_nothing_else(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "READ_SECONDS", 0.05)
    screen, out = _screen(terminal=False, as_json=True)
    await show(FakeMesh(await _filled()), screen, seconds=0.12)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) >= 2
    assert all(json.loads(line)["endpoints"][0]["weight"] == 77 for line in lines)
    assert "curl" in out.getvalue()

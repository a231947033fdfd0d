from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest
from aiohttp import web
from rich.console import Console

from ext_proc import explain_page
from ext_proc.picker import Picker
from fleet.errors import StartError
from fleet.model import Load, Rate
from fleet.settings_file import parse
from fleet.store.memory import MemoryStore
from kvpilot.cli import main
from kvpilot.explain import ask_picker, from_store, guess_cluster, show
from tests.ext_proc.test_steer import CHAT, FLEET, SETTINGS, chat, make_steerer
from tests.support import free_address, one_pool_settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

ONE, TWO = "10.0.0.1:80", "10.0.0.2:80"


@pytest.fixture
async def picker_url() -> AsyncIterator[str]:
    app = web.Application()
    app.add_routes([explain_page.route(make_steerer(Picker(SETTINGS, FLEET.endpoints.values())))])
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}{explain_page.PATH}"
    await runner.cleanup()


async def test_asks_the_running_picker(picker_url: str) -> None:
    answer = await ask_picker(picker_url, explain_page.question("llama/canary", CHAT, {}, chat("hi")))
    assert answer is not None
    assert answer["outcome"] == "steered"


async def test_a_picker_that_is_not_there_is_no_answer_and_one_that_refuses_is_an_error(
    picker_url: str,
) -> None:
    assert await ask_picker(f"http://{free_address()}/explain", b"") is None
    with pytest.raises(StartError, match=r"answers HTTP 400 expected JSON"):
        await ask_picker(picker_url, b"nonsense")


async def test_without_a_picker_rates_and_loads_from_the_store_decide() -> None:
    settings, store = one_pool_settings(ONE, TWO), MemoryStore()
    now = time.time()
    await store.write("m", {TWO: Rate(90_000.0, 0.01, at=now, observations=50)})
    answer = await from_store(settings, store, "m/v", CHAT, {}, chat("word " * 5000))
    assert isinstance(answer["candidates"], list)
    assert [row["endpoint"] for row in answer["candidates"]] == [TWO, ONE]
    assert answer["candidates"][0]["tokens_per_second"] == 90_000
    await store.write("m", {TWO: Load(at=now, ready=False)})
    answer = await from_store(settings, store, "m/v", CHAT, {}, chat("word " * 5000))
    assert isinstance(answer["candidates"], list)
    assert [row["endpoint"] for row in answer["candidates"]] == [ONE]


def test_the_cluster_is_the_one_that_envoy_would_most_probably_choose() -> None:
    models = [
        {
            "name": name,
            "versions": [version("v", weight, f"10.0.{n}.1:80"), version("w", 50, f"10.0.{n}.2:80")],
        }
        for n, (name, weight) in enumerate((("one", 90), ("two", 10)))
    ]
    settings = parse({"models": models}, "test")
    assert guess_cluster(settings, {}) == "one/v"
    assert guess_cluster(settings, {"x-model": "two"}) == "two/w"
    assert guess_cluster(settings, {"x-model": "unknown"}) == "one/v"


def version(name: str, weight: int, address: str) -> dict[str, object]:
    pool = {"name": "p", "gpu": "H100-80GB", "endpoints": [address]}
    return {"name": name, "weight": weight, "pools": [pool]}


def shown(answer: dict[str, object]) -> str:
    console = Console(width=200)
    with console.capture() as captured:
        show(answer, console)
    return captured.get()


def test_shows_a_table_for_people_with_the_note() -> None:
    settings = one_pool_settings(ONE, TWO)
    answer = asyncio.run(from_store(settings, MemoryStore(), "m/v", CHAT, {}, chat("hi")))
    text = shown({"note": "from Redis", **answer})
    assert "note: from Redis" in text
    assert text.count("10.0.0.") == 3  # two rows, and the first in the heading
    assert "tokens/s" in text


def test_shows_why_a_request_is_left_to_the_weights() -> None:
    left = {"note": "", "cluster": "m/v", "outcome": "not-json", "why": "", "candidates": []}
    assert shown(dict(left)) == "m/v: left to the weights: not-json\n"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "kvpilot.yaml"
    pool = f"{{name: p, gpu: H100-80GB, endpoints: ['{ONE}']}}"
    path.write_text(
        f"models: [{{name: m, versions: [{{name: v, pools: [{pool}]}}]}}]\nredis_url: redis://127.0.0.1:1/0\n"
    )
    return path


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["/nowhere.json"], "/nowhere.json: cannot be read: No such file"),
        (["{body}", "--cluster", "m/w"], "--cluster is 'm/w': expected one of m/v"),
        (["{body}", "--header", "nonsense"], "'nonsense' is not NAME:VALUE"),
        (["{body}"], "picker_metrics is not set, so no picker can be asked, and redis://127.0.0.1:1/0"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    arguments: list[str], said: str, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    body = config.with_name("body.json")
    body.write_bytes(chat("hi"))
    given = [argument.replace("{body}", str(body)) for argument in arguments]
    assert main(["explain", *given, "-c", str(config)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err
    assert err.count("\n") == 1

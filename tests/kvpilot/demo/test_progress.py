from __future__ import annotations

import io

from rich.console import Console

from kvpilot.demo.progress import LiveProgress, PlainProgress, progress_on


def _text(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_file_gets_plain_lines_now_and_then() -> None:
    console = Console(file=io.StringIO())
    with progress_on(console) as progress:
        progress.begin("weighted", 22.0)
        for tick in range(48):
            progress.advance(tick / 4, tick, 1)
        progress.say("picker [died] and was restarted")
    assert isinstance(progress, PlainProgress)
    assert _text(console).splitlines() == [
        "weighted: driving the load for 22 s",
        "weighted: 5 s, 20 requests, 1 failed",
        "weighted: 10 s, 40 requests, 1 failed",
        "picker [died] and was restarted",
    ]


def test_a_terminal_gets_a_bar_for_each_phase() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    with progress_on(console) as progress:
        progress.begin("steered", 22.0)
        progress.advance(11.0, 230, 2)
        progress.say("news")
    assert isinstance(progress, LiveProgress)
    assert "steered" in _text(console)
    assert "230 requests" in _text(console)
    assert "news" in _text(console)

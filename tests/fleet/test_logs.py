from __future__ import annotations

import json
import logging
import sys

import pytest

from fleet.logs import LONGEST, Format, JsonFormatter, TextFormatter, facts, handler


def record(message: str, **known: object) -> logging.LogRecord:
    made = logging.LogRecord("a.b", logging.INFO, "f.py", 1, "%s", (message,), None)
    made.__dict__.update(facts(**known))
    return made


def test_json_is_one_object_a_line_with_the_facts_beside_the_message() -> None:
    text = JsonFormatter().format(
        record("two\nlines", endpoint="10.0.0.1:80", ttft=0.123456, served=None, n=3)
    )
    assert "\n" not in text
    line = json.loads(text)
    at = line.pop("at")
    assert at.endswith("+00:00")
    assert line == {
        "level": "info",
        "logger": "a.b",
        "message": "two\nlines",
        "endpoint": "10.0.0.1:80",
        "ttft": 0.1235,
        "served": None,
        "n": 3,
    }


def test_no_fact_takes_the_place_of_what_every_line_has() -> None:
    assert json.loads(JsonFormatter().format(record("said", level="fatal")))["level"] == "info"


def test_json_says_what_was_raised() -> None:
    made = record("failed")
    try:
        raise ValueError("why")
    except ValueError:
        made.exc_info = sys.exc_info()
    assert "ValueError: why" in json.loads(JsonFormatter().format(made))["exception"]


def test_text_puts_the_facts_behind_the_first_line_of_the_message() -> None:
    first, second = TextFormatter().format(record("a\nb", endpoint="e", id="x y", n=1)).split("\n")
    assert first.endswith('INFO a.b: a endpoint=e id="x y" n=1')
    assert second == "b"


def test_what_clients_sent_makes_no_line_of_its_own_and_no_long_one() -> None:
    text = TextFormatter().format(record("a", id="x\nERROR forged", long="y" * 999))
    assert "\n" not in text
    assert "y" * (LONGEST + 1) not in text


@pytest.mark.parametrize(("form", "said"), [("text", "INFO a.b: said n=1"), ("json", '"n": 1')])
def test_writes_the_chosen_form_to_standard_error(
    form: Format, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    handler(form).emit(record("said", n=1))
    assert said in capsys.readouterr().err

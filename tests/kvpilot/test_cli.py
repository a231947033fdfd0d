from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from kvpilot.cli import main
from tests.support import free_port

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kvpilot.conftest import Command


def _assert_fails_in_one_line(
    kvpilot: Command, *arguments: str, said: tuple[str, ...], **environment: str
) -> None:
    with kvpilot.start("up", *arguments, **environment) as process:
        out, err = process.communicate(timeout=30)
    assert process.returncode == 2
    assert out == ""
    assert err.startswith("kvpilot: ")
    assert err.count("\n") == 1
    for part in said:
        assert part in err
    assert kvpilot.running() == []
    assert kvpilot.files() == []


def test_a_port_already_taken_says_which_who_asks_and_what_to_do(kvpilot: Command) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = str(holder.getsockname()[1])
        said = ("listen", f"127.0.0.1:{port}", "already in use", "--port")
        _assert_fails_in_one_line(kvpilot, "--port", port, said=said)


def test_a_redis_that_does_not_answer_is_named(kvpilot: Command) -> None:
    url = "redis://127.0.0.1:1/0"
    said = ("KVPILOT_REDIS_URL", url, "does not answer")
    _assert_fails_in_one_line(kvpilot, "--port", str(free_port()), said=said, KVPILOT_REDIS_URL=url)


def test_a_redis_url_that_is_none_is_named(kvpilot: Command) -> None:
    said = ("KVPILOT_REDIS_URL", "localhost", "not a Redis URL")
    _assert_fails_in_one_line(kvpilot, "--port", str(free_port()), said=said, KVPILOT_REDIS_URL="localhost")


def test_a_bad_field_is_named_with_file_value_and_what_would_be_right(
    kvpilot: Command, tmp_path: Path
) -> None:
    file = tmp_path / "mine.yaml"
    pool = "{name: p, gpu: H1000, endpoints: ['10.0.0.1:9000']}"
    file.write_text(f"models: [{{name: m, versions: [{{name: v, pools: [{pool}]}}]}}]\n")
    said = (str(file), "models.m.versions.v.pools.p.gpu is 'H1000'", "expected one of A100-40GB")
    _assert_fails_in_one_line(kvpilot, "-c", str(file), said=said)


def test_a_file_that_is_not_there_is_named(kvpilot: Command) -> None:
    _assert_fails_in_one_line(kvpilot, "-c", "/nowhere.yaml", said=("/nowhere.yaml", "No such file"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["up", "--port", "70000"], "'70000' is not a port from 1 to 65535"),
        (["up", "--port", "\u0668\u0660\u0668\u0660"], "is not a port from 1 to 65535"),
        (["up", "--seed", "0"], "--seed needs --demo"),
        (["up", "--order", "steered,weighted,round_robin"], "--order needs --demo"),
        (["up", "--for", "3", "--demo", "3"], "--for and --demo exclude each other"),
        (["up", "--for", "0"], "'0' is not a number of seconds above 0"),
        (["up", "--demo", "nan"], "'nan' is not a number of seconds above 0"),
        (["up", "--order", "steered,weighted"], "does not name each of round_robin, weighted, steered once"),
        (["up", "--nonsense"], "unrecognized arguments: --nonsense"),
        ([], "COMMAND"),
    ],
)
def test_a_wrong_option_is_one_line(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("kvpilot: command line: ")
    assert said in err
    assert err.count("\n") == 1


def test_an_error_that_a_child_finds_names_the_file_alone(kvpilot: Command, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    versions = "[{name: v, pools: [{name: p, gpu: L4-24GB, emulated: {}}]}]"
    file.write_text(f"models: [{{name: m, parameters_billion: 400, versions: {versions}}}]\n")
    said = (f"engines cannot start: sim: {file}: models.", "tensor_parallel", "expected more GPUs")
    _assert_fails_in_one_line(kvpilot, "-c", str(file), "--port", str(free_port()), said=said)


def test_prints_its_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("kvpilot ")

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import yaml

from fleet.errors import ConfigError
from fleet.settings_file import dump, load, parse

if TYPE_CHECKING:
    from pathlib import Path

TOP = "models, listen, steering, redis_url, "


def fleet(pool: Any = None, *, version: Any = None, model: Any = None, **more: Any) -> dict[str, Any]:
    """Settings of model m, version v and pool p, each with what is given for it."""
    pools = [{"name": "p", "gpu": "L4-24GB", "endpoints": ["10.0.0.1:80"], **(pool or {})}]
    versions = [{"name": "v", "pools": pools, **(version or {})}]
    return {"models": [{"name": "m", "versions": versions, **(model or {})}], **more}


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({}, "models: is missing, expected a list of at least one model"),
        ({"models": []}, "models is an empty list: expected a list of at least one"),
        ({"models": 5}, "models is 5: expected a list"),
        (
            {"models": [5]},
            "models.0 is 5: expected a mapping with some of name, parameters_billion, versions",
        ),
        ({"models": [{"versions": []}]}, "models.0.name: is missing, expected a name of "),
        (
            fleet(model={"name": 405}),
            "models.0.name is 405: expected text, in quotes where YAML reads a number",
        ),
        (fleet(model={"name": "a\nb"}), r"models.0.name is 'a\nb': expected a name of "),
        (fleet(version={"pools": []}), "models.m.versions.v.pools is an empty list: expected a list of at"),
        (fleet({"gpu": "H100"}), "models.m.versions.v.pools.p.gpu is 'H100': expected one of A100-40GB, "),
        (fleet({"endpoints": ["a"]}), "models.m.versions.v.pools.p.endpoints.0 is 'a': expected ip:port, "),
        (fleet({"engine": "x"}), "models.m.versions.v.pools.p.engine is 'x': expected 'triton' or "),
        (
            fleet(version={"weight": -1}),
            "models.m.versions.v.weight is -1: expected a whole number from 0 to 10000",
        ),
        (
            fleet(version={"weight": 0.5}),
            "models.m.versions.v.weight is 0.5: expected a whole number from 0 to",
        ),
        (
            fleet(version={"weight": []}),
            "models.m.versions.v.weight is an empty list: expected a whole number",
        ),
        (
            fleet({"metrics_port": "x"}),
            "models.m.versions.v.pools.p.metrics_port is 'x': expected a whole number",
        ),
        (fleet(weights={"smoothing": 2}), "weights.smoothing is 2: expected a number from 0.001 to 1"),
        (fleet(envoy={"debug_headers": "maybe"}), "envoy.debug_headers is 'maybe': expected true or false"),
        (
            fleet(envoy={"buffer_bytes": 99999999999}),
            "envoy.buffer_bytes is 99999999999: expected a whole number",
        ),
        (fleet(picker={"key_file": 1}), "picker.key_file is 1: expected a path"),
        (fleet(picker=None), "picker is empty: expected a mapping with some of block_bytes, "),
        (fleet(listen={}), "listen is a mapping: expected text"),
        (fleet(redis_url=["a" * 99]), "redis_url is a list: expected text"),
        (fleet(listen="a" * 99), f"listen is '{'a' * 80}…': expected ip:port"),
    ],
)
def test_names_file_field_value_and_what_would_be_right_in_one_line(data: object, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(data, "kvpilot.yaml")
    text = str(caught.value)
    assert text.startswith(f"kvpilot.yaml: {said}")
    assert "\n" not in text
    assert "Input" not in text


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (fleet(foo=1), "foo is 1: unknown field, expected one of listen, steering, models, "),
        (
            fleet({"emulatd": {}}),
            "models.m.versions.v.pools.p.emulatd is a mapping: unknown field, expected one of emulated,",
        ),
        ({"modles": []}, f"modles is an empty list: unknown field, expected one of {TOP}"),
        (
            fleet(picker={"max_body_bytes": 1}),
            "picker.max_body_bytes is 1: unknown field, expected one of max_parsed_bytes, ",
        ),
        (fleet() | {True: 1}, "True: unknown field, expected one of listen, "),
        (fleet() | {"a\nb": 1}, r"'a\nb' is 1: unknown field, expected one of listen, "),
    ],
)
def test_an_unknown_field_is_told_what_fields_there_are_the_nearest_first(data: object, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(data, "f")
    assert str(caught.value).startswith(f"f: {said}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- a\n", " is a list: expected a mapping with at least `models`"),
        ("", " is empty: expected a mapping with at least `models`"),
        ("models", " is 'models': expected a mapping with at least `models`"),
        ("listen: a\nb: c: d", ": line 2, column 5: is not YAML: mapping values are not allowed here"),
        ("a: [1", ": line 1, column 6: is not YAML: expected ',' or ']'"),
        ("a: !!python/none x", ": line 1, column 4: is not YAML: "),
        ("\x00", ": is not YAML: "),
        ("a: 2024-13-45", ": is not YAML: month must be in 1..12"),
        ("[" * 5000, ": is not YAML that can be read: nested too deeply"),
    ],
)
def test_refuses_a_file_that_is_no_mapping_in_one_line(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "kvpilot.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert str(caught.value).startswith(f"{path}{said}")
    assert "\n" not in str(caught.value)


def test_refuses_a_key_that_is_there_twice(tmp_path: Path) -> None:
    path = tmp_path / "kvpilot.yaml"
    path.write_text("picker:\n  sessions_max: 1\n  block_bytes: 64\n  'sessions_max': 2\n")
    with pytest.raises(ConfigError) as caught:
        load(path)
    told = "line 4, column 3: is not YAML: expected each key once, 'sessions_max' is already in line 2"
    assert str(caught.value) == f"{path}: {told}"


def test_a_merged_key_may_be_set_anew(tmp_path: Path) -> None:
    path = tmp_path / "kvpilot.yaml"
    base = "{name: a, gpu: L4-24GB, endpoints: ['10.0.0.1:1'], tensor_parallel: 2}"
    other = "{<<: *base, name: b, endpoints: ['10.0.0.2:1']}"
    path.write_text(f"models: [{{name: m, versions: [{{name: v, pools: [&base {base}, {other}]}}]}}]\n")
    assert [(pool.name, pool.tensor_parallel) for _, _, pool in load(path).pools()] == [("a", 2), ("b", 2)]


def test_a_file_that_cannot_be_read_is_named_once_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "latin").write_bytes(b"a: \xe9")
    for name, reason in (
        ("absent", "(No such file or directory): expected a YAML file with `models`"),
        ("", "(Is a directory): expected a YAML file with `models`"),
        ("latin", "(byte 3): expected text in UTF-8"),
    ):
        with pytest.raises(ConfigError) as caught:
            load(tmp_path / name)
        assert str(caught.value) == f"{tmp_path / name}: cannot be read {reason}"


def test_reads_back_what_it_dumps() -> None:
    emulated = {"endpoints": ["10.0.0.1:80", "[fd00::1]:80"], "emulated": {"speed": 2}}
    picker = {"key_file": "/etc/key", "session_headers": ["X-Chat"]}
    for data in (fleet(), fleet(emulated, picker=picker, xds_address="unix:/run/xds.sock")):
        first = parse(data, "f")
        assert parse(yaml.safe_load(dump(first)), "f") == first

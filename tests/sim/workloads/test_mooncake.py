from __future__ import annotations

import gzip
import json
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest

from fleet.errors import ConfigError
from sim.workloads.mooncake import BLOCK_TOKENS, ROUNDED_TO_MS, Request, jobs, read

SAMPLE = Path(__file__).parents[4] / "shared/data/mooncake/conversation_trace.jsonl.gz"

LINE = {"timestamp": 3000, "input_length": 1100, "output_length": 7, "hash_ids": [0, 5, 6]}


def lines(*changes: dict[str, object]) -> bytes:
    return b"".join(json.dumps({**LINE, **change}).encode() + b"\n" for change in changes)


def request(timestamp: float, ids: tuple[int, ...] = (), tokens: int = 100) -> Request:
    return Request(timestamp, tokens, 1, ids)


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    return tmp_path / "trace.jsonl"


def test_reads_requests_in_the_order_of_their_lines(trace: Path) -> None:
    trace.write_bytes(lines({}, {"timestamp": 0, "extra": "ignored"}) + b"\n")
    assert read(trace) == [Request(3000, 1100, 7, (0, 5, 6)), Request(0, 1100, 7, (0, 5, 6))]


def test_reads_a_compressed_trace_as_the_plain_one(trace: Path) -> None:
    trace.write_bytes(lines({}, {"timestamp": 6000}))
    compressed = trace.with_suffix(".jsonl.gz")
    compressed.write_bytes(gzip.compress(trace.read_bytes()))
    assert read(compressed) == read(trace)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"timestamp": None}, "timestamp: is missing; expected the arrival in ms"),
        ({"timestamp": -1}, "timestamp is -1: expected the arrival in ms"),
        ({"timestamp": "soon"}, "timestamp is 'soon': expected"),
        ({"timestamp": float("nan")}, "timestamp is nan: expected"),
        ({"timestamp": float("inf")}, "timestamp is inf: expected"),
        ({"timestamp": True}, "timestamp is True: expected"),
        ({"input_length": 0}, "input_length is 0: expected a number of tokens, 1 or more"),
        ({"input_length": 10**30}, "input_length is 1000000000000000000000000000000: expected"),
        ({"output_length": 1.5}, "output_length is 1.5: expected a number of tokens, 1 or more"),
        ({"hash_ids": "abc"}, "hash_ids is 'abc': expected a list of integers"),
        ({"hash_ids": [0, -1, 2]}, "hash_ids is [0, -1, 2]: expected a list of integers"),
        ({"hash_ids": [0, 2**64, 2]}, "expected a list of integers from 0 to 2^64 - 1"),
        ({"hash_ids": [0]}, "the number of hash_ids is 1: expected 3, one per 512 of 1100 input tokens"),
        ({"hash_ids": [0, 1, 2, 3]}, "the number of hash_ids is 4: expected 3"),
    ],
)
def test_names_the_line_that_is_wrong_and_what_would_be_right(
    trace: Path, change: dict[str, object], told: str
) -> None:
    trace.write_bytes(lines({}, change))
    with pytest.raises(ConfigError) as error:
        read(trace)
    message = str(error.value)
    assert message.startswith(f"{trace}, line 2: ")
    assert told in message
    assert "\n" not in message


@pytest.mark.parametrize(
    "text", [b"{not json", b"\xff\xfe", b"[" * 100_000, b'{"timestamp": ' + b"9" * 5000 + b"}"]
)
def test_names_the_line_that_is_not_json(trace: Path, text: bytes) -> None:
    trace.write_bytes(lines({}) + text + b"\n")
    with pytest.raises(ConfigError, match="line 2: is not JSON; expected an object"):
        read(trace)


def test_shows_no_more_of_a_wrong_line_than_a_person_reads(trace: Path) -> None:
    trace.write_bytes(json.dumps(list(range(10_000))).encode())
    with pytest.raises(ConfigError, match=r"line 1 is .*: expected a JSON object") as error:
        read(trace)
    assert len(str(error.value)) < 200 + len(str(trace))


def test_takes_one_hash_fewer_where_the_remainder_has_none(trace: Path) -> None:
    trace.write_bytes(lines({"hash_ids": [0, 5]}))
    assert read(trace)[0].hash_ids == (0, 5)


@pytest.mark.parametrize("text", [b"", b"\n\n"])
def test_a_trace_without_requests_is_none(trace: Path, text: bytes) -> None:
    trace.write_bytes(text)
    with pytest.raises(ConfigError, match="holds no request"):
        read(trace)


def test_a_trace_that_is_not_there_is_told_in_one_line(trace: Path) -> None:
    with pytest.raises(ConfigError, match="No such file or directory"):
        read(trace)


@pytest.mark.parametrize("damage", [lambda data: data[:-20], lambda data: b"plain" + data])
def test_a_damaged_archive_is_told_in_one_line(trace: Path, damage: object) -> None:
    assert callable(damage)
    compressed = trace.with_suffix(".jsonl.gz")
    compressed.write_bytes(damage(gzip.compress(lines({}, {}))))
    with pytest.raises(ConfigError, match="cannot be read"):
        read(compressed)


def test_a_job_has_the_whole_blocks_of_its_prompt_and_none_for_the_rest() -> None:
    (job,) = jobs([request(0, (1, 2, 3), 1100)], Random(1))
    assert (job.prompt_tokens, job.output_tokens, job.block_tokens) == (1100, 1, BLOCK_TOKENS)
    assert len(job.blocks) == 2


def test_prompts_share_blocks_as_far_as_their_ids_agree_from_the_start() -> None:
    ids = [(1, 2, 3), (1, 2, 4), (5, 2, 3)]  # the last two ids are the first's, but not what is before them
    first, second, third = (job.blocks for job in jobs([request(0, i, 1536) for i in ids], Random(1)))
    assert first[:2] == second[:2]
    assert len({*first, *second, *third}) == 7


def test_arrivals_that_are_rounded_are_spread_over_the_time_that_rounding_hides() -> None:
    rounded = [request(at) for at in (6000, 9001, 11_999) for _ in range(1000)]
    late = [
        (job.arrival * 1000 + 6000 - each.timestamp) / ROUNDED_TO_MS
        for job, each in zip(jobs(rounded, Random(1)), rounded, strict=True)
    ]
    assert 0 <= min(late) < 0.01
    assert 0.99 < max(late) < 1
    for tenth in range(10):
        assert sum(tenth / 10 <= each < (tenth + 1) / 10 for each in late) == pytest.approx(300, abs=70)


def test_rounded_arrivals_need_not_be_multiples_of_what_they_are_rounded_to() -> None:
    drifting = [request(at) for at in (482, 3535, 3535, 6520)]
    assert len({job.arrival for job in jobs(drifting, Random(1))}) == 4
    assert [job.arrival for job in jobs(drifting, Random(1))] != [0.0, 3.053, 3.053, 6.038]


def test_exact_arrivals_stay_as_they_are_and_begin_at_0() -> None:
    exact = [request(at) for at in (5_000_100, 5_000_140, 5_003_000)]
    assert [job.arrival for job in jobs(exact, Random(1))] == [0.0, 0.04, 2.9]


@pytest.mark.skipif(not SAMPLE.is_file(), reason="the sample trace lies beside the repository, not in it")
def test_the_sample_is_what_its_publishers_say() -> None:
    requests = read(SAMPLE)
    assert len(requests) == 12_031
    ids = [hash_id for each in requests for hash_id in each.hash_ids]
    assert (len(ids), len(set(ids))) == (288_500, 182_790)
    made = list(jobs(requests, Random(1)))
    names = [block for job in made for block in job.blocks]
    assert (len(names), len(set(names))) == (276_491, 170_899)  # without remainders
    assert len({job.arrival for job in made}) == 12_031
    assert 3537 <= max(job.arrival for job in made) < 3540


@pytest.mark.skipif(not SAMPLE.is_file(), reason="the sample trace lies beside the repository, not in it")
def test_the_samples_blocks_always_follow_the_same_block() -> None:
    before: dict[int, int] = {}
    for job in jobs(read(SAMPLE), Random(1)):
        for parent, block in pairwise((0, *job.blocks)):
            assert before.setdefault(block, parent) == parent

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ext_proc.replication import copying
from ext_proc.replication.copying import CHUNK_BYTES, Copy
from fleet.errors import RecordError


def test_a_head_survives_the_way() -> None:
    copy = Copy(1.5, b"f", "1-0", {"a:1": 10, "b:1": 20}, {"a:1": 2, "b:1": 0}, 3, (b"batch",))
    assert copying.decode(copy.encode()) == copy


def test_sessions_survive_the_way() -> None:
    sessions = [("s", "a:1", 1.5), ("t", "b:1", 2.5)]
    assert copying.decode_sessions(copying.encode_sessions(sessions)) == sessions
    assert copying.decode_sessions(b"\xff") == []


def test_blocks_are_split_and_nothing_is_lost() -> None:
    data = bytes(range(256)) * (CHUNK_BYTES // 128)
    chunks = copying.split(data)
    assert b"".join(chunks) == data
    assert all(0 < len(chunk) <= CHUNK_BYTES for chunk in chunks)
    assert copying.split(b"") == []


@given(st.binary(max_size=100))
def test_any_bytes_are_a_copy_or_a_record_error_and_nothing_else(data: bytes) -> None:
    try:
        copying.decode(data)
    except RecordError:
        return


def test_a_newer_layout_is_refused() -> None:
    with pytest.raises(RecordError, match="layout 99"):
        copying.decode(b"\x08\x63")

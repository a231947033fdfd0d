from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.errors import RecordError
from fleet.model import Load, Rate, Traffic, Weight
from fleet.store import records
from fleet.store import records_pb2 as pb

SAMPLES = [
    Load(1.5, False, "connection refused", 3, 10, 32, 4, 5, 256),
    Rate(21_000.5, 0.012, 7.0, 42),
    Weight(2.0, 417),
    Traffic(3.0, 4, 0.75, None, 1.25),
]


@pytest.mark.parametrize("record", SAMPLES, ids=lambda r: type(r).__name__)
def test_reads_back_every_field_it_wrote(record: Load | Rate | Weight | Traffic) -> None:
    assert records.decode(type(record), records.encode(record)) == record


@given(data=st.binary(max_size=60), kind=st.sampled_from([Load, Rate, Weight, Traffic]))
def test_other_bytes_are_a_record_or_a_record_error_and_nothing_else(data: bytes, kind: type) -> None:
    try:
        found = records.decode(kind, data)
    except RecordError:
        return
    assert isinstance(found, kind)


def test_refuses_a_newer_layout() -> None:
    newer = pb.WeightRecord(version=records.LAYOUT + 1, value=3).SerializeToString()
    with pytest.raises(RecordError, match="layout 2, this is 1"):
        records.decode(Weight, newer)

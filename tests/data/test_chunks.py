"""Overlapping chunks against the rule, scanned one by one."""

import numpy as np
import pytest

from fairseq_ecg.data.chunks import chunk_table


def slow_chunks(lengths, chunk_length, min_chunk_length, stride):
    rows = []
    for record, length in enumerate(lengths):
        start = 0
        while start < length or (not chunk_length and start == 0):
            end = min(start + chunk_length, length) if chunk_length else length
            if end - start < min_chunk_length:
                break
            rows.append([record, start, end])
            if not chunk_length:
                break
            start += stride
    return np.array(rows).reshape(-1, 3)


@pytest.mark.parametrize(
    ("chunk_length", "min_chunk_length", "stride"),
    [(250, 250, 125), (250, 200, 125), (0, 250, 62), (1000, 1000, 500), (300, 0, 100), (100, 50, 300)],
)
def test_chunks_are_those_of_the_rule(chunk_length, min_chunk_length, stride):
    lengths = [1000, 260, 1200, 250, 249, 600, 1, 0]
    table = chunk_table(lengths, chunk_length=chunk_length, min_chunk_length=min_chunk_length, stride=stride)
    expected = slow_chunks(lengths, chunk_length, min_chunk_length, stride)
    np.testing.assert_array_equal(table, expected)
    assert table.dtype == np.int64


def test_ten_seconds_are_seven_chunks_of_two_and_a_half():
    table = chunk_table([1000], chunk_length=250, min_chunk_length=250, stride=125)
    assert table[:, 1].tolist() == [0, 125, 250, 375, 500, 625, 750]


def test_records_that_are_all_too_short_leave_no_chunk():
    assert chunk_table([10, 20], chunk_length=50, min_chunk_length=50, stride=25).shape == (0, 3)
    assert chunk_table([], chunk_length=50, min_chunk_length=50, stride=25).shape == (0, 3)

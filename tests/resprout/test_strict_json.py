from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resprout.strict_json import parse

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(VALUES)
def test_what_was_written_is_read(value: object) -> None:
    assert parse(json.dumps(value).encode()) == value


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b'{"a": 1, "b": {"c": 1, "c": 2}}', "'c' twice"),
        (b"[" * 150 + b"]" * 150, "nested too deep"),
        (b"[" * 100_000 + b"]" * 100_000, "nested too deep"),
        (b'{"a":' * 100_000, "nested too deep"),
        (rb'{"name": "\ud800"}', "surrogates not allowed"),
        (b'"\xff"', "invalid start byte"),
        (b"", "Expecting value"),
        (b"1" * 5000, "integer string conversion"),
        (b"[" + b"{}," * 1_000_000 + b"{}]", "more than 1,000,000 values"),
        (b"[" + b"[]," * 3_000_000 + b"[]]", "more than 1,000,000 values"),
    ],
)
def test_text_that_reads_in_two_ways_or_breaks_its_reader_is_refused(content: bytes, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        parse(content)

"""ranges: which bytes are sent is what RFC 9110 §14 says, for every field and every size."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from servers.httpd.ranges import Span, Unsatisfiable, parse_range

SIZES = st.integers(0, 40)


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ("bytes=0-0", Span(0, 1)),
        ("bytes=2-5", Span(2, 6)),
        ("bytes=2-", Span(2, 10)),
        ("bytes=-3", Span(7, 10)),
        ("bytes=-30", Span(0, 10)),
        ("bytes=5-99", Span(5, 10)),
        ("BYTES=1-1", Span(1, 2)),
        ("bytes= 1-1 ,", Span(1, 2)),
        ("bytes=5-4", None),
        ("bytes=a-b", None),
        ("bytes=-", None),
        ("bytes=", None),
        ("bytes=1", None),
        ("bytes=0-1,3-4", None),
        ("bytes=0-1,77-", None),
        ("bytes=0-1,x", None),
        ("lines=0-1", None),
        ("bytes 0-1", None),
        ("bytes=\u0661-", None),
        ("bytes=" + "9" * 20 + "-", None),
    ],
)
def test_a_field_of_ten_bytes(field: str, expected: Span | None) -> None:
    assert parse_range(field, 10) == expected


@pytest.mark.parametrize("field", ["bytes=10-", "bytes=10-11", "bytes=-0", "bytes=10-,99-"])
def test_what_is_not_there(field: str) -> None:
    with pytest.raises(Unsatisfiable):
        parse_range(field, 10)


def test_the_last_bytes_of_an_empty_file_are_the_file() -> None:
    assert parse_range("bytes=-5", 0) is None
    with pytest.raises(Unsatisfiable):
        parse_range("bytes=0-", 0)


@settings(max_examples=150, deadline=None)
@given(first=SIZES, last=SIZES, size=SIZES)
def test_a_span_is_the_bytes_that_there_are(first: int, last: int, size: int) -> None:
    wanted = [at for at in range(size) if first <= at <= last]
    try:
        span = parse_range(f"bytes={first}-{last}", size)
    except Unsatisfiable:
        assert not wanted
        assert first <= last
    else:
        assert span is None if last < first else list(range(*(span or ()))) == wanted


@settings(max_examples=150, deadline=None)
@given(text=st.text(alphabet="0123456789-, x=bytes", max_size=20), size=SIZES)
def test_whatever_is_asked_for_lies_in_the_file(text: str, size: int) -> None:
    try:
        span = parse_range(f"bytes={text}", size)
    except Unsatisfiable:
        return
    assert span is None or 0 <= span.start < span.end <= size

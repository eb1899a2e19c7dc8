"""The log of kv: whatever its last bytes are, the records before them are read, and no other."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servers.kv.log import HEAD, MAGIC, NUMBER, VALUE, Damaged, Record, records

numbers = st.integers(0, 2**64 - 1)
some = st.lists(
    st.builds(Record, st.integers(1, 4), st.text(max_size=9), numbers, st.binary(), st.binary()),
    min_size=1,
    max_size=5,
)


def sealed(content: list[Record]) -> tuple[bytes, list[int]]:
    """Their log, and where each of them ends."""
    log, ends = MAGIC, []
    for record in content:
        log += record.sealed(len(log))
        ends.append(len(log))
    return log, ends


def read(log: bytes) -> list[Record]:
    return [record for record, _ in records(log)]


@given(some)
def test_what_was_written_is_read(content: list[Record]) -> None:
    log, ends = sealed(content)
    assert list(records(log)) == list(zip(content, ends, strict=True))
    assert [a.size for a in content] == [
        end - begin for begin, end in zip([len(MAGIC), *ends], ends, strict=False)
    ]


@given(some)
def test_a_log_cut_at_any_byte_has_the_whole_records_before_it(content: list[Record]) -> None:
    log, ends = sealed(content)
    for size in range(len(MAGIC), len(log) + 1):
        assert read(log[:size]) == content[: sum(end <= size for end in ends)]


@given(some)
def test_a_last_record_of_which_only_a_part_was_stored_is_not_there(content: list[Record]) -> None:
    log, ends = sealed(content)
    for size in range([len(MAGIC), *ends][-2], len(log)):
        torn = log[:size].ljust(len(log), b"\0")
        assert read(torn) == content[: len(content) - (torn != log)]


@given(some, st.data())
def test_a_wrong_last_record_is_dropped_and_a_wrong_one_before_is_damage(
    content: list[Record], data: st.DataObject
) -> None:
    log, ends = sealed(content)
    bodies = [
        (n, at)
        for n, (begin, end) in enumerate(zip([len(MAGIC), *ends], ends, strict=False))
        for at in range(begin + HEAD.size, end)
    ]
    which, at = data.draw(st.sampled_from(bodies))
    wrong = bytearray(log)
    wrong[at] ^= 1 << data.draw(st.integers(0, 7))
    if which == len(content) - 1:
        assert read(bytes(wrong)) == content[:-1]
    else:
        with pytest.raises(Damaged, match=f"byte {[len(MAGIC), *ends][which]} of"):
            read(bytes(wrong))


def test_a_record_counts_only_where_it_was_written() -> None:
    log, _ = sealed([Record(VALUE, "a", 0, b"one", b"1"), Record(NUMBER, "b", 7, b"", b"2")])
    second = log[-Record(NUMBER, "b", 7, b"", b"2").size :]
    assert read(MAGIC + second) == []


@pytest.mark.parametrize("log", [b"", b"ukern", b"another file that is long enough"])
def test_another_file_is_no_journal(log: bytes) -> None:
    with pytest.raises(Damaged, match="begin"):
        read(log)

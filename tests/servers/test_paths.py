"""One spelling per file, and nothing that littlefs would understand differently."""

from __future__ import annotations

import pytest

from servers.fs.paths import check_path, is_under, parents
from ukernel.abi.services import BadName


@pytest.mark.parametrize("path", ["/", "/a", "/a/b c/ä.txt", "/...", "/" + "x" * 255])
def test_good_paths(path: str) -> None:
    check_path(path)


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("", "not absolute"),
        ("a/b", "not absolute"),
        ("/a/", "part ''"),
        ("//a", "part ''"),
        ("/a/./b", "part '.'"),
        ("/a/../b", "part '..'"),
        ("/a\0b", "zero byte"),
        ("/\ud800", "not Unicode"),
        ("/" + "x" * 256, "longer than 255"),
        ("/" + "ä" * 128, "longer than 255"),
        ("/x" * 513, "at most 1024"),
    ],
)
def test_bad_paths_say_why(path: str, why: str) -> None:
    with pytest.raises(BadName, match=why):
        check_path(path)


def test_parents_and_what_lies_under() -> None:
    assert parents("/a/b/c") == ["/a", "/a/b"]
    assert parents("/a") == []
    assert is_under("/a", "/a")
    assert is_under("/a/b", "/a")
    assert not is_under("/ab", "/a")
    assert is_under("/a", "/")

"""target: no spelling of a request leads out of the root, or into a name with two meanings."""

from __future__ import annotations

from http import HTTPStatus

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from servers.fs.paths import check_path
from servers.httpd.pages import MOST_ENTRIES, listing, notice
from servers.httpd.target import BadTarget, Target, parse_target
from ukernel.abi.services import DIRECTORY, FILE, BadName, Entry


@pytest.mark.parametrize(
    ("target", "path", "directory"),
    [
        (b"/", "", True),
        (b"/a", "/a", False),
        (b"/a/", "/a", True),
        (b"//a///b", "/a/b", False),
        (b"/./a/.", "/a", True),
        (b"/a%20b?x=../..", "/a b", False),
        (b"/%C3%A4", "/ä", False),
        (b"/a%", "/a%", False),
        (b"http://host:80/a", "/a", False),
        (b"HTTP://host", "", True),
        (b"/...", "/...", False),
        (b"/%252e%252e", "/%2e%2e", False),
    ],
)
def test_a_target_is_a_path(target: bytes, path: str, directory: bool) -> None:
    found = parse_target(target)
    assert (found.path, found.directory) == (path, directory)


@pytest.mark.parametrize(
    "target",
    [
        b"/..", b"/../etc/passwd", b"/a/../b", b"/%2e%2e/a", b"/.%2E/a", b"/%2e./", b"/a%2fb",
        b"/a%00b", b"/%ff", b"*", b"a", b"https://host/a", b"host:80", b"/%c0%ae%c0%ae/a",
    ],
)  # fmt: skip
def test_what_names_nothing(target: bytes) -> None:
    with pytest.raises(BadTarget):
        parse_target(target)


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet=st.sampled_from("/.%2eEfF05cCaz?\\:"), max_size=24))
def test_every_path_has_parts_that_go_down(text: str) -> None:
    try:
        found = parse_target(b"/" + text.encode())
    except BadTarget:
        return
    assert not {"", ".", ".."} & set(found.parts)
    try:
        check_path("/www" + found.path)
    except BadName:
        raise AssertionError(found) from None
    assert parse_target(found.url.encode()) == Target(found.parts, True)


HOSTILE = "<script>\"&'/".replace("/", "") + ": %2e ä"


def test_a_listing_says_names_as_text_and_leads_to_them() -> None:
    entries = [Entry(HOSTILE, FILE, 7), Entry("sub", DIRECTORY, 0)]
    html = listing(Target(("<dir>",), True), entries, more=True).decode()
    assert "<script>" not in html
    assert "<dir>" not in html
    assert 'href="./sub/"' in html
    assert "7 bytes" in html
    assert "and more" in html
    link = html.split('href="./')[1].split('"')[0]
    assert parse_target(f"/{link}".encode()).parts == (HOSTILE,)


def test_the_root_has_nothing_above_it() -> None:
    assert b"../" not in listing(Target((), True), [], more=False)
    assert MOST_ENTRIES >= 128


def test_a_notice_is_text() -> None:
    assert b"&lt;b&gt;" in notice(HTTPStatus.NOT_FOUND, "<b>")

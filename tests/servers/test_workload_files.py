"""The file client: what it writes, reads back and finds, and what it says when that goes wrong."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable

import pytest

from launcher.chaos.evidence import FAIL, INFO, OK
from servers.workload.files import KEPT, WINDOWS, FilesRun
from tests.servers.workload import Whims, Windows, client_of, told
from ukernel.abi.errors import DeadlinePassed, Unavailable
from ukernel.abi.interface import Lent
from ukernel.abi.services import (
    CREATE,
    DIRECTORY,
    FILE,
    PAGE,
    READ_ONLY,
    TRUNCATE,
    DeviceFailed,
    Entry,
    File,
    FileSystem,
    NoSuchFile,
    Stat,
)


class Tree(FileSystem):
    """Files of whole contents, in memory."""

    def __init__(self, memory: Windows) -> None:
        self.memory = memory
        self.whims = Whims()
        self.files: dict[str, bytes] = {}
        self.directories: set[str] = set()
        self.opened: list[tuple[str, int]] = []

    def open(self, path: str, mode: int) -> File:
        with self.whims.around("open"):
            if mode & CREATE and path.rpartition("/")[0] in self.directories:
                self.files.setdefault(path, b"")
            if path not in self.files:
                raise NoSuchFile(path)
            if mode & TRUNCATE:
                self.files[path] = b""
            self.opened.append((path, mode))
            return Opened(self, path, mode)

    def mkdir(self, path: str) -> None:
        with self.whims.around("mkdir"):
            self.directories.add(path)

    def entries(self, path: str, start: int) -> list[Entry]:
        if path not in self.directories:
            raise NoSuchFile(path)
        names = sorted(name.rpartition("/")[2] for name in self.files)
        return [Entry(name, FILE, 0) for name in names[start : start + PAGE]]

    def stat(self, path: str) -> Stat:
        return Stat(DIRECTORY, 0)


class Opened(File):
    def __init__(self, tree: Tree, path: str, mode: int) -> None:
        self.tree = tree
        self.path = path
        self.mode = mode

    def read(self, offset: int, into: Lent) -> int:
        with self.tree.whims.around("read"):
            view = self.tree.memory.view(into)
            data = self.tree.files[self.path][offset : offset + len(view)]
            view[: len(data)] = data
            return len(data)

    def write(self, offset: int, data: Lent) -> int:
        assert self.mode != READ_ONLY
        with self.tree.whims.around("write"):
            new = bytes(self.tree.memory.view(data))
            self.tree.files[self.path] = new + self.tree.files[self.path][len(new) :]
            return len(new)


def failing(*wanted: tuple[str, bool], error: Exception) -> Callable[[str, bool], None]:
    """A whim: these operations, before or after they are done."""

    def whim(op: str, done: bool) -> None:
        if (op, done) in wanted:
            raise error

    return whim


def client_and_tree(**options: int) -> tuple[FilesRun, Tree]:
    memory = Windows()
    tree = Tree(memory)
    return client_of(FilesRun, tree, memory, **options), tree


def last_written(client: FilesRun) -> dict[str, str]:
    return {op.key: op.value for op in told(client) if op.op == "write" and op.outcome == OK}


def test_files_are_written_over_and_over_and_read_back() -> None:
    client, tree = client_and_tree(files=10, size=500)
    assert all(client.step() for _ in range(400))
    written: dict[str, str] = {}
    for op in told(client):
        if op.op == "read":
            assert op.value == written[op.key]
        else:
            assert op.value not in written.values()
            written[op.key] = op.value
    assert written == {p: hashlib.sha256(c).hexdigest() for p, c in tree.files.items()}
    assert set(written) == {f"/client/{n}" for n in range(10)}
    assert {len(content) for content in tree.files.values()} == {500}
    assert client.found() == written


def test_some_files_stay_open_and_are_written_without_being_opened_again() -> None:
    client, tree = client_and_tree(files=50)
    assert all(client.step() for _ in range(300))
    assert len(client.kept) == KEPT
    writes = [op for op in told(client) if op.op == "write"]
    assert len([mode for _, mode in tree.opened if mode == CREATE]) < 0.85 * len(writes)
    assert {mode for _, mode in tree.opened} == {CREATE, READ_ONLY}


def test_the_same_seed_does_the_same() -> None:
    runs = []
    for seed in (1, 1, 2):
        client, _ = client_and_tree(files=5, seed=seed)
        for _ in range(30):
            client.step()
        runs.append([(op.op, op.key, op.value) for op in told(client)])
    assert runs[0] == runs[1] != runs[2]


def test_wrong_bytes_are_recorded_as_they_were_read() -> None:
    client, tree = client_and_tree(files=1)
    client.step()
    path = "/client/0"
    for content, value in (
        (b"wrong", hashlib.sha256(b"wrong").hexdigest()),
        (tree.files[path] + b"!", hashlib.sha256(tree.files[path] + b"!").hexdigest()),
        (b"", ""),
    ):
        tree.files[path] = content
        assert client._read(path)
        assert (told(client)[-1].outcome, told(client)[-1].value) == (OK, value)
    client.kept.clear()
    del tree.files[path]
    assert client._read(path)
    assert told(client)[-1].value == ""


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (DeadlinePassed("late"), INFO),
        (DeviceFailed("flush"), INFO),
        (Unavailable("fs is failed"), FAIL),
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("op", ["mkdir", "open", "write"])
def test_whatever_part_fails_the_whole_has_one_outcome(
    op: str, error: Exception, outcome: str
) -> None:
    client, tree = client_and_tree(files=1)
    tree.whims.next = failing((op, False), error=error)
    assert not client.step()
    assert not client.kept
    assert [(o.op, o.outcome) for o in told(client)] == [("write", outcome)]
    assert client.found() == {}  # made perhaps, and never written
    tree.whims.next = Whims().next
    assert client.step()
    assert told(client)[-1].outcome == OK
    assert client.found() == last_written(client)


def test_what_was_acknowledged_is_never_cut_before_it_is_written_over() -> None:
    client, tree = client_and_tree(files=3)
    for _ in range(20):
        assert client.step()
    before = dict(tree.files)
    tree.whims.next = failing(("write", False), error=Unavailable("fs is failed"))
    for _ in range(20):
        client.step()
    assert tree.files == before


def test_memory_of_a_call_in_doubt_is_never_written_again() -> None:
    client, tree = client_and_tree(files=3)
    assert all(client.step() for _ in range(WINDOWS))
    late: list[tuple[memoryview, bytes]] = []
    turns = itertools.cycle([False, False, True])

    def whim(op: str, done: bool) -> None:
        if op in ("read", "write") and done and next(turns):
            raise DeadlinePassed("late")

    tree.whims.next = whim
    for _ in range(60):
        count = len(tree.memory.taken_back)
        client.step()
        late += [(view, bytes(view)) for view in tree.memory.taken_back[count:]]
    assert len(late) > 10
    assert all(view == content for view, content in late)
    assert len(tree.memory.made) <= WINDOWS


def test_many_files_are_found_and_what_cannot_be_read_is_named() -> None:
    client, tree = client_and_tree(size=10)
    tree.directories.add("/client")
    tree.files = {f"/client/{n}": bytes(100 * n) for n in range(2 * PAGE)}
    found = client.found()
    assert found.keys() == tree.files.keys() - {"/client/0"}
    assert found["/client/7"] == hashlib.sha256(bytes(700)).hexdigest()
    tree.whims.next = failing(("read", False), error=DeviceFailed("sector 1"))
    assert set(client.found().values()) == {"DeviceFailed: sector 1"}


def test_nothing_is_found_where_nothing_was_done() -> None:
    client, _ = client_and_tree()
    assert client.found() == {}

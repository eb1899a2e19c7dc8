"""shell: what it does to files and says; deaths of the file system show in neither."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from launcher.client import Client
from servers.shell.parser import UsageError, make_parser, parse_line
from servers.shell.volume import ATTEMPTS, Volume
from tests.conftest import TIMEOUT_S, Ukernel
from ukernel.abi.errors import DeadUnknown
from ukernel.abi.services import FILE, FileSystem, NoSuchFile, Stat

# --- settling what may not be done twice ---------------------------------------------------------


class Names:
    """A file system of names alone. Dies `before` or `after` doing the first `deaths` requests."""

    def __init__(self, names: set[str], deaths: int, when: str) -> None:
        self.names = names
        self.deaths = deaths
        self.when = when
        self.done = 0

    def stat(self, path: str) -> Stat:
        if path not in self.names:
            raise NoSuchFile(path)
        return Stat(FILE, 0)

    def rename(self, old: str, new: str) -> None:
        self._perform(lambda: self._rename(old, new))

    def remove(self, path: str) -> None:
        self._perform(lambda: self._remove(path))

    def _rename(self, old: str, new: str) -> None:
        self._remove(old)
        self.names.add(new)

    def _remove(self, path: str) -> None:
        self.stat(path)
        self.names.remove(path)
        self.done += 1

    def _perform(self, do: Callable[[], None]) -> None:
        dies = self.deaths > 0
        self.deaths -= dies
        if not dies or self.when == "after":
            do()
        if dies:
            raise DeadUnknown("the server died while it had the call")


def volume_of(fs: Names) -> Volume:
    return Volume(cast(FileSystem, fs), cast(Any, None))


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("deaths", [0, 1, 3])
def test_a_death_neither_repeats_nor_loses_a_change(when: str, deaths: int) -> None:
    fs = Names({"/old", "/new", "/gone"}, deaths, when)
    volume_of(fs).rename("/old", "/new")
    fs.deaths = deaths
    volume_of(fs).remove("/gone")
    assert (fs.names, fs.done) == ({"/new"}, 2)


def test_what_is_not_there_is_said_and_not_taken_as_done() -> None:
    with pytest.raises(NoSuchFile):
        volume_of(Names(set(), 0, "")).remove("/gone")
    with pytest.raises(NoSuchFile):
        volume_of(Names({"/new"}, 1, "before")).rename("/old", "/old2")


def test_it_gives_up_when_every_life_dies() -> None:
    with pytest.raises(DeadUnknown):
        volume_of(Names({"/a"}, ATTEMPTS, "before")).remove("/a")


# --- the command line ---------------------------------------------------------------------------


def test_lines_of_a_script() -> None:
    parser = make_parser()
    assert parse_line(parser, "  # nothing here") is None
    line = parse_line(parser, "put 'a b' /c  # a comment")
    assert line is not None
    assert (line.command, line.local, line.remote, line.recursive) == ("put", "a b", "/c", False)
    for wrong in ("dance", "mv /a", "cat 'unclosed", "script other", "ls -z"):
        with pytest.raises(UsageError):
            parse_line(parser, wrong)


# --- inside a system ----------------------------------------------------------------------------


def test_trees_scripts_and_errors(ukernel: Ukernel, storage: str, tmp_path: Path) -> None:
    tree = {"a.txt": b"a", "sub/b.bin": bytes(range(256)) * 1500, "sub/deep/empty": b""}
    for name, content in tree.items():
        path = tmp_path / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    _put_a_tree(ukernel, tree)
    _run_scripts(ukernel, tmp_path)
    _tell_errors(ukernel, tmp_path)
    assert json.loads(ukernel("fs", "rm", "-r", "/t", "--json").stdout.splitlines()[0]) == {
        "command": "rm", "removed": 6
    }  # fmt: skip
    assert ukernel("fs", "ls").stdout == "kept\n"


def _put_a_tree(ukernel: Ukernel, tree: dict[str, bytes]) -> None:
    assert "put -r copies it" in ukernel("fs", "put", "tree", "/t", status=2).stderr
    lines = ukernel("fs", "put", "-r", "tree", "/t", "--json").stdout.splitlines()
    put, calls = map(json.loads, lines)
    size = sum(map(len, tree.values()))
    assert put == {"command": "put", "files": 3, "bytes": size}
    assert calls["calls"]["failed"] == calls["calls"]["unknown"] == 0
    listed = ukernel("fs", "sha256", *(f"/t/{name}" for name in tree)).stdout
    for name, content in tree.items():
        assert f"{hashlib.sha256(content).hexdigest()}  /t/{name}\n" in listed
    assert ukernel("fs", "ls", "-l", "/t/sub").stdout.split() == [
        "f", "384000", "b.bin", "d", "0", "deep/"
    ]  # fmt: skip


def _run_scripts(ukernel: Ukernel, tmp_path: Path) -> None:
    script = "mkdir /s\nput tree/a.txt /s/\nrm /nope\nmv /s/a.txt /kept\nrm /s\n"
    stopped = ukernel("fs", "script", "-", stdin=script, status=1)
    assert stopped.stderr == "shell: -:3: /nope: no such file\n"
    assert ukernel("fs", "ls", "/s").stdout == "a.txt\n"
    (tmp_path / "script").write_text(script)
    done = ukernel("fs", "script", "--keep-going", "--json", "script", status=1)
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert [t.get("error") for t in told[:-1]] == [None, None, "NoSuchFile", None, None]
    assert told[-1].keys() == {"calls"}
    wrong = ukernel("fs", "script", "-", stdin="ls\ndance\n", status=2)
    assert wrong.stderr.startswith("shell: -:2: ")


def _tell_errors(ukernel: Ukernel, tmp_path: Path) -> None:
    for words, told in (
        (["cat", "/t"], "shell: /t: is a directory\n"),
        (["rm", "/t"], "shell: /t: the directory is not empty\n"),
        (["ls", "/nope"], "shell: /nope: no such file\n"),
        (["get", "/nope", "there"], "shell: /nope: no such file\n"),
        (["put", "nope", "/x"], "shell: nope: No such file or directory\n"),
        (["put", "tree/a.txt", "/no/such"], "shell: /no/such: no such file\n"),
    ):
        assert ukernel("fs", *words, status=1).stderr == told
    assert "relative" in ukernel("fs", "cat", "relative", status=1).stderr
    assert "--json" in ukernel("fs", "cat", "--json", "/kept", status=2).stderr
    assert not (tmp_path / "there").exists()


def test_a_script_goes_through_deaths_of_the_file_system(
    storage: str, tmp_path: Path, ukernel: Ukernel
) -> None:
    (tmp_path / "f").write_bytes(b"some text")
    lines = [f"put f /{n}\nmv /{n} /{n}.moved\nrm /{n}.moved" for n in range(20)]
    (tmp_path / "script").write_text("\n".join([*lines, "put f /last"]))
    command = [sys.executable, "-m", "launcher.cli", "fs", "script", "--json", "script"]
    with (
        Client() as client,
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path) as shell,
    ):
        assert shell.stdout is not None
        told = []
        for number, line in enumerate(shell.stdout):
            told.append(json.loads(line))
            if number % 7 == 3 and number < 60:
                client.ask("kill", ("fs", "disk")[number % 2], 9)
        assert shell.wait(TIMEOUT_S) == 0
        lives = {row["name"]: row["life"] for row in client.ask("ps")}
    assert lives["fs"] + lives["disk"] > 2
    assert len(told) == 62
    assert not any("error" in line for line in told)
    assert told[-1]["calls"]["failed"] == 0
    assert ukernel("fs", "ls").stdout == "last\n"

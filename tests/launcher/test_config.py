"""config: every rule refuses its broken file at the right place; good files come out whole."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from launcher.config import ConfigError, Problem, SystemFile, load
from launcher.reader import MAX_BYTES, MAX_VALUES
from ukernel.abi.manifest import Manifest, VirtioBlk

BAD_FILES = sorted((Path(__file__).parent.parent / "bad_configs").glob("*.yaml"))
EXPECT = re.compile(r"# expect: (\d+):(\d+): (.+)")

Write = Callable[[str | bytes], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a system file; a module `program` that it may run lies beside it."""
    (tmp_path / "program.py").write_text("raise SystemExit('imported')\n")

    def write_system(text: str | bytes) -> Path:
        path = tmp_path / "system.yaml"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    return write_system


def refused(path: Path) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load(path)
    return caught.value


@pytest.mark.parametrize("path", BAD_FILES, ids=lambda path: path.stem)
def test_bad_file_is_refused_with_exactly_its_problems(path: Path) -> None:
    wanted = [EXPECT.fullmatch(line) for line in path.read_text().splitlines()]
    expected = [(int(m[1]), int(m[2]), m[3]) for m in wanted if m]
    problems = refused(path).problems
    assert expected
    assert [(p.line, p.column) for p in problems] == [(line, col) for line, col, _ in expected]
    for problem, (_, _, text) in zip(problems, expected, strict=True):
        assert text in problem.text


def test_reading_imports_no_server() -> None:
    for path in BAD_FILES:
        refused(path)
    assert "program" not in sys.modules


def test_message_is_one_line_a_problem(write: Write) -> None:
    path = write("system: s\nservers: {a: {run: program, window: 0, priority: -1}}\n")
    assert str(refused(path)).splitlines() == [
        f"{path}:2:37: servers.a.window: expected at least 1, got 0",
        f"{path}:2:50: servers.a.priority: expected at least 0, got -1",
    ]


def test_file_that_cannot_be_read(tmp_path: Path) -> None:
    assert "cannot be read: No such file" in str(refused(tmp_path / "absent.yaml"))
    assert "cannot be read: Is a directory" in str(refused(tmp_path))
    assert "cannot be read" in str(refused(Path("nul\0nul")))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"system: s\nx: \xff\n", "2:4: not UTF-8 text"),
        (b"system: s\nx: \x00\n", "2:4: not YAML: unacceptable character"),
        (b"#" * (MAX_BYTES + 1), "1:1: larger than"),
        (b"- x\n" * (MAX_VALUES + 1), f"{MAX_VALUES}:3: more than {MAX_VALUES} values"),
        (b"x: " + b"9" * 5000, "1:1: the file: unknown key 'x'"),
    ],
)
def test_bytes_that_are_no_system_file(write: Write, content: bytes, message: str) -> None:
    assert message in str(refused(write(content)))


def test_cycles_are_bounded(write: Write) -> None:
    names = [f"s{number}" for number in range(60)]
    servers = "".join(
        f"  {name}: {{run: program, serves: echo, calls: [{', '.join(set(names) - {name})}]}}\n"
        for name in names
    )
    problems = refused(write(f"system: s\nservers:\n{servers}")).problems
    assert len(problems) == 10


MINIMAL = "system: s\nservers:\n  a:\n    run: program\n"

WHOLE = """\
system: whole
hardware:
  disk0: {model: virtio-blk, image: d.img, size: &size 64MiB, cache: 16KiB}
  disk1: {model: virtio-blk, image: /abs/d.img, size: *size, read_only: true}
  rng0: {model: virtio-rng, seed: 7}
servers:
  app:
    run: program
    calls:
      - fs
      - disk: {rights: [call, grant]}
    args: {verbose: true, level: 3, names: [a, b], ratio: 0.5}
    start: demand
  fs: {run: program, serves: file, calls: [disk], state: persistent}
  disk:
    run: program
    serves: block
    devices: [disk0, disk1]
    cores: [0]
    policy: fifo
    memory: 1GiB
    restart: {when: always, within_s: 2}
"""


@pytest.fixture
def whole(write: Write, monkeypatch: pytest.MonkeyPatch) -> SystemFile:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0})
    return load(write(WHOLE))


def test_defaults(write: Write) -> None:
    manifest = load(write(MINIMAL)).manifest
    server = manifest.servers["a"]
    assert manifest.hardware == {}
    assert (server.serves, server.devices, server.calls, server.args) == (None, (), {}, {})
    assert (server.priority, server.policy, server.cores, server.memory) == (
        100,
        "other",
        None,
        None,
    )
    assert (server.window, server.state, server.start) == (8, "stateless", "boot")
    assert (server.spawn, server.standby, server.critical) == ("zygote", False, False)
    assert (server.restart.when, server.restart.max_restarts) == ("crashed", 5)
    assert server.restart.within_s == 10.0


SUPERVISED = """\
system: supervised
servers:
  disk:
    run: program
    serves: block
    restart: {strategy: rest_for_one, backoff: &equal {first_ms: 70, max_ms: 70}}
  fs:
    run: program
    calls: [disk]
    state: client_held
    restart: {strategy: one_for_all, backoff: *equal}
  log: {run: program, standby: true, spawn: cold, heartbeat: {period_ms: 0}}
  app: {run: program, standby: true, critical: true, restart: {when: always, ready_timeout_s: 3}}
  shell: {run: program, start: demand}
groups:
  storage: [fs, disk]
  alone: [app]
  nobody: []
on_kernel_death: reboot
"""


def test_supervision(write: Write) -> None:
    manifest = load(write(SUPERVISED)).manifest
    disk, log, app = (manifest.servers[name] for name in ("disk", "log", "app"))
    assert manifest.groups == {"storage": ("fs", "disk"), "alone": ("app",), "nobody": ()}
    assert (disk.restart.strategy, disk.restart.backoff.max_ms) == ("rest_for_one", 70)
    assert (log.standby, log.spawn, log.heartbeat.period_ms) == (True, "cold", 0)
    assert (app.critical, app.restart.when, app.restart.ready_timeout_s) == (True, "always", 3)
    assert manifest.on_kernel_death == "reboot"


def test_values_come_out_typed(whole: SystemFile) -> None:
    app, disk = whole.manifest.servers["app"], whole.manifest.servers["disk"]
    assert {name: link.rights for name, link in app.calls.items()} == {
        "fs": ("call",),
        "disk": ("call", "grant"),
    }
    assert app.args == {"verbose": True, "level": 3, "names": ["a", "b"], "ratio": 0.5}
    assert disk.cores == (0,)
    assert disk.memory == 1 << 30
    assert disk.restart.within_s == 2.0


def test_sizes_are_bytes(whole: SystemFile) -> None:
    disk = whole.manifest.hardware["disk0"]
    assert isinstance(disk, VirtioBlk)
    assert (disk.size, disk.cache) == (64 << 20, 16 << 10)


def test_image_path_is_relative_to_the_file(whole: SystemFile) -> None:
    assert whole.image_path("disk0") == whole.path.parent / "d.img"
    assert whole.image_path("disk1") == Path("/abs/d.img")
    with pytest.raises(LookupError, match="no disk 'rng0'"):
        whole.image_path("rng0")


def test_where_is_the_line_of_a_key(whole: SystemFile) -> None:
    assert whole.where("servers", "app", "calls") == f"{whole.path}:9"
    assert whole.where("servers", "app", "calls", "fs") == f"{whole.path}:10"
    assert whole.where("servers", "app", "calls", "disk", "rights") == f"{whole.path}:11"


def test_where_an_absent_key_would_go(whole: SystemFile) -> None:
    assert whole.where("servers", "disk", "calls") == f"{whole.path}:15"
    assert whole.where("servers", "nic") == f"{whole.path}:6"
    assert whole.where("nothing", "like", "it") == f"{whole.path}:1"


def test_module_beside_the_file_may_define_the_interface(write: Write, tmp_path: Path) -> None:
    (tmp_path / "my_words.py").write_text(
        "from ukernel.abi.interface import Interface, op\n"
        "class Words(Interface):\n"
        "    @op(1)\n"
        "    def say(self, word: str) -> None: 'Say it.'\n"
    )
    path = sys.path.copy()
    load(write(MINIMAL + "    serves: my_words:Words\n"))
    assert sys.path == path


@pytest.mark.parametrize("inner", ["__init__.py", None])
def test_module_may_lie_in_a_package(write: Write, tmp_path: Path, inner: str | None) -> None:
    package = tmp_path / "mine" / "deeper"
    package.mkdir(parents=True)
    (package / "server.py").touch()
    if inner:
        (package / inner).write_text("raise SystemExit('imported')\n")
    load(write("system: s\nservers: {a: {run: mine.deeper.server}}\n"))


texts = st.text(max_size=8) | st.sampled_from(
    ["system", "servers", "hardware", "run", "calls", "model", "virtio-blk", "size", "image", "a",
     "program", "echo", "serves", "devices", "restart", "args", "[key]", "1MiB", "cores", "rights"]
)  # fmt: skip
scalars = st.none() | st.booleans() | st.integers() | st.floats() | texts
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4)
)
servers = st.dictionaries(
    texts, st.dictionaries(st.sampled_from([*Manifest.model_fields, "run", "calls"]), values)
)
systems = values | st.fixed_dictionaries(
    {"system": texts, "servers": servers | values, "x": values}
)
any_time = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def problems_of(path: Path) -> list[Problem]:
    """Whatever the file holds it is a system, or a ConfigError with something to say."""
    try:
        load(path)
    except ConfigError as error:
        return error.problems or [Problem("", 0, 0, "a ConfigError without a problem")]
    return []


@any_time
@given(systems)
def test_any_structure_is_a_system_or_refused(write: Write, value: Any) -> None:
    path = write("")
    with path.open("wb") as file:
        YAML(typ="safe", pure=True).dump(value, file)
    assert all(problem.line > 0 and problem.column > 0 for problem in problems_of(path))


@any_time
@given(st.binary(max_size=64) | st.text(alphabet="ab:-[]{}&*!%|>'\"#\n\t ?,<0~\\U").map(str.encode))
@example(b'"\\UFFFFFFFF"')
@example(b"%YAML 1.1\n---\nsystem: yes\n")
@example(b"servers: {a: {run: x, args: {_: 0x_, b: ._}}}")
@example(b"? [a]\n: b\n")
@example(b"servers: {a: &a {restart: {within_s: " + b"9" * 400 + b"}}}")
def test_any_bytes_are_a_system_or_refused(write: Write, content: bytes) -> None:
    problems = problems_of(write(content))
    assert all(problem.line > 0 and problem.column > 0 for problem in problems)

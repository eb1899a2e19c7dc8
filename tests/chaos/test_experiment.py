"""experiment: every rule refuses its broken file at the right place; good files come out whole."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from hwsim.faults import possible
from hwsim.hardware import Hardware
from hwsim.timer import Timer
from launcher.chaos.catalogue import SECTIONS, Section, described
from launcher.chaos.checkers import CHECKERS
from launcher.chaos.experiment import Experiment, ExperimentFile, load
from launcher.chaos.fit import BREAKS
from launcher.chaos.values import keys_of
from launcher.chaos.workload import RUNS, Workload
from launcher.source import ConfigError, Problem
from servers.workload import session
from servers.workload.bulk import BulkRun
from tests.conftest import CONFIGS, Ukernel
from ukernel.abi.faults import DEVICE_FAULTS, MESSAGE_FAULTS
from ukernel.abi.manifest import HARDWARE_MODELS
from ukernel.lib.virtio.blk import Blk
from ukernel.lib.virtio.console import Console
from ukernel.lib.virtio.net import Net
from ukernel.lib.virtio.rng import Rng

BAD = Path(__file__).parent.parent / "bad_experiments"
BAD_FILES = sorted(BAD.glob("*.yaml"))
EXPECT = re.compile(r"# expect: (\d+):(\d+): (.+)")

SYSTEM = """\
system: small
hardware:
  disk0: {model: virtio-blk, image: d.img, size: 1MiB}
servers:
  disk: {run: servers.disk, serves: block, devices: [disk0]}
  fs: {run: servers.fs, serves: file, calls: [disk], memory: 64MiB}
  echo: {run: servers.echo, serves: "ukernel.abi.services:Echo"}
  shell: {run: servers.shell, calls: [fs], start: demand}
"""
WHOLE = """\
version: 1
title: block driver killed under load
system: system.yaml
seed: 4000
workload:
  - {client: writer, run: files, files: 200, size: 16KiB, verify: sha256, seed: 7}
  - {client: talker, run: echo, to: echo, bystander: true, every_ms: 5}
steady_state:
  - {probe: all_ready}
  - {probe: p99_ms, client: writer, max: 50}
predict: {down: [disk], degraded: [fs], untouched: [echo, talker]}
nemesis:
  - {at: 1s, every: 500ms, count: 20, do: kill, target: disk, signal: KILL}
  - {at: 12, do: pause, target: [fs, disk], for: 300ms}
  - {at: 14s, do: message, link: fs->disk, fault: delay, ms: 20, jitter_ms: 5, probability: 0.3}
  - {at: 15s, do: message, link: writer->fs, fault: drop}
  - {at: 1m, every: 1.5s, until: 63s, do: kill_together, target: '*'}
  - {at: 1m, do: leak, target: '*'}
  - {at: 1m, do: dma_abuse, target: '*'}
quiet: 2s
checkers:
  - one_outcome_per_call
  - {recovery_ms: {p50: 10, p99: 100}}
  - no_leak: {fds: 0}
  - {bystanders: {availability: 1.0}}
rollbacks: [clear_faults]
reboot: false
"""

URL = "http://10.77.0.2/big"
CARD = "  nic0: {model: virtio-net, backend: userns, host_address: 10.77.0.1/24}\nservers:"

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes an experiment file; `system.yaml` lies beside it."""
    (tmp_path / "system.yaml").write_text(SYSTEM)

    def write_experiment(text: str) -> Path:
        path = tmp_path / "experiment.yaml"
        path.write_text(text)
        return path

    return write_experiment


@pytest.fixture
def whole(write: Write) -> ExperimentFile:
    return load(write(WHOLE))


def refused(path: Path) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load(path)
    return caught.value


@pytest.mark.parametrize("path", BAD_FILES, ids=lambda path: path.stem)
def test_bad_file_is_refused_with_exactly_its_problems(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(BAD)
    wanted = [EXPECT.fullmatch(line) for line in path.read_text().splitlines()]
    expected = [(int(m[1]), int(m[2]), m[3]) for m in wanted if m]
    problems = refused(Path(path.name)).problems
    assert expected
    assert [(p.line, p.column) for p in problems] == [(line, col) for line, col, _ in expected]
    for problem, (_, _, text) in zip(problems, expected, strict=True):
        assert text in problem.text


# --- a good file --------------------------------------------------------------------------------


def test_values_come_out_typed(whole: ExperimentFile) -> None:
    experiment = whole.experiment
    kill, pause, delay = experiment.nemesis[:3]
    assert (kill.at_s, kill.every_s, kill.count, kill.until_s) == (1.0, 0.5, 20, None)
    assert (pause.at_s, pause.model_dump()["for_s"]) == (12.0, 0.3)
    assert delay.model_dump(exclude_none=True) == {
        "do": "message", "at_s": 14.0, "link": "fs->disk", "fault": "delay", "ms": 20,
        "jitter_ms": 5, "probability": 0.3, "for_s": 1.0,
    }  # fmt: skip
    assert experiment.quiet_s == 2.0
    assert experiment.rollbacks == ("clear_faults",)
    assert not experiment.reboot
    assert whole.text == WHOLE
    assert whole.where("nemesis", 2) == f"{whole.path}:15"


def test_defaults(write: Write) -> None:
    text = "version: 1\ntitle: t\nsystem: system.yaml\nnemesis: []\ncheckers: [kernel_alive]\n"
    experiment = load(write(text)).experiment
    assert (experiment.seed, experiment.quiet_s, experiment.reboot) == (0, 1.0, True)
    assert experiment.rollbacks == ("resume_all", "clear_faults")
    assert (experiment.predict, experiment.sweep) == (None, None)


def test_checkers_have_the_parameters_of_the_file(whole: ExperimentFile) -> None:
    asked = {checker.checker: checker.parameters() for checker in whole.experiment.checkers}
    assert asked == {
        "one_outcome_per_call": {},
        "recovery_ms": {"p50": 10, "p99": 100},
        "no_leak": {"fds": 0, "rss_mib": 8, "caps": 8},
        "bystanders": {"availability": 1.0},
    }


def test_star_is_everybody_whom_the_action_suits(whole: ExperimentFile) -> None:
    targets = [action.model_dump()["target"] for action in whole.experiment.nemesis[4:]]
    assert targets == [("disk", "fs", "echo"), ("fs",), ("disk",)]


def test_clients_know_their_server(whole: ExperimentFile) -> None:
    writer, talker = whole.experiment.workload
    assert (writer.to, talker.to) == ("fs", "echo")
    assert writer.argv(seed=1)[:2] == ["files", "writer"]
    assert set(writer.argv(seed=1)[2:]) == {
        "to=fs",
        "files=200",
        "size=16384",
        "verify=sha256",
        "seed=7",
    }
    assert talker.argv(seed=1) == ["echo", "talker", "seed=1", "to=echo", "every_ms=5"]
    assert "seed" not in " ".join(talker.argv())


def test_a_download_knows_its_card_and_its_file(write: Write, tmp_path: Path) -> None:
    (tmp_path / "system.yaml").write_text(SYSTEM.replace("servers:", CARD, 1))
    fetch = {"client": "fetcher", "run": "download", "url": f"{URL}?x=1"}

    def arguments(**more: str) -> set[str]:
        text = WHOLE.replace("workload:", f"workload:\n  - {json.dumps({**fetch, **more})}")
        return set(load(write(text)).experiment.workload[0].argv()[2:])

    known = {"to=fs", f"url={URL}?x=1", "device=nic0"}
    assert arguments() == {*known, "path=/big"}
    assert arguments(path="/www/big") == {*known, "path=/www/big"}


def test_a_client_that_calls_nobody_has_no_arguments() -> None:
    client = RUNS["clock"].model_validate({"client": "c", "run": "clock"})
    with pytest.raises(ValueError, match="client c calls no server yet"):
        client.argv()


# --- its system ---------------------------------------------------------------------------------


def test_the_system_may_lie_where_the_command_runs(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(WHOLE.replace("system.yaml", "configs/system.yaml"))
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "configs").mkdir(parents=True)
    (elsewhere / "configs" / "system.yaml").write_text(SYSTEM)
    assert f"no file 'configs/system.yaml' in {tmp_path} or in" in str(refused(path))
    monkeypatch.chdir(elsewhere)
    assert load(path).system.path == Path("configs/system.yaml")
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "system.yaml").write_text(SYSTEM)
    assert load(path).system.path == tmp_path / "configs" / "system.yaml"


def test_what_is_wrong_with_the_system_is_told_as_its_own(write: Write, tmp_path: Path) -> None:
    path = write(WHOLE.replace("seed: 4000", "seed: -1"))
    (tmp_path / "system.yaml").write_text(SYSTEM.replace("echo:", "echo: {priority: 256}\n  x:"))
    assert str(refused(path)).splitlines() == [
        f"{path}:4:7: seed: expected at least 0, got -1",
        f"{tmp_path}/system.yaml:7:3: servers.echo: key 'run' is missing; add it",
        f"{tmp_path}/system.yaml:7:20: servers.echo.priority: expected at most 255, got 256",
    ]


# --- what the parts of the project must agree on ------------------------------------------------


def leaves(kind: type[Any]) -> set[type[Any]]:
    """What nothing is derived from."""
    return {leaf for each in kind.__subclasses__() for leaf in leaves(each)} or {kind}


@pytest.mark.parametrize("section", SECTIONS.values(), ids=lambda section: section.title)
def test_the_tables_have_everything_under_its_name(section: Section) -> None:
    for name, model in section.models.items():
        assert get_args(model.model_fields[section.tag].annotation) == (name,)
        assert issubclass(model, section.common)
    assert set(section.models.values()) == leaves(section.common)
    for each in described(section):
        assert each.meaning.endswith(".")
        assert all(parameter.meaning for parameter in each.parameters)


def test_every_checker_can_be_asked_for() -> None:
    assert SECTIONS["checkers"].models.keys() == CHECKERS.keys()


def test_every_fault_of_the_abi_is_listed() -> None:
    meanings = {each.name: each.meaning for each in described(SECTIONS["nemesis"])}
    assert all(fault in meanings["message"] for fault in MESSAGE_FAULTS)
    assert all(fault in meanings["device"] for fault in DEVICE_FAULTS)


def test_devices_break_as_the_machine_can_break_them() -> None:
    models: dict[str, type[Hardware]] = {
        "virtio-blk": Blk, "virtio-net": Net, "virtio-console": Console, "virtio-rng": Rng,
        "timer": Timer,
    }  # fmt: skip
    assert {name: possible(model.__new__(model)) for name, model in models.items()} == BREAKS
    assert BREAKS.keys() == HARDWARE_MODELS.keys()


@pytest.mark.parametrize("model", RUNS.values(), ids=list(RUNS))
def test_the_client_task_understands_what_it_is_told(model: type[Workload]) -> None:
    keys = keys_of(model, without=("client", "run", "bystander"))
    texts = {"to": "fs", "path": "/big", "verify": "sha256", "url": URL, "device": "nic0"}
    texts["address"] = "10.77.0.2"
    values = {key: texts.get(key, 3) for key in keys}
    (name,) = get_args(model.model_fields["run"].annotation)
    client = model.model_validate({"client": "c", "run": name, **values})
    order = session.parse(client.argv())
    assert order.client == "c"
    assert order.run is session.RUNS[name]
    unsaid = {"block": BulkRun.defaults["block"]} if name == "download" else {}
    assert order.options == values | unsaid
    assert session.RUNS.keys() == RUNS.keys()


# --- the commands -------------------------------------------------------------------------------


def test_validate(ukernel: Ukernel, write: Write) -> None:
    path = str(write(WHOLE))
    told = ukernel("chaos", "validate", path).stdout
    assert told == (
        f"{path}: block driver killed under load: 2 clients, 28 faults in 63 s, 4 checkers;"
        " nothing is wrong\n"
    )
    bad = ukernel("chaos", "validate", str(write(WHOLE.replace("fs->", "fs=>"))), status=2)
    assert "nemesis.link: expected a link such as fs->disk, got 'fs=>disk'" in bad.stderr


def test_list(ukernel: Ukernel) -> None:
    told = ukernel("chaos", "list").stdout
    assert "\nkill           target signal=KILL  " in told
    assert "steady_state: probes\n" in told
    listed = json.loads(ukernel("chaos", "list", "--json").stdout)
    assert listed.keys() == SECTIONS.keys()
    (pause,) = [each for each in listed["nemesis"]["actions"] if each["name"] == "pause"]
    assert [parameter["name"] for parameter in pause["parameters"]] == ["target", "for"]


# --- whatever the file holds --------------------------------------------------------------------

words = st.text(max_size=6) | st.sampled_from(
    ["kill", "message", "device", "sweep", "do", "target", "*", "fs->disk", "link", "fault", "1s",
     "files", "run", "client", "w", "disk", "checkers", "never", "no_leak", "checker", "drop",
     "fs", "at", "every", "count", "until", "to", "probe", "p99_ms", "system.yaml", "[key]"]
)  # fmt: skip
scalars = st.none() | st.booleans() | st.integers() | st.floats() | words
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words, inner, max_size=4)
)
entries = st.dictionaries(st.sampled_from(["do", "at", "target", "run", "client", "to"]), values)
parts = st.lists(entries | values, max_size=4) | values
experiments = values | st.dictionaries(
    st.sampled_from([*keys_of(Experiment), "x"]) | words, parts, max_size=8
)


def problems_of(path: Path) -> list[Problem]:
    """Whatever the file holds it is an experiment, or a ConfigError with something to say."""
    try:
        load(path)
    except ConfigError as error:
        return error.problems or [Problem("", 0, 0, "a ConfigError without a problem")]
    return []


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(experiments)
def test_any_structure_is_an_experiment_or_refused(write: Write, value: Any) -> None:
    path = write("")
    if isinstance(value, dict):
        value |= {"system": "system.yaml"}
    with path.open("wb") as file:
        YAML(typ="safe", pure=True).dump(value, file)
    assert all(problem.line > 0 and problem.column > 0 for problem in problems_of(path))


def test_configs_of_the_project_are_experiments() -> None:
    for path in sorted((CONFIGS / "experiments").glob("*.yaml")):
        load(path)

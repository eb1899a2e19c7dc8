"""Virtual machines of a system file become servers, which know nothing of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from launcher import guests, virtual
from launcher.board import supervised
from launcher.chaos.blast import holdings, predict, reach
from launcher.config import SystemFile, load, placed
from launcher.placement import units
from ukernel.abi.manifest import Link, Vm

SYSTEM = """\
system: cloud
servers:
  parts: {run: program, serves: block}
  switch: {run: program, serves: ethernet}
  app: {run: program, calls: [{switch: {badge: 3}}]}
vms:
  vm-a:
    image: guest.elf
    memory: 4MiB
    share: 40
    disk: {server: parts, badge: 1}
    nic: {server: switch, port: 2, via: kernel}
    snapshot_every: 500ms
    args: {append: quiet}
    restart: {max_restarts: 7}
    critical: true
  vm-b: {image: guest.elf, disk: {server: parts, badge: 2}}
  vm-a2: {standby_for: vm-a, share: 20}
"""


@pytest.fixture
def file(tmp_path: Path) -> SystemFile:
    (tmp_path / "program.py").touch()
    (tmp_path / "guest.elf").touch()
    path = tmp_path / "cloud.yaml"
    path.write_text(SYSTEM)
    return load(path)


def test_each_is_a_server_that_holds_its_own_objects(file: SystemFile) -> None:
    servers = file.manifest.servers
    assert list(servers) == ["parts", "switch", "app", "vm-a", "vm-b", "vm-a2"]
    vm = servers["vm-a"]
    assert (vm.run, vm.serves, vm.state, vm.critical) == ("servers.vmm", "vm", "persistent", True)
    assert vm.restart.max_restarts == 7
    assert vm.calls == {
        "parts": Link(badge=1, via="channel"),
        "switch": Link(badge=2, via="kernel"),
    }
    assert vm.memory == 3 * (4 << 20) + (128 << 20)
    assert vm.args == {
        "append": "quiet",
        "engine": "unicorn",
        "image": str(file.directory / "guest.elf"),
        "memory": 4 << 20,
        "share": 40,
        "snapshot_every_ms": 500,
        "disk": "parts",
        "nic": "switch",
        "empty": False,
    }


def test_another_engine_is_another_monitor(tmp_path: Path) -> None:
    vm = Vm(image="vmlinuz", engine="qemu", memory=128 << 20, append="quiet single")
    vms = {"a": vm, "b": Vm(standby_for="a"), "c": vm.model_copy(update={"initrd": "small"})}
    made = virtual.monitors(vms, lambda image: f"/there/{image}")
    assert {server.run for server in made.values()} == {"servers.vmm.qemu"}
    told = made["a"].args
    assert (told["engine"], told["image"]) == ("qemu", "/there/vmlinuz")
    assert (told["append"], told.get("initrd")) == ("quiet single", None)
    assert made["b"].args == {**told, "empty": True}
    assert made["c"].args["initrd"] == "/there/small"


def test_what_is_not_said(file: SystemFile) -> None:
    args = file.manifest.servers["vm-b"].args
    assert (args["memory"], args["share"], args["snapshot_every_ms"]) == (16 << 20, 100, 0)
    assert args["nic"] == ""


def test_a_standby_has_what_its_machine_has_and_no_guest(file: SystemFile) -> None:
    servers = file.manifest.servers
    vm, other = servers["vm-a"], servers["vm-a2"]
    assert (other.calls, other.memory) == (vm.calls, vm.memory)
    assert other.args == {**vm.args, "share": 20, "empty": True}
    assert not other.critical


def test_nothing_that_one_holds_is_in_the_others_hands(file: SystemFile) -> None:
    manifest = file.manifest
    assert holdings(manifest, "vm-a") == {"parts:1": ("vm-a2",), "switch:2": ("vm-a2",)}
    assert holdings(manifest, "vm-b") == {"parts:2": ()}
    assert predict(manifest, ["vm-a"]).degraded == ()
    paths = reach(manifest, list(manifest.servers), ["parts"])
    assert paths["vm-b"] == ("vm-b", "parts:2")


def test_it_is_supervised_and_placed_as_any_server(file: SystemFile) -> None:
    assert supervised(file).children["vm-a"].spec.run == "servers.vmm"
    (shared, *_) = units(placed(file, "mono").manifest)
    assert {"vm-a", "vm-b", "vm-a2", "parts", "switch"} == set(shared.members)


def test_messages_name_its_entry(file: SystemFile) -> None:
    assert file.where("servers", "vm-a") == f"{file.path}:7"
    assert file.where("servers", "vm-a", "calls", "parts") == f"{file.path}:11"
    assert file.where("servers", "vm-a", "calls", "switch") == f"{file.path}:12"
    assert file.where("servers", "vm-a", "restart", "max_restarts") == f"{file.path}:15"
    assert file.where("servers", "vm-a2", "calls", "parts") == f"{file.path}:18"
    assert file.where("servers", "app", "calls", "switch") == f"{file.path}:5"


def test_only_whole_names_are_those_of_machines() -> None:
    said = "servers.vm-a, servers.vm-a2, servers.vm: both have servers.vm-a.run"
    assert (
        virtual.in_words(said, ["vm-a"])
        == "vms.vm-a, servers.vm-a2, servers.vm: both have vms.vm-a.run"
    )


def test_a_guest_by_name_or_by_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hello = tmp_path / "guests" / "hello.elf"
    monkeypatch.setattr(guests, "built_in", lambda: {"hello": hello})
    assert guests.guest_file("hello", tmp_path) == hello
    assert guests.guest_file("hello.elf", tmp_path) == hello
    assert guests.guest_file("./hello.elf", tmp_path) == tmp_path / "hello.elf"
    assert guests.guest_file("hullo.elf", tmp_path) == tmp_path / "hullo.elf"


def test_a_standby_of_nobody_is_no_server() -> None:
    assert virtual.monitors({"a": Vm(standby_for="b")}, str) == {}

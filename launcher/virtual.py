"""virtual: the `vms:` of a system file as servers: each becomes its monitor. Pure.

    vm-a: {image: heartbeat, memory: 4MiB, disk: {server: parts, badge: 1}}

is `vm-a: {run: servers.vmm, serves: vm, calls: [{parts: {badge: 1, via: channel}}], ...}`; with
engine qemu it runs servers.vmm.qemu. From there on nobody knows virtual machines: not the
supervisor, nor placement, capabilities or chaos.
What is wrong with such a server is told in the words and at the place of its entry in `vms:`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping

from launcher.source import Keys
from ukernel.abi.manifest import Arg, Link, Server, Vm
from ukernel.abi.sizes import UNITS

MONITORS = {"unicorn": "servers.vmm", "qemu": "servers.vmm.qemu"}  # by engine
INTERFACE = "vm"
COPIES = 3  # the guest's memory, and two snapshots of it: one is whole while the other is written
OVERHEAD = 128 * UNITS["MiB"]  # bytes beside them
WINDOW = 16

Guest = Callable[[str], str]  # from the image that an entry names to the path of its file


def original(vms: Mapping[str, Vm], name: str) -> Vm | None:
    """The entry that says what this one has: itself or, of a standby, that of its machine."""
    vm = vms[name]
    if vm.standby_for is None:
        return vm
    other = vms.get(vm.standby_for)
    return other if other is not None and other.standby_for is None else None


def monitors(vms: Mapping[str, Vm], guest: Guest) -> dict[str, Server]:
    """The servers that these entries stand for. A standby of nobody is left out."""
    found = {name: original(vms, name) for name in vms}
    return {name: _monitor(vms[name], of, guest) for name, of in found.items() if of is not None}


def links(vm: Vm) -> dict[str, Link]:
    """What its monitor may call."""
    calls = {}
    if vm.disk is not None:
        calls[vm.disk.server] = Link(badge=vm.disk.badge, via=vm.disk.via)
    if vm.nic is not None:
        calls[vm.nic.server] = Link(badge=vm.nic.port, via=vm.nic.via)
    return calls


def _monitor(vm: Vm, of: Vm, guest: Guest) -> Server:
    """The monitor of `vm`, which has what `of` has."""
    server = Server(
        run=MONITORS[of.engine],
        serves=INTERFACE,
        priority=vm.priority,
        memory=COPIES * of.memory + OVERHEAD,
        window=WINDOW,
        args=_args(vm, of, guest),
        state="persistent",
        critical=vm.critical,
        restart=vm.restart,
        heartbeat=vm.heartbeat,
    )
    return server.model_copy(update={"calls": links(of), "cores": vm.cores})


def _args(vm: Vm, of: Vm, guest: Guest) -> dict[str, Arg]:
    """What the monitor is told. `disk` and `nic` are names of callees, "" for none; `empty`: there
    is no guest until one is loaded."""
    return {
        **of.args,
        **_of_linux(of, guest),
        "engine": of.engine,
        "image": guest(of.image or ""),
        "memory": of.memory,
        "share": vm.share if "share" in vm.model_fields_set else of.share,
        "snapshot_every_ms": of.snapshot_every or 0,
        "disk": of.disk.server if of.disk is not None else "",
        "nic": of.nic.server if of.nic is not None else "",
        "empty": vm.standby_for is not None,
    }


def _of_linux(of: Vm, guest: Guest) -> dict[str, Arg]:
    """What only a kernel has beside it."""
    found: dict[str, Arg] = {}
    if of.initrd is not None:
        found["initrd"] = guest(of.initrd)
    if of.append:
        found["append"] = of.append
    return found


# --- what is wrong, in the words of the file ----------------------------------------------------


def in_file(keys: Keys, vms: Mapping[str, Vm]) -> Keys:
    """Where the file says what a monitor has at `keys`: `servers.vm-a.calls.parts` is told in
    `vms.vm-a.disk.server`. Other paths are as they were."""
    match keys:
        case ("servers", str(name), "calls", callee, *_) if name in vms:
            vm = vms[name]
            if vm.standby_for is not None:
                return ("vms", name, "standby_for")
            is_disk = vm.disk is not None and vm.disk.server == callee
            return ("vms", name, "disk" if is_disk else "nic", "server")
        case ("servers", str(name), *rest) if name in vms:
            return ("vms", name, *rest)
    return keys


def in_words(text: str, names: Iterable[str]) -> str:
    """A message about servers, some of which are in `vms:`."""
    for name in names:
        text = re.sub(rf"\bservers\.{re.escape(name)}(?![a-z0-9-])", f"vms.{name}", text)
    return text


def repeats(keys: Keys, vms: Mapping[str, Vm]) -> bool:
    """Whether a finding is about what a standby has from its machine, of which it is told too."""
    return keys[:1] == ("servers",) and in_file(keys, vms)[2:] == ("standby_for",)

"""vm_rules: what must hold of the virtual machines of a system file, and between them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from launcher.guests import built_in, guest_file
from launcher.rules import Draft, Finding, hint
from launcher.source import KEY, Keys
from ukernel.abi.manifest import Vm
from ukernel.abi.sizes import UNITS, text_of

OF_QEMU = ("initrd", "append")
FROM_ITS_MACHINE = ("image", "engine", "memory", "disk", "nic", "snapshot_every", "args", *OF_QEMU)
LEAST_OF_QEMU = 80 * UNITS["MiB"]  # Debian's kernel comes to its shell with that
LINUX_GUEST = ("build", "linux-guest")  # the folder in which `make linux-guest` leaves it


def names_are_not_servers(draft: Draft) -> Iterator[Finding]:
    for name in draft.vm_names:
        if name in draft.own_server_names:
            text = f"vms.{name}: servers.{name} has this name too; rename one"
            yield Finding(("vms", name, KEY), text)


def machines_run_something(draft: Draft) -> Iterator[Finding]:
    for name, vm in draft.vms.items():
        if vm.image is None and vm.standby_for is None:
            text = f"vms.{name}: key 'image' is missing; add it, or 'standby_for'"
            yield Finding(("vms", name, KEY), text)


def standbys_have_a_machine(draft: Draft) -> Iterator[Finding]:
    for name, vm in draft.vms.items():
        if vm.standby_for is None:
            continue
        if why := _no_machine(draft, name, vm.standby_for):
            text = f"vms.{name}.standby_for: {why}"
            yield Finding(("vms", name, "standby_for"), text)
        for key in FROM_ITS_MACHINE:
            if key in vm.model_fields_set:
                text = f"vms.{name}.{key}: a standby has that of {vm.standby_for}; remove it"
                yield Finding(("vms", name, key, KEY), text)


def _no_machine(draft: Draft, name: str, wanted: str) -> str:
    others = [n for n in draft.vm_names if n != name and not _is_standby(draft, n)]
    if wanted == name:
        return f"it would stand by for itself{hint('', others, 'other virtual machines')}"
    if wanted not in draft.vm_names:
        return f"no virtual machine {wanted!r}{hint(wanted, others, 'others')}"
    if _is_standby(draft, wanted):
        return f"{wanted} is a standby itself; name its machine"
    return ""


def _is_standby(draft: Draft, name: str) -> bool:
    return name in draft.vms and draft.vms[name].standby_for is not None


class _Use(NamedTuple):
    """An object that a virtual machine has to itself."""

    server: str
    badge: int
    keys: Keys  # where the file says so
    who: str

    @property
    def what(self) -> str:
        return f"{self.server}:{self.badge}" if self.badge else self.server


def _uses(name: str, vm: Vm) -> Iterator[_Use]:
    if vm.disk is not None:
        yield _Use(vm.disk.server, vm.disk.badge, ("vms", name, "disk"), f"vms.{name}.disk")
    if vm.nic is not None:
        yield _Use(vm.nic.server, vm.nic.port, ("vms", name, "nic"), f"vms.{name}.nic")


def callees_fit(draft: Draft) -> Iterator[Finding]:
    for name, vm in draft.vms.items():
        for use, wanted in zip(_uses(name, vm), _wanted(vm), strict=True):
            server = draft.servers.get(use.server)
            if server is not None and server.serves not in (None, wanted):
                text = f"{use.who}: {use.server} serves {server.serves!r}, and not {wanted!r}"
                yield Finding((*use.keys, "server"), f"{text}; name one that does")


def _wanted(vm: Vm) -> list[str]:
    """What those that it calls have to serve: its disk, its card."""
    return [serves for part, serves in ((vm.disk, "block"), (vm.nic, "ethernet")) if part]


def objects_have_one_holder(draft: Draft) -> Iterator[Finding]:
    """A disk that two write is lost, and of two at one port one hears nothing."""
    owner = {
        (callee, link.badge): f"servers.{name}"
        for name, server in draft.servers.items()
        if name not in draft.vm_names and server.start == "boot"
        for callee, link in server.calls.items()
    }
    for name, vm in draft.vms.items():
        for use in _uses(name, vm):
            first = owner.setdefault((use.server, use.badge), use.who)
            if first != use.who:
                text = f"{first}, {use.who}: both have {use.what}; give each its own"
                yield Finding(use.keys, text)


def keys_are_of_the_engine(draft: Draft) -> Iterator[Finding]:
    for name, vm in draft.vms.items():
        if vm.engine != "qemu" and vm.standby_for is None:
            for key in OF_QEMU:
                if key in vm.model_fields_set:
                    text = (
                        f"vms.{name}.{key}: only engine qemu has it; remove it, or say the engine"
                    )
                    yield Finding(("vms", name, key, KEY), text)


def linux_has_room(draft: Draft) -> Iterator[Finding]:
    for name, vm in draft.vms.items():
        if vm.engine == "qemu" and vm.standby_for is None and vm.memory < LEAST_OF_QEMU:
            least = text_of(LEAST_OF_QEMU)
            text = f"vms.{name}.memory: {text_of(vm.memory)} is not enough for engine qemu"
            yield Finding(("vms", name, "memory"), f"{text}; say at least {least}")


def images_exist(draft: Draft) -> Iterator[Finding]:
    for name, vm in draft.vms.items():
        for key, file in (("image", vm.image), ("initrd", vm.initrd)):
            if file is not None and not guest_file(file, draft.directory).is_file():
                text = f"vms.{name}.{key}: {_absent(vm, file)}"
                yield Finding(("vms", name, key), text)


def _absent(vm: Vm, file: str) -> str:
    if Path(file).parts[-3:-1] == LINUX_GUEST:
        return f"no file {file!r}: make it with `make linux-guest`"
    if vm.engine == "qemu":
        return f"no file {file!r}: name a kernel for a PC, such as that of `make linux-guest`"
    return f"no guest and no file {file!r}{hint(file, built_in(), 'guests')}"


def images_are_of_the_engine(draft: Draft) -> Iterator[Finding]:
    for name, vm in draft.vms.items():
        if (
            vm.engine == "qemu"
            and guest_file(vm.image or "", draft.directory) in built_in().values()
        ):
            text = f"vms.{name}.image: {vm.image} is a guest of engine unicorn"
            yield Finding(("vms", name, "image"), f"{text}; name a kernel for a PC")


RULES: tuple[Callable[[Draft], Iterator[Finding]], ...] = (
    names_are_not_servers,
    machines_run_something,
    standbys_have_a_machine,
    callees_fit,
    objects_have_one_holder,
    keys_are_of_the_engine,
    linux_has_room,
    images_exist,
    images_are_of_the_engine,
)

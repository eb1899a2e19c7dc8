"""board: from a system file to the kernel's slots and devices, and what each life is granted.

Who may hold what is decided here and nowhere else: by `calls:` and `devices:` of the file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from launcher.cables import Cables
from launcher.config import SystemFile
from launcher.kernel import KernelProcess
from launcher.placement import units
from launcher.quarantine import Box
from launcher.supervisor import State
from launcher.tasks import Task
from ukernel.abi.manifest import Restart, Server, VirtioBlk, VirtioNet, derived_mac
from ukernel.abi.syscalls import CALL, GRANT, Grant

MACHINE = "machine"  # the slot of the hardware simulator
MACHINE_WINDOW = 64
NEVER = Restart(when="never")
MACHINE_SPEC = Server(run="hwsim", priority=255, window=MACHINE_WINDOW, restart=NEVER)
REGIONS = 256 << 20  # bytes of regions of a server without `memory`


@dataclass(frozen=True)
class Wiring:
    """What differs from the file in this boot of it."""

    images: Mapping[str, Path] = field(default_factory=dict)  # of disks, by device
    through: Mapping[tuple[str, str], str] = field(default_factory=dict)
    """Interposers: {(caller, callee): the server that stands in the callee's place}."""
    mischief: str = ""  # makes every server breakable, see `ukernel.lib.mischief`


def supervised(file: SystemFile) -> State:
    """The supervisor's view of a system: the machine and all processes that start at boot, in
    order. One that several servers share goes by the name of the first."""
    manifest = file.manifest
    machine = {MACHINE: MACHINE_SPEC} if manifest.hardware else {}
    processes = units(manifest)
    lead = {name: unit.name for unit in processes for name in unit.members}
    groups = {
        label: {lead[name] for name in members if name in lead}
        for label, members in manifest.groups.items()
    }
    return State({**machine, **{unit.name: unit.spec for unit in processes}}, groups)


def make_slots(
    kernel: KernelProcess, file: SystemFile, wiring: Wiring, run_dir: Path, cables: Cables
) -> dict[str, Task]:
    """A task for every server of the file and for the machine; none of them runs yet."""
    tasks = {}
    if file.manifest.hardware:
        machine = tasks[MACHINE] = _new_task(kernel, MACHINE, MACHINE_SPEC, [])
        machine.args = {"devices": _device_specs(file, wiring, run_dir), "dir": str(run_dir)}
        machine.cables = cables.opened
        for device in file.manifest.hardware:
            kernel.control().device(device, MACHINE)
    for name, server in file.manifest.servers.items():
        tasks[name] = new_server(kernel, name, server, wiring)
    for unit in units(file.manifest):
        _join([tasks[name] for name in unit.members], unit.spec)
    return tasks


def _join(company: list[Task], policy: Server) -> None:
    """Tasks that are to share a process, when they are more than one."""
    for task in company if len(company) > 1 else ():
        task.company, task.policy = company, policy


def new_server(kernel: KernelProcess, name: str, spec: Server, wiring: Wiring) -> Task:
    """A slot for a server of the file, or for one more of the same kind."""
    task = _new_task(kernel, name, spec, _grants(name, spec, wiring))
    task.spec, task.args, task.mischief = spec, dict(spec.args), wiring.mischief
    return task


def _new_task(kernel: KernelProcess, name: str, spec: Server, grants: list[Grant]) -> Task:
    memory = spec.memory or REGIONS
    token = kernel.control().slot(name, spec.priority, spec.window, memory)
    return Task(name, spec.run, grants, token, kernel.task(token), Box(name))


def _grants(caller: str, server: Server, wiring: Wiring) -> list[Grant]:
    links = []
    for name, link in server.calls.items():
        rights = CALL | (GRANT if "grant" in link.rights else 0)
        callee = wiring.through.get((caller, name), name)
        links.append(Grant("endpoint", name, rights, callee, link.badge))
    return [*links, *(Grant("device", name, CALL, name) for name in server.devices)]


def _device_specs(file: SystemFile, wiring: Wiring, run_dir: Path) -> list[dict[str, Any]]:
    specs = []
    for name, hardware in file.manifest.hardware.items():
        spec = {"name": name, **hardware.model_dump()}
        if isinstance(hardware, VirtioBlk):
            spec["image"] = str(wiring.images.get(name) or file.image_path(name))
        if isinstance(hardware, VirtioNet):
            spec["mac"] = hardware.mac or derived_mac(run_dir.name, name)
            capture = file.capture_path(name)
            spec["capture"] = str(capture) if capture is not None else None
        specs.append(spec)
    return specs

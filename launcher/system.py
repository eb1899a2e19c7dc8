"""system: one running system: boots it, watches it, restarts what dies, takes it down again.

All policy is here and in `supervisor`; the kernel has none. One thread: `pump` waits for the
next thing to happen and handles it. No wait here depends on a server.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import zmq

from launcher import orphans, supervisor
from launcher.config import SystemFile
from launcher.embryo import Spawn
from launcher.kernel import KERNEL_DIED, KernelProcess, SystemDown
from launcher.process import Process, describe
from launcher.rundir import RunDir
from launcher.supervisor import Decision
from launcher.tasks import Stages, Task
from launcher.zygote import Zygote
from ukernel.abi import syscalls, wire
from ukernel.abi.manifest import Restart, Server, VirtioBlk, start_order
from ukernel.abi.syscalls import CALL, GRANT, Begun, CapRow, Control, Grant, SlotRow
from ukernel.lib.connection import TaskInfo
from ukernel.lib.stub import together

MACHINE = "machine"  # the slot of the hardware simulator
READY_S = 10.0  # until a server must have called ready at boot
STOP_S = 2.0  # for an orderly exit, before SIGKILL
REGIONS = 256 << 20  # bytes of regions of a server without `memory`
MACHINE_WINDOW = 64


class BootError(Exception):
    """The system did not come up; the text says which server and shows its last words."""


class System:
    """A system from its file. Use it as a context: leaving it leaves nothing behind."""

    def __init__(
        self,
        file: SystemFile,
        *,
        name: str = "",
        images: dict[str, Path] | None = None,
        on_event: Callable[[str, str, str], None] | None = None,
    ) -> None:
        self.file = file
        self.name = name or file.manifest.system
        self.images = images or {}
        self.tell = on_event or (lambda kind, who, text: None)
        self.run = RunDir(self.name)
        self.tasks: dict[str, Task] = {}
        self.recoveries: list[Stages] = []
        self.boot_ms = 0.0
        self.kernel: KernelProcess | None = None
        self.zygote: Zygote | None = None
        self.selector = selectors.DefaultSelector()
        self.after_events: list[Callable[[], None]] = []  # called when `pump` has handled a batch
        self._failed = ""

    def __enter__(self) -> System:
        return self

    def __exit__(self, *raised: object) -> None:
        self.down()

    # --- boot -----------------------------------------------------------------------------------

    def boot(self) -> None:
        """Start everything in the order of its dependencies; return when all are READY."""
        begun = time.monotonic_ns()
        manifest = self.file.manifest
        modules = sorted({server.run for server in manifest.servers.values()} | {"hwsim"})
        path = [str(self.file.directory)]
        with self._log("kernel") as log:
            self.kernel = KernelProcess(self.run.path, log)
        with self._log("zygote") as log:
            self.zygote = Zygote(str(self.run.path), path, modules, log)
        self.selector.register(self.kernel.fd, selectors.EVENT_READ, self._kernel_died)
        self._make_slots()
        self.selector.register(
            self.kernel.connection.socket.get(zmq.FD), selectors.EVENT_READ, lambda: None
        )
        self._start_all()
        self.boot_ms = (time.monotonic_ns() - begun) / 1e6

    def _make_slots(self) -> None:
        manifest = self.file.manifest
        if manifest.hardware:
            self._new_task(MACHINE, "hwsim", [], 255, MACHINE_WINDOW)
            self.tasks[MACHINE].args = {"devices": self._device_specs(), "dir": str(self.run.path)}
            for device in manifest.hardware:
                self._control().device(device, MACHINE)
        for name, server in manifest.servers.items():
            self._new_server(name, server)

    def _new_server(self, name: str, spec: Server) -> Task:
        grants = self._grants(spec)
        task = self._new_task(name, spec.run, grants, spec.priority, spec.window, spec.memory)
        task.spec, task.args = spec, dict(spec.args)
        return task

    def _new_task(
        self,
        name: str,
        module: str,
        grants: list[Grant],
        priority: int,
        window: int,
        memory: int | None = None,
    ) -> Task:
        assert self.kernel is not None
        token = self._control().slot(name, priority, window, memory or REGIONS)
        task = self.tasks[name] = Task(name, module, grants, token, self.kernel.task(token))
        return task

    def _grants(self, server: Server) -> list[Grant]:
        links = [
            Grant("endpoint", name, CALL | (GRANT if "grant" in link.rights else 0))
            for name, link in server.calls.items()
        ]
        return [*links, *(Grant("device", name, CALL) for name in server.devices)]

    def _device_specs(self) -> list[dict[str, Any]]:
        specs = []
        for name, hardware in self.file.manifest.hardware.items():
            spec = {"name": name, **hardware.model_dump()}
            if isinstance(hardware, VirtioBlk):
                spec["image"] = str(self.images.get(name) or self.file.image_path(name))
            specs.append(spec)
        return specs

    def _start_all(self) -> None:
        servers = self.file.manifest.servers
        order = [name for name in start_order(self.file.manifest) if servers[name].start == "boot"]
        if MACHINE in self.tasks:
            order.insert(0, MACHINE)
        for name in order:
            self.start(self.tasks[name])
            self.wait_ready(name)

    def wait_ready(self, name: str, timeout_s: float = READY_S) -> None:
        """Handle what happens until the server is READY; BootError when it does not get there."""
        task, deadline = self.tasks[name], time.monotonic() + timeout_s
        while task.state != syscalls.READY:
            if task.state in (syscalls.FAILED, syscalls.STOPPED):
                raise BootError(f"{name} failed at start: {self._last_words(name)}")
            if time.monotonic() > deadline:
                raise BootError(
                    f"{name} was not ready in {timeout_s:g} s: {self._last_words(name)}"
                )
            self.pump(0.5)

    def _last_words(self, name: str) -> str:
        task = self.tasks[name]
        how = describe(task.status) if task.status is not None else "it runs"
        path = self.run.log(name)
        lines = path.read_text(errors="replace").strip().splitlines() if path.exists() else []
        return "\n  ".join([how, *lines[-8:]])

    # --- lives ----------------------------------------------------------------------------------

    def start(self, task: Task) -> None:
        """Give a slot its next life and a process."""
        assert self.kernel is not None
        assert self.zygote is not None
        begun = self._begin(task)
        (control,) = self.kernel.connection.descriptors(begun.tag)
        spec = task.spec
        where = self.file.where("servers", task.name) if spec else str(self.file.path)
        info = TaskInfo(task.name, 0, os.getpid(), args=task.args, origin=where)
        if spec is not None:
            info.memory, info.devices = spec.memory or 0, list(spec.devices)
        with self._stdio(task) as stdio:
            what = Spawn(task.module, info.dump(), task.argv, task.directory)
            pid = self.zygote.spawn(what, control, stdio)
        os.close(control)
        task.process = Process(pid)
        task.life, task.state, task.wanted = begun.life, syscalls.STARTING, True
        self.selector.register(task.process.fd, selectors.EVENT_READ, lambda: self._ended(task))
        task.control.start(pid)
        if spec is not None and (spec.cores or spec.policy == "fifo"):
            task.control.schedule(spec.priority, list(spec.cores or ()), spec.policy == "fifo")
        if task.stages is not None:
            task.stages.spawned_ns = time.monotonic_ns()

    def _begin(self, task: Task) -> Begun:
        """The slot's next life; one that has just died is settled in the same breath."""
        assert self.kernel is not None
        ends = [(task.token, "end", (syscalls.DEAD,))] if task.state == syscalls.DEAD else []
        begin = (task.token, "begin", (task.grants,))
        begun: Begun = together(self.kernel.connection, *ends, begin)[-1]
        return begun

    @contextlib.contextmanager
    def _stdio(self, task: Task) -> Any:
        """Descriptors for a task's standard streams: its own, or nothing in and its log out."""
        if task.stdio is not None:
            yield task.stdio
            return
        with self._log(task.name) as log, open(os.devnull, "rb") as nothing:
            yield nothing.fileno(), log, log

    @contextlib.contextmanager
    def _log(self, name: str) -> Any:
        fd = os.open(
            self.run.log(name), os.O_CREAT | os.O_APPEND | os.O_WRONLY | os.O_CLOEXEC, 0o600
        )
        try:
            yield fd
        finally:
            os.close(fd)

    def _ended(self, task: Task) -> None:
        """A process is dead. Settle its life with the kernel, then let the supervisor decide."""
        status = self._bury(task)
        if not task.wanted:
            return
        task.wanted = False
        if task.name == MACHINE and task.proven:
            self._failed = f"the machine died ({describe(status)}): power is off"
            return
        if task.stdio is not None:
            self._settle(task, syscalls.STOPPED)
            return
        policy = task.spec.restart if task.spec else Restart(when="never")
        if not task.proven:
            policy = Restart(when="never")
        decision = supervisor.decide(task.history, policy, status, time.monotonic())
        if decision is Decision.RESTART:
            self._restart(task, status)
        else:
            state = syscalls.STOPPED if decision is Decision.REST else syscalls.FAILED
            self._settle(task, state)
            if decision is Decision.GIVE_UP:
                self.tell("failed", task.name, f"{describe(status)}; not restarted")

    def _bury(self, task: Task) -> int:
        assert task.process is not None
        self.selector.unregister(task.process.fd)
        dead, task.status = task.process.pid, task.process.wait()
        task.process = None
        if self.zygote is not None:
            known = {t.process.pid for t in self.tasks.values() if t.process}
            orphans.end_children(self.run.path, dead, self.zygote.process.pid, known)
        return task.status

    def _restart(self, task: Task, status: int) -> None:
        now = time.monotonic_ns()
        task.stages = Stages(task.name, task.life, status, task.killed_ns, now)
        task.killed_ns = 0
        self.recoveries.append(task.stages)
        task.state = syscalls.DEAD
        task.restarts += 1
        self.start(task)
        self.tell("died", f"{task.name}#{task.stages.life}", describe(status))

    def _settle(self, task: Task, state: str) -> None:
        task.control.end(state)
        task.state = state

    def _kernel_died(self) -> None:
        self._failed = KERNEL_DIED
        self.selector.unregister(self._kernel_fd())

    # --- the loop -------------------------------------------------------------------------------

    def pump(self, timeout_s: float) -> None:
        """Handle what happens within `timeout_s`, returning after the first batch of it.

        Raises SystemDown when the kernel or the machine is dead.
        """
        self._drain()
        for key, _ in self.selector.select(timeout_s):
            key.data()
        self._drain()
        for check in self.after_events:
            check()
        if self._failed:
            raise SystemDown(self._failed)

    def _drain(self) -> None:
        """Take what the kernel has said on its own."""
        if self.kernel is None or self._failed == KERNEL_DIED:
            return
        while (m := self.kernel.connection.poll_notice()) is not None:
            if m.op == wire.NOTICE and m.opcode == wire.NOTICE_EVENT:
                self._event(*wire.unpack(m.body))

    def _event(self, kind: str, slot: str, life: int, detail: str) -> None:
        task = self.tasks.get(slot)
        if task is None or task.life != life:
            return
        if kind == syscalls.EVENT_READY:
            task.state, task.proven = syscalls.READY, True
            if task.stages is not None and not task.stages.ready_ns:
                task.stages.ready_ns = time.monotonic_ns()
        elif kind == syscalls.EVENT_SERVING:
            if task.stages is not None and not task.stages.serving_ns:
                task.stages.serving_ns = int(detail)
        elif kind == syscalls.EVENT_LOST and task.process is not None:
            task.process.send(signal.SIGKILL)
        self.tell(kind, f"{slot}#{life}", detail)

    # --- what people ask for --------------------------------------------------------------------

    def signal(self, name: str, signo: int) -> None:
        """Send a signal to a task's process; a death from it is handled like any other."""
        task = self._living(name)
        if signo in (signal.SIGKILL, signal.SIGSEGV):
            task.killed_ns = time.monotonic_ns()
        assert task.process is not None
        task.process.send(signo)

    def restart(self, name: str) -> None:
        """A fresh life, whatever the restart limits say; FAILED and STOPPED servers too."""
        task = self.task(name)
        task.history.restarts.clear()
        if task.process is not None:
            task.wanted = False
            self._settle(task, self._stop_process(task))
        self.start(task)

    def task(self, name: str) -> Task:
        """The task called `name`. Raises LookupError, naming those that there are."""
        task = self.tasks.get(name)
        if task is None:
            known = ", ".join(self.tasks)
            raise LookupError(f"system {self.name} has no task {name!r}; its tasks are {known}")
        return task

    def _living(self, name: str) -> Task:
        task = self.task(name)
        if task.process is None:
            raise LookupError(f"{name} is {task.state}: it has no process")
        return task

    def run_task(
        self, name: str, argv: list[str], stdio: tuple[int, int, int], directory: str = ""
    ) -> Task:
        """Run a `start: demand` server with arguments and standard streams, as often as wanted
        at the same time: `shell`, `shell.2`, ... Relative paths start at `directory`."""
        template = self.tasks.get(name)
        if template is None or template.spec is None or template.spec.start != "demand":
            known = [t.name for t in self.tasks.values() if t.spec and t.spec.start == "demand"]
            raise LookupError(
                f"system {self.name} has no `start: demand` server {name!r}; it has: "
                f"{', '.join(known) or 'none'}"
            )
        number, task = 1, template
        while task.process is not None:
            number += 1
            other = f"{name}.{number}"
            task = self.tasks.get(other) or self._new_server(other, template.spec)
        task.argv, task.stdio, task.directory = argv, stdio, directory
        self.start(task)
        return task

    def slots(self) -> dict[str, SlotRow]:
        """What the kernel says of every slot."""
        return {row.name: row for row in self._control().slots()}

    def caps(self) -> list[CapRow]:
        """Every capability, parents before children."""
        rows: list[CapRow] = []
        while page := self._control().caps(len(rows)):
            rows += page
        return rows

    def _control(self) -> Control:
        assert self.kernel is not None
        return self.kernel.control()

    control = _control

    def _kernel_fd(self) -> int:
        assert self.kernel is not None
        return self.kernel.fd

    # --- the end --------------------------------------------------------------------------------

    def down(self) -> None:
        """Stop in reverse order and leave nothing: no process, no socket, no file. Repeatable."""
        if self.kernel is not None and not self._failed:
            for task in reversed(self._in_start_order()):
                with contextlib.suppress(SystemDown):
                    self._stop_task(task)
        for task in self.tasks.values():
            if task.process is not None:
                task.process.send(signal.SIGKILL)
                task.process.wait()
                task.process = None
        if self.kernel is not None:
            self.kernel.close()
        if self.zygote is not None:
            self.zygote.close()
            orphans.end_all_children(self.run.path)
        self.selector.close()
        self.kernel = self.zygote = None
        self.run.remove()

    def _in_start_order(self) -> list[Task]:
        order = [MACHINE, *start_order(self.file.manifest)]
        first = [self.tasks[name] for name in order if name in self.tasks]
        return [*first, *(t for t in self.tasks.values() if t not in first)]

    def _stop_task(self, task: Task) -> None:
        task.wanted = False
        if task.process is not None:
            self._settle(task, self._stop_process(task))

    def _stop_process(self, task: Task) -> str:
        """Ask, wait a moment, insist. The task's state afterwards."""
        process = task.process
        assert process is not None
        task.control.stop()
        process.send(signal.SIGCONT)
        deadline = time.monotonic() + STOP_S
        while task.process is process and time.monotonic() < deadline:
            self.pump(max(0.0, deadline - time.monotonic()))
        if task.process is process:
            process.send(signal.SIGKILL)
            self._bury(task)
        return syscalls.STOPPED

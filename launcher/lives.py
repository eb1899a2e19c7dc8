"""lives: gives slots their processes, and buries them. Mechanism; `supervisor` decides.

A life is *prepared* ahead of its time: the kernel has a control socket for it, and with a standby
it has a process too, which has said HELLO and waits for the answer. So when its turn comes little
is left to do: end the old life, begin the new one, in one breath. Nothing here waits for a server.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from launcher import cold, orphans
from launcher.config import SystemFile
from launcher.heartbeat import STUCK
from launcher.kernel import KernelProcess
from launcher.placement import HOUSEHOLD
from launcher.process import Process, describe
from launcher.quarantine import Case
from launcher.rundir import RunDir
from launcher.spawn import Spawn
from launcher.tasks import Stages, Task
from launcher.zygote import Zygote
from ukernel.abi import syscalls, wire
from ukernel.abi.errors import CallError, NoMemory
from ukernel.abi.exits import OUT_OF_MEMORY
from ukernel.lib import mischief
from ukernel.lib.connection import TaskInfo
from ukernel.lib.stub import SYSTEM_CALLS, together

Call = tuple[bytes, str, tuple[object, ...]]  # of the kernel, see `together`
# How a life ends that did not die of what it was doing.
FROM_OUTSIDE = (-signal.SIGKILL, -signal.SIGTERM, 128 + signal.SIGTERM, OUT_OF_MEMORY, 0)


class Death(NamedTuple):
    """How a task ended, and the request that it died of, if any."""

    task: Task
    stages: Stages
    case: Case | None


class Lives:
    """The processes of one system's tasks. `ended(task)` is called when a task's process died,
    `spare_ended(task)` when its standby did."""

    def __init__(
        self,
        file: SystemFile,
        run: RunDir,
        kernel: KernelProcess,
        zygote: Zygote,
        selector: selectors.BaseSelector,
        tasks: Mapping[str, Task],
    ) -> None:
        self.file = file
        self.run = run
        self.kernel = kernel
        self.zygote = zygote
        self.selector = selector
        self.tasks = tasks
        self.ended: Callable[[Task], None] = lambda task: None
        self.spare_ended: Callable[[Task], None] = lambda task: None
        self.say: Callable[[str, str, str], None] = lambda kind, who, text: None
        self._dead: list[Process] = []  # not reaped, or their orphans not ended

    # --- begin ----------------------------------------------------------------------------------

    def start(self, task: Task) -> None:
        """Give a slot its next life, and all that share its process: by its standby, or by a new
        process."""
        members = task.housemates
        calls: list[Call] = [(t.token, "begin", (t.grants,)) for t in members]
        if task.spare is not None:
            process, task.spare = task.spare, None
            self.selector.unregister(process.fd)
        else:
            process = Process(self._spawn(task))
            calls = [*((t.token, "start", (process.pid,)) for t in members), *calls]
        for stages in (t.stages for t in members):
            if stages is not None and not stages.spawned_ns:
                stages.spawned_ns = time.monotonic_ns()
        try:
            numbers = together(self.kernel.connection, *calls)[-len(members) :]
        except CallError:  # it is nobody's
            self._disown(process, members)
            raise
        self.zygote.replenish()
        for member, number in zip(members, numbers, strict=True):
            member.life, member.process = number, process
            member.state, member.blame, member.meddled = syscalls.STARTING, "", False
        self.selector.register(process.fd, selectors.EVENT_READ, lambda: self.ended(task))
        terms = task.terms
        if terms is not None and (terms.cores or terms.policy == "fifo"):
            priority = terms.priority if terms.policy == "fifo" else None
            if refused := process.schedule(terms.cores or (), priority):
                self.say("unscheduled", f"{task.name}#{task.life}", refused)

    def _disown(self, process: Process, members: list[Task]) -> None:
        """Not all that were to live in it could begin, so none of them does."""
        process.send(signal.SIGKILL)
        self._dead.append(process)
        if len(members) > 1:
            _status(process)  # certainly dead, before those that have begun end
            for member in members:
                self.post(member, "end", syscalls.DEAD)

    def stand_by(self, task: Task) -> None:
        """Give the life after this one its process now. It holds nothing and does nothing."""
        task.spare = Process(self._spawn(task))
        for member in task.housemates:
            member.control.start(task.spare.pid)
        self.zygote.replenish()
        self.selector.register(task.spare.fd, selectors.EVENT_READ, lambda: self._spare_ended(task))

    def prepare(self, task: Task) -> None:
        """Have the control socket of the next life at hand."""
        self.drop_line(task)
        (task.line,) = self.kernel.connection.descriptors(task.control.prepare())
        os.set_inheritable(task.line, False)  # a cold start of another task is not to have it

    def look_ahead(self, task: Task) -> None:
        """`prepare` the next life of a task that is at rest, if that has not been done."""
        if task.state == syscalls.READY and task.line < 0 and task.lead.spare is None:
            with contextlib.suppress(NoMemory):  # then it is done when it is needed
                self.prepare(task)

    def drop_line(self, task: Task) -> None:
        if task.line >= 0:
            os.close(task.line)
            task.line = -1

    def post(self, task: Task, name: str, *args: object) -> None:
        """A system call that cannot be refused; nobody waits for its answer."""
        connection, number = self.kernel.connection, SYSTEM_CALLS[name].number
        connection.post(task.token, number, wire.pack(args), system=True, wanted=False)

    def _spawn(self, task: Task) -> int:
        members = task.housemates
        for member in members:
            if member.line < 0:
                self.prepare(member)
        infos = [self._info(member) for member in members]
        module = infos[0].module if len(infos) == 1 else HOUSEHOLD
        lines = [fd for member in members for fd in (member.line, member.box.fd)]
        with self._stdio(task) as stdio, task.cables() as given:
            dumped = [info.dump() for info in infos]
            names = [name for name, _ in given]
            what = Spawn(module, dumped, task.argv, task.directory, names)
            fds = [*lines, *(fd for _, fd in given)]
            if task.terms is not None and task.terms.spawn == "cold":
                mark = {orphans.MARK: str(self.run.path)}
                pid = cold.spawn(what, fds, stdio, str(self.file.directory), mark)
            else:
                pid = self.zygote.spawn(what, fds, stdio)
        for member in members:
            self.drop_line(member)
        return pid

    def _info(self, task: Task) -> TaskInfo:
        spec, beside = task.spec, {member.name for member in task.company}
        origin = self.file.where("servers", task.name) if spec else str(self.file.path)
        info = TaskInfo(task.name, 0, os.getpid(), args=task.args, origin=origin)
        if spec is not None:
            info.memory = task.terms.memory or 0 if task.terms else 0
            info.devices, info.state = list(spec.devices), spec.state
            info.window = spec.window
            channels = {name: link for name, link in spec.calls.items() if link.via == "channel"}
            info.channels = {name: int(link.spin_us * 1000) for name, link in channels.items()}
        info.module, task.understudy = task.understudy or task.module, ""
        info.beside = {g.name: g.object for g in task.grants if g.object in beside}
        info.badges = {g.name: g.badge for g in task.grants if g.badge}
        info.mischief = mischief.DOOMED if task.doomed else task.mischief
        task.doomed -= task.doomed > 0
        return info

    @contextlib.contextmanager
    def _stdio(self, task: Task) -> Iterator[tuple[int, int, int]]:
        """Descriptors for a task's standard streams: its own, or nothing in and its log out."""
        if task.stdio is not None:
            yield task.stdio
            return
        for other in task.company[1:]:
            self.run.share_log(task.name, other.name)
        with self.run.appending(task.name) as log, open(os.devnull, "rb") as nothing:
            yield nothing.fileno(), log, log

    # --- end ------------------------------------------------------------------------------------

    def bury(self, task: Task) -> list[Death]:
        """Its process is dead, and the kernel is told so at once, of everybody who lived in it.
        `sweep` reaps it, for which nobody has to wait."""
        detected_ns = time.monotonic_ns()
        process = task.process
        assert process is not None
        status, dead_ns = _status(process), time.monotonic_ns()
        for member in task.housemates:
            self.post(member, "end", syscalls.DEAD)
        self.selector.unregister(process.fd)
        self._dead.append(process)
        return [_death(member, status, detected_ns, dead_ns) for member in task.housemates]

    def settle(self, task: Task, state: str) -> None:
        """Tell the kernel that no other life follows, and with it all that wait for one."""
        for member in task.housemates:
            member.control.end(state)
            member.state = state

    def _spare_ended(self, task: Task) -> None:
        assert task.spare is not None
        self.selector.unregister(task.spare.fd)
        self._dead.append(task.spare)
        task.spare = None
        self.spare_ended(task)

    def sweep(self) -> None:
        """Reap the dead and end what they left behind. After the next life has begun: it can take
        Linux milliseconds, and clients wait for that life."""
        for dead in self._dead:
            dead.wait()
        if not self._dead:
            return
        held = (p for t in self.tasks.values() for p in (t.process, t.spare) if p is not None)
        known, zygote = {process.pid for process in held}, self.zygote.process.pid
        self._dead = [
            dead
            for dead in self._dead
            if not orphans.end_children(self.run.path, dead.pid, zygote, known)
        ]

    def kill(self, task: Task, why: str) -> None:
        """End its process, with a reason that people will read."""
        if task.process is not None and not task.process.is_dead:
            for member in task.housemates:
                if not member.killed_ns:  # else it is dying already, of something else
                    member.blame, member.killed_ns = why, time.monotonic_ns()
            task.process.send(signal.SIGKILL)

    def ask_to_leave(self, task: Task) -> None:
        task.control.tell(wire.NOTICE_STOP)
        if task.process is not None:
            task.process.send(signal.SIGCONT)


def _death(task: Task, status: int, detected_ns: int, dead_ns: int) -> Death:
    """Note the death of a task whose process ended so."""
    task.process, task.state, task.status = None, syscalls.DEAD, status
    if status != -signal.SIGKILL:
        task.blame = ""  # it was quicker than we
    cause = task.blame or _in_words(status)
    stages = Stages(task.name, task.life, status, cause, task.killed_ns, detected_ns, dead_ns)
    task.killed_ns = 0
    guilty = task.blame.startswith(STUCK) or status not in FROM_OUTSIDE
    return Death(task, stages, task.box.open(guilty and not task.meddled))


def _status(dead: Process) -> int:
    """How a dead process ended, as `Process.wait` says it. That stays to be called."""
    ended = os.waitid(os.P_PIDFD, dead.fd, os.WEXITED | os.WNOWAIT)
    assert ended is not None
    exited = ended.si_code == os.CLD_EXITED
    return ended.si_status if exited else -ended.si_status


def _in_words(status: int) -> str:
    return "met its memory limit" if status == OUT_OF_MEMORY else describe(status)

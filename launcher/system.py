"""system: one running system: boots it, watches it, restarts what dies, takes it down again.

All policy is here and in `supervisor`; the kernel has none. One thread: `pump` waits for the
next thing to happen and handles it. No wait here depends on a server.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import selectors
import signal
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import zmq

from launcher import board, orphans, supervisor, vitals
from launcher.board import MACHINE, Wiring
from launcher.cables import Cables
from launcher.config import SystemFile, placed
from launcher.kernel import KERNEL_DIED, KernelProcess, SystemDown
from launcher.lives import Death, Lives
from launcher.placement import units
from launcher.process import describe
from launcher.quarantine import Case
from launcher.rounds import Rounds
from launcher.rundir import RunDir
from launcher.supervisor import Died, Ready, SpareDied, Tick, Wanted, decide
from launcher.tasks import Stages, Task
from launcher.words import count
from launcher.zygote import Zygote
from ukernel.abi import syscalls, wire
from ukernel.abi.errors import CallError
from ukernel.abi.interface import Interface
from ukernel.abi.manifest import Server
from ukernel.abi.syscalls import CapRow, Control, SlotRow
from ukernel.lib.stub import bind

STOP_S = 2.5  # for an orderly exit, before SIGKILL
LETHAL = frozenset((signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV, signal.SIGABRT))
EVENTS = 4096  # remembered
REACH_S = 1.0  # for an answer of a server that the launcher itself asks

I = TypeVar("I", bound=Interface)  # noqa: E741


class BootError(Exception):
    """The system did not come up; the text says which server and shows its last words."""


class Happened(NamedTuple):
    """Something that people may want to know. `who` is `slot#life` or a slot."""

    number: int
    at: float  # time.time()
    kind: str
    who: str
    text: str
    at_ns: int  # the same moment, CLOCK_MONOTONIC: the clock of the trace


class System:
    """A system from its file. Use it as a context: leaving it leaves nothing behind."""

    def __init__(
        self,
        file: SystemFile,
        *,
        name: str = "",
        images: dict[str, Path] | None = None,
        on_event: Callable[[str, str, str], None] | None = None,
        through: Mapping[tuple[str, str], str] | None = None,
        mischief: str = "",
        trace: bool = True,
        placement: str = "",
    ) -> None:
        """`trace` as in `KernelProcess`; `images`, `through` and `mischief` as in `board.Wiring`;
        `placement` instead of the one in the file, ConfigError when that cannot be."""
        self.file = file = placed(file, placement)
        self.name = name or file.manifest.system
        self.tell = on_event or (lambda kind, who, text: None)
        self.trace = trace
        self.wiring = Wiring(images or {}, through or {}, mischief)
        self.run = RunDir(self.name)
        self.cables = Cables(file, self.run.path)
        self.tasks: dict[str, Task] = {}
        self.recoveries: list[Stages] = []
        self.events: deque[Happened] = deque(maxlen=EVENTS)
        self.captured: set[str] = set()  # network cards whose frames somebody has noted
        self.moving: set[str] = set()  # monitors whose machine is copied, restored or moved
        self.boot_ms = 0.0
        self.kernel: KernelProcess | None = None
        self.zygote: Zygote | None = None
        self.selector = selectors.DefaultSelector()
        self.after_events: list[Callable[[], None]] = []  # called when `pump` has handled a batch
        self.supervisor = board.supervised(file)
        self._lives: Lives | None = None
        self._reached: dict[tuple[str, int], bytes] = {}
        self._rounds = Rounds(self.supervisor, self.run, self.say)
        self._numbers = itertools.count()
        self._failed = ""  # why nothing can be done any more
        self._over = ""  # why it is to go down in order

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
        with self.run.appending("kernel") as log:
            self.kernel = KernelProcess(self.run.path, log, self.trace)
        with self.run.appending("zygote") as log:
            self.zygote = Zygote(str(self.run.path), path, modules, log)
        self.selector.register(self.kernel.fd, selectors.EVENT_READ, self._kernel_died)
        self._lives = Lives(
            self.file, self.run, self.kernel, self.zygote, self.selector, self.tasks
        )
        self._lives.ended, self._lives.spare_ended = self._ended, self._spare_ended
        self._lives.say = self.say
        self.tasks.update(
            board.make_slots(self.kernel, self.file, self.wiring, self.run.path, self.cables)
        )
        self.selector.register(
            self.kernel.connection.socket.get(zmq.FD), selectors.EVENT_READ, lambda: None
        )
        for name in self.supervisor.children:
            self._act(Wanted(name, True))
            for task in self.tasks[name].housemates:
                self.wait_ready(task.name)
        self.boot_ms = (time.monotonic_ns() - begun) / 1e6

    def wait_ready(self, name: str) -> None:
        """Handle what happens until the server is READY; BootError when it does not get there."""
        task = self.tasks[name]
        while task.state != syscalls.READY:
            if task.state in (syscalls.FAILED, syscalls.STOPPED):
                raise BootError(f"{name} failed at start: {self._last_words(name)}")
            self.pump(0.5)

    def _last_words(self, name: str) -> str:
        task = self.tasks[name]
        how = task.blame or (describe(task.status) if task.status is not None else "it runs")
        return "\n  ".join([how, *vitals.tail(self.run.log(name))])

    # --- what the supervisor decides ------------------------------------------------------------

    def _act(self, event: supervisor.Event, now_s: float = 0.0) -> None:
        """Tell the supervisor what happened, and do what it says."""
        for action in decide(self.supervisor, event, now_s or time.monotonic()):
            DO[type(action)](self, action)

    def _start(self, action: supervisor.Start) -> None:
        task = self.tasks[action.name]
        repaired = [
            (t, t.stages)
            for t in task.housemates
            if t.stages is not None and not t.stages.spawned_ns
        ]
        try:
            self.lives.start(task)
        except ConnectionError:  # the zygote is gone
            raise
        except (CallError, OSError) as error:  # Linux has no room: as good as a death in init
            task.blame = f"could not be started: {error}"
            self.say("died", task.name, task.blame)
            self._act(Died(task.name, 1, random.random()))
            return
        for member, stages in repaired:
            self.recoveries.append(stages)
            member.restarts += 1

    def _spare(self, action: supervisor.Spare) -> None:
        self.lives.stand_by(self.tasks[action.name])

    def _stop(self, action: supervisor.Stop) -> None:
        self.lives.ask_to_leave(self.tasks[action.name])

    def _kill(self, action: supervisor.Kill) -> None:
        task = self.tasks[action.name]
        self.lives.kill(task, action.why)
        for member in task.housemates:
            self.say("killed", f"{member.name}#{member.life}", action.why)

    def _ping(self, action: supervisor.Ping) -> None:
        for member in self.tasks[action.name].housemates:  # one of them is free to answer
            self.lives.post(member, "tell", wire.NOTICE_PING)

    def _settle(self, action: supervisor.Settle) -> None:
        task = self.tasks[action.name]
        self.lives.settle(task, syscalls.FAILED if action.failed else syscalls.STOPPED)
        if action.failed:
            why = task.stages.cause if task.stages else "never started"
            for member in task.housemates:
                self.say("failed", member.name, f"{why}; not restarted")

    def _bring_down(self, action: supervisor.BringDown) -> None:
        self._over = action.why

    @property
    def lives(self) -> Lives:
        assert self._lives is not None, "only while it runs"
        return self._lives

    # --- deaths ---------------------------------------------------------------------------------

    def _ended(self, task: Task) -> None:
        """A process is dead: bury it, do what the supervisor says, tell its callers."""
        self._drain()  # its last words to the kernel came before its death
        child, deaths = self.supervisor.children.get(task.name), self.lives.bury(task)
        stages = deaths[0].stages
        if child is None:  # a command: it runs once, whatever its end
            self.lives.settle(task, syscalls.STOPPED)
            self.lives.sweep()
            return
        if task.name == MACHINE and child.proven and not self.supervisor.down:
            self._failed = f"the machine died ({stages.cause}): power is off"
            return
        unasked = child.intent is supervisor.Intent.NONE and not self.supervisor.down
        for death in deaths:
            death.task.stages = death.stages if unasked else None
        self._act(Died(task.name, stages.status, random.random()))
        # What it left behind ends with the next round: its clients wait for the next life.
        for death in deaths:
            self._tell_death(death, unasked)

    def _tell_death(self, death: Death, unasked: bool) -> None:
        task, stages, case = death
        if unasked:
            self.say("died", f"{task.name}#{stages.life}", stages.cause)
        if case is not None:
            note = f"operation {case.note.opcode} with {case.note.length} bytes"
            kind = "poison" if case in self.quarantined(task) else "suspect"
            self.say(kind, task.name, f"{note} was in hand at {count(case.deaths, 'death')}")

    def _spare_ended(self, task: Task) -> None:
        self._act(SpareDied(task.name))
        self.lives.sweep()
        self.say("died", f"{task.name} (standby)", "while it stood by")

    def _kernel_died(self) -> None:
        self._failed = KERNEL_DIED
        self.selector.unregister(self._kernel_fd())

    # --- the loop -------------------------------------------------------------------------------

    def pump(self, timeout_s: float) -> None:
        """Handle what happens within `timeout_s`, returning after the first batch of it.

        Raises SystemDown when the kernel or the machine is dead, or a critical server given up.
        """
        self._drain()
        for key, _ in self.selector.select(self._patience_s(timeout_s)):
            key.data()
        self._drain()
        self._pass_time()
        for check in self.after_events:
            check()
        if self._failed or self._over:
            why, self._over = self._failed or self._over, ""
            raise SystemDown(why, may_reboot=bool(self._failed))

    def _patience_s(self, timeout_s: float) -> float:
        due_s = min(supervisor.next_due_s(self.supervisor), self._rounds.due_s)
        return max(0.0, min(timeout_s, due_s - time.monotonic()))

    def _pass_time(self) -> None:
        if self.kernel is None or self._failed:
            return
        now_s = time.monotonic()
        if now_s >= supervisor.next_due_s(self.supervisor):
            self._act(Tick())
        if now_s >= self._rounds.due_s:
            self._act(*self._rounds.go(self.tasks, self.lives, self.slots))

    def _drain(self) -> None:
        """Take what the kernel has said on its own."""
        if self.kernel is None or self._failed == KERNEL_DIED:
            return
        while (m := self.kernel.connection.poll_notice()) is not None:
            if m.op == wire.NOTICE and m.opcode == wire.NOTICE_EVENT:
                self._event(*wire.unpack(m.body))
            else:
                self.kernel.connection.put_aside(m)

    def _event(self, kind: str, slot: str, life: int, detail: str) -> None:
        task = self.tasks.get(slot)
        if task is None or task.life != life:
            return
        if kind == syscalls.EVENT_READY:
            self._came_up(task)
        elif kind == syscalls.EVENT_SERVING:
            if task.stages is not None and not task.stages.serving_ns:
                stages = task.stages
                stages.hello_ns, stages.ready_ns, stages.serving_ns = map(int, detail.split())
        elif kind == syscalls.EVENT_LOST:
            self.lives.kill(task, detail)
        self.say(kind, f"{slot}#{life}", detail)

    def _came_up(self, task: Task) -> None:
        task.state = syscalls.READY
        if task.stages is not None and not task.stages.ready_ns:
            task.stages.ready_ns = time.monotonic_ns()
        lead = task.lead
        whole = all(member.state == syscalls.READY for member in lead.housemates)
        if whole and lead.name in self.supervisor.children:
            self._act(Ready(lead.name))

    def say(self, kind: str, who: str, text: str) -> None:
        """Remember and tell that something happened."""
        number, at, at_ns = next(self._numbers), time.time(), time.monotonic_ns()
        self.events.append(Happened(number, at, kind, who, text, at_ns))
        self.tell(kind, who, text)

    # --- what people ask for --------------------------------------------------------------------

    def signal(self, name: str, signo: int) -> None:
        """Send a signal to a task's process, which is that of its housemates too; a death from it
        is handled like any other."""
        task, now_ns = self._living(name), time.monotonic_ns()
        for member in task.housemates:
            member.meddled = True
            if signo in LETHAL:
                member.killed_ns = now_ns
        assert task.process is not None
        task.process.send(signo)

    def restart(self, name: str) -> None:
        """A fresh life, whatever the restart limits say; FAILED and STOPPED servers too. Those that
        share its process get one as well."""
        self._act(Wanted(self.task(name).lead.name, True))

    def stop(self, name: str) -> None:
        """End a server in order, with those that share its process; it stays stopped until it is
        restarted."""
        self._act(Wanted(self.task(name).lead.name, False))

    def reach(self, interface: type[I], name: str, badge: int = 0) -> I:
        """A stub of a server, or of the object behind one of its badges, for the launcher itself.
        A call through it waits for the answer, though not for long."""
        assert self.kernel is not None
        if (name, badge) not in self._reached:  # one capability for each is enough
            self._reached[name, badge] = self.task(name).control.endpoint(badge)
        return bind(interface, self.kernel.connection, self._reached[name, badge], REACH_S)

    def quarantined(self, task: Task) -> list[Case]:
        """Requests that no life of this task is given any more."""
        return task.box.quarantined

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
            task = self._another(f"{name}.{number}", template.spec)
        task.argv, task.stdio, task.directory = argv, stdio, directory
        self.lives.start(task)
        return task

    def _another(self, name: str, spec: Server) -> Task:
        """One more slot of a kind; the one that was made before, when there was need."""
        assert self.kernel is not None
        if name not in self.tasks:
            self.tasks[name] = board.new_server(self.kernel, name, spec, self.wiring)
        return self.tasks[name]

    def slots(self) -> dict[str, SlotRow]:
        """What the kernel says of every slot."""
        return {row.name: row for row in self.control().slots()}

    def caps(self) -> list[CapRow]:
        """Every capability, parents before children."""
        rows: list[CapRow] = []
        while page := self.control().caps(len(rows)):
            rows += page
        return rows

    def control(self) -> Control:
        """The kernel, as the root task may use it."""
        assert self.kernel is not None
        return self.kernel.control()

    def _kernel_fd(self) -> int:
        assert self.kernel is not None
        return self.kernel.fd

    # --- the end --------------------------------------------------------------------------------

    def down(self) -> None:
        """Stop in reverse order and leave nothing: no process, no socket, no file. Repeatable."""
        self.supervisor.down = True
        if self.kernel is not None and not self._failed:
            for task in reversed(self._in_start_order()):
                with contextlib.suppress(SystemDown):
                    self._stop_task(task)
        if self._lives is not None:
            self._lives.sweep()
        for task in self.tasks.values():
            for process in (task.process, task.spare):
                if process is not None:
                    process.send(signal.SIGKILL)
                    process.wait()
            task.process = task.spare = None
            self.lives.drop_line(task)
            task.box.close()
            task.company.clear()  # a ring: it would keep their memory until it is collected
        self.tasks.clear()
        if self.kernel is not None:
            self.kernel.close()
        self.cables.close()
        if self.zygote is not None:
            self.zygote.close()
            orphans.end_all_children(self.run.path)
        self.selector.close()
        self.kernel = self.zygote = None
        self.run.remove()

    def _in_start_order(self) -> list[Task]:
        order = [MACHINE, *(name for unit in units(self.file.manifest) for name in unit.members)]
        first = [self.tasks[name] for name in order if name in self.tasks]
        return [*first, *(t for t in self.tasks.values() if t not in first)]

    def _stop_task(self, task: Task) -> None:
        """Ask, wait a moment, insist."""
        process, deadline = task.process, time.monotonic() + STOP_S
        if task.lead.name in self.supervisor.children:
            self._act(Wanted(task.lead.name, False))
        elif process is not None:
            self.lives.ask_to_leave(task)
        while task.process is process and process is not None:
            if time.monotonic() > deadline:
                process.send(signal.SIGKILL)
            self.pump(STOP_S)


DO: dict[type, Callable[[System, Any], None]] = {
    supervisor.Start: System._start,
    supervisor.Spare: System._spare,
    supervisor.Stop: System._stop,
    supervisor.Kill: System._kill,
    supervisor.Ping: System._ping,
    supervisor.Settle: System._settle,
    supervisor.BringDown: System._bring_down,
}

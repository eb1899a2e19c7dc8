"""stage: the system that an experiment plays on, over all boots of the run.

Every disk begins blank, in a directory that ends with the run. The lives of a slot are counted
over all boots, so that each is one and no other; so are their repairs.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from selectors import BaseSelector

from launcher import vitals
from launcher.board import MACHINE
from launcher.chaos.checks import SameConnection
from launcher.chaos.ensemble import with_cast
from launcher.chaos.experiment import Experiment, ExperimentFile
from launcher.chaos.injecting import Life
from launcher.chaos.values import link_ends
from launcher.chaos.wiretap import WiretapError, Wiretaps
from launcher.chaos.workload import Download
from launcher.kernel import KERNEL_DIED, SystemDown
from launcher.supervisor import Phase
from launcher.system import System
from launcher.tasks import Stages, Task
from ukernel.abi.manifest import VirtioBlk
from ukernel.abi.syscalls import READY
from ukernel.lib.mischief import BREAKABLE

SETTLE_S = 40.0  # until everybody is READY again: no back-off is longer
LOOK_S = 0.05
WITH_POWER = "ended with the power"
OVER = (Phase.FAILED, Phase.STOPPED)

Armed = Callable[[BaseSelector], AbstractContextManager[None]]
Tell = Callable[[str, str, str], None]


class NotSettled(Exception):
    """The system did not come to rest; the text says who was what."""


class Stage:
    """The running system of one experiment. Use it as a context: nothing is left of it."""

    def __init__(self, file: ExperimentFile, scratch: Path, tell: Tell, armed: Armed) -> None:
        """`armed` is entered around each boot: with it a signal ends the run in order."""
        self.file = file
        self.armed = armed
        self.scratch = scratch
        self.tell = tell
        self.cast, self.through = with_cast(file)
        self.boots = 0
        self.system: System
        self.struck: set[Life] = set()  # lives that something lethal has met
        self.held: set[Life] = set()  # suspended lives
        self.in_force: set[tuple[str, str]] = set()  # disturbances: a device or link, a fault
        self.cut: set[Life] = set()  # lives whose repair ended with the power, or that did
        self.taps = Wiretaps(tapped(file.experiment), scratch)
        self._context = ExitStack()
        self._before: Counter[str] = Counter()  # lives of each slot in earlier boots
        self._past: list[Stages] = []  # repairs of earlier boots

    def __enter__(self) -> Stage:
        self._boot()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._note(error)
        self._down()

    # --- power ----------------------------------------------------------------------------------

    def _boot(self) -> None:
        self.boots += 1
        self.system = System(
            self.cast,
            name=f"chaos-{os.getpid()}",
            images=self._images(),
            on_event=self.tell,
            through=self.through,
            mischief=BREAKABLE,
        )
        try:
            self._context.enter_context(self.armed(self.system.selector))
            self.system.boot()
            self.taps.begin(self.system)
        except WiretapError as error:
            self._down()
            raise NotSettled(str(error)) from None
        except BaseException as error:
            self._note(error)
            self._down()
            raise

    def _note(self, error: BaseException | None) -> None:
        """Keep the last words of the machine, or of the kernel, before its log is gone."""
        if isinstance(error, SystemDown) and not hasattr(error, "__notes__"):
            who = "kernel" if str(error) == KERNEL_DIED else MACHINE
            for line in vitals.tail(self.system.run.log(who)):
                error.add_note(line)

    def _down(self) -> None:
        self.taps.cut()
        self._context.close()
        self.system.down()

    def _images(self) -> dict[str, Path]:
        hardware = self.cast.manifest.hardware
        disks = (name for name, device in hardware.items() if isinstance(device, VirtioBlk))
        return {name: self.scratch / f"{name}.img" for name in disks}

    def reboot(self) -> None:
        """Cut the power, if it is not off yet, and boot again from the same images."""
        machine = self.system.tasks[MACHINE]
        if machine.process is not None:
            machine.process.send(signal.SIGKILL)
            with ends_with_power():
                while True:
                    self.pump(LOOK_S)
        self._end_boot()
        self._down()
        self._boot()

    def _end_boot(self) -> None:
        """What was being repaired when the power went never will be."""
        past, tasks = self.repairs(), self.system.tasks
        known = {(repair.server, repair.life) for repair in past}
        now_ns = time.monotonic_ns()
        last = {self.life(task): task for task in tasks.values() if task.process is not None}
        past += [
            Stages(*life, -signal.SIGKILL, WITH_POWER, last[life].killed_ns, now_ns, now_ns)
            for life in sorted(self.struck & last.keys() - known)
        ]
        self.cut |= set(cut_short(past[len(self._past) :]))
        self._past = past
        self._before.update({name: task.life for name, task in tasks.items()})

    def pump(self, timeout_s: float) -> None:
        """Let the system go on; SystemDown when its power is off."""
        self.system.pump(timeout_s)

    # --- who is what ----------------------------------------------------------------------------

    def task(self, name: str) -> Task:
        return self.system.tasks[name]

    def middle(self, link: str) -> str:
        """The interposer of `fs->disk`."""
        return self.through[link_ends(link)]

    def booted(self) -> list[Task]:
        """The servers that run from boot, and the machine."""
        leads = [self.system.tasks[name] for name in self.system.supervisor.children]
        return [task for lead in leads for task in lead.housemates]

    def _phase(self, name: str) -> Phase:
        """Where its process is between its lives."""
        return self.system.supervisor.children[self.system.tasks[name].lead.name].phase

    def life(self, task: Task) -> Life:
        """Its life, the last if it is dead."""
        return task.name, self._before[task.name] + task.life

    def is_past(self, life: Life) -> bool:
        """Whether this life has been, and is over."""
        task = self.system.tasks[life[0]]
        number = self.life(task)[1]
        return number > life[1] or (number == life[1] and task.process is None)

    def is_ready(self, name: str) -> bool:
        """READY and alive; neither asked to leave, nor killed, be it by whom it may."""
        task = self.system.tasks[name]
        alive = task.process is not None and not (task.killed_ns or task.process.is_dead)
        return alive and task.state == READY and self._phase(name) is Phase.READY

    def is_over(self, name: str) -> bool:
        """Given up or stopped: it does not come back by itself."""
        return self._phase(name) in OVER

    def settle(self) -> None:
        """Wait until everybody is READY, or does not come back. Raises NotSettled."""
        deadline = time.monotonic() + SETTLE_S
        names = [task.name for task in self.booted()]
        while restless := [n for n in names if not (self.is_ready(n) or self.is_over(n))]:
            if time.monotonic() > deadline:
                states = ", ".join(f"{name} is {self.task(name).state}" for name in restless)
                raise NotSettled(f"after {SETTLE_S:g} s {states}")
            self.pump(LOOK_S)

    # --- what has been --------------------------------------------------------------------------

    def repairs(self) -> list[Stages]:
        """Of all boots, in their order; and the deaths that nobody has repaired."""
        tasks, now = self.system.tasks.values(), self.system.recoveries
        open_ends = [t.stages for t in tasks if t.stages is not None and not t.stages.spawned_ns]
        return [*self._past, *map(self._numbered, [*now, *open_ends])]

    def _numbered(self, repair: Stages) -> Stages:
        return dataclasses.replace(repair, life=self._before[repair.server] + repair.life)

    def death(self, life: Life) -> Stages | None:
        """The end of a life of this boot; None when it was asked to leave, or has not ended."""
        name, number = life[0], life[1] - self._before[life[0]]
        last = self.system.tasks[name].stages
        deaths = [*([last] if last else []), *reversed(self.system.recoveries)]
        return next((d for d in deaths if (d.server, d.life) == (name, number)), None)

    def rules_broken(self, name: str) -> int:
        """How often the kernel has held something against this slot."""
        return self.system.slots()[name].faults


def tapped(experiment: Experiment) -> list[str]:
    """The cards whose frames must be seen."""
    asked = any(isinstance(checker, SameConnection) for checker in experiment.checkers)
    cards = [c.device for c in experiment.workload if asked and isinstance(c, Download)]
    return [*dict.fromkeys(filter(None, cards))]


def cut_short(repairs: Sequence[Stages]) -> Iterator[Life]:
    """Lives whose server had not replied again when it was the end of these repairs."""
    replied = set()
    for repair in reversed(repairs):
        if repair.serving_ns:
            replied.add(repair.server)
        elif repair.server not in replied:
            yield repair.server, repair.life


@contextlib.contextmanager
def ends_with_power() -> Iterator[None]:
    """Until the power is off; a dead kernel is something else."""
    try:
        yield
    except SystemDown as error:
        if not is_power_cut(error):
            raise


def is_power_cut(error: SystemDown) -> bool:
    """The machine is dead, and nothing else."""
    return error.may_reboot and str(error) != KERNEL_DIED

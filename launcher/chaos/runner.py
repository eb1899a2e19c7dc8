"""runner: one experiment from boot to verdicts. Steady state, faults, quiet, evidence, checkers.

Whatever the run meets ends in verdicts: a system that was not steady before the first fault was
not tested (UNKNOWN), and one that is not steady after the last, or dies of the faults, is BROKEN.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path

from launcher.chaos import beside, probes, radius, sweep, witness
from launcher.chaos.actions import performer
from launcher.chaos.cast import Cast
from launcher.chaos.checks import BlastRadiusAsPredicted, NoLeak
from launcher.chaos.ensemble import with_clients
from launcher.chaos.evidence import Evidence, Result, Verdict
from launcher.chaos.experiment import ExperimentFile
from launcher.chaos.injecting import Injecting
from launcher.chaos.nemesis import Sweep
from launcher.chaos.outside import check_programs
from launcher.chaos.plan import ends_s, kills, legs, plan
from launcher.chaos.player import ClientFailed
from launcher.chaos.rollbacks import roll_back
from launcher.chaos.schedule import Nemesis
from launcher.chaos.stage import Armed, NotSettled, Stage, Tell, is_power_cut, tapped
from launcher.chaos.verdicts import verdicts
from launcher.chaos.witness import Witness
from launcher.kernel import KERNEL_DIED, SystemDown
from launcher.system import BootError
from ukernel.abi.syscalls import FAILED

WARM_S = 1.0  # of work before the steady state is looked at
GRACE_S = 20.0  # after the plan's end, for faults whose targets were never READY
TURN_S = 0.05
KEPT_S = 2.5  # until a server has let go of what nobody asks for any more
STEADY, WORKLOAD, SYSTEM, BESIDE = "steady_state", "workload", "system", "beside"


class Aborted(Exception):
    """The experiment could not be done; nothing has been shown."""


class Run:
    """One run of an experiment. `tell` hears what happens; `progress` how far it is, 0 to 1."""

    def __init__(
        self,
        file: ExperimentFile,
        seed: int | None = None,
        tell: Tell = lambda kind, who, text: None,
        progress: Callable[[float], None] = lambda part: None,
        armed: Armed = lambda selector: nullcontext(),
    ) -> None:
        self.file = file
        self.experiment = file.experiment
        self.seed = file.experiment.seed if seed is None else seed
        self.tell = tell
        self.progress = progress
        self.armed = armed
        placement = file.system.manifest.placement
        self.evidence = Evidence(seed=self.seed, placement=placement)
        self.verdicts: list[Verdict] = []
        self.manifest = with_clients(file)
        self._injections: list[Injecting] = []
        self._watcher: Witness | None = None
        self._unseen = ""  # why nobody could look at what is there in the end

    def run(self) -> list[Verdict]:
        """Do it; the verdicts, of the steady state and of each checker. Raises ConfigError, before
        anything is started, when the host cannot do it."""
        check_programs(self.file)
        with tempfile.TemporaryDirectory(prefix="ukernel-chaos-") as scratch:
            cast = Cast(self.experiment.workload, self.seed, Path(scratch))
            try:
                with Stage(self.file, Path(scratch), self.tell, self.armed) as stage, cast:
                    self._play(stage, cast)
            except Aborted as error:
                self._say(STEADY, Result.UNKNOWN, str(error))
            except ClientFailed as error:
                self._say(WORKLOAD, Result.UNKNOWN, str(error))
            except (SystemDown, BootError, NotSettled, ConnectionError) as error:
                self._went_down(error)
            if not self.evidence.ended_ns:
                self._keep(cast)
        if self.evidence.ended_ns:
            self._do_beside()
            self.verdicts += verdicts(self.experiment.checkers, self.evidence, self._unseen)
        return self.verdicts

    def _do_beside(self) -> None:
        """The same in the other placement, if there is one. What prevents it is no verdict on the
        system that was asked about."""
        if self.experiment.beside is None:
            return
        with tempfile.TemporaryDirectory(prefix="ukernel-chaos-") as scratch:
            try:
                self.evidence.beside = beside.play(
                    self.file, self.seed, Path(scratch), self.tell, self.armed
                )
            except (SystemDown, BootError, NotSettled, ConnectionError, ClientFailed) as error:
                self._say(BESIDE, Result.UNKNOWN, str(error))

    def _went_down(self, error: Exception) -> None:
        """It is to blame on the faults, if there were any."""
        self._unseen = str(error)
        self.evidence.kernel_alive = str(error) != KERNEL_DIED
        why = "\n  ".join([str(error), *getattr(error, "__notes__", ())])
        if self.evidence.begun_ns:
            self._say(SYSTEM, Result.BROKEN, why)
        else:
            self._say(STEADY, Result.UNKNOWN, f"before the first fault: {why}")

    def _say(self, what: str, result: Result, why: str) -> None:
        self.verdicts.append(Verdict(what, result, why))

    # --- the run --------------------------------------------------------------------------------

    def _play(self, stage: Stage, cast: Cast) -> None:
        made = self.evidence.prepared = {**cast.prepare(stage)}
        cast.rehearse(stage)
        at_rest = self._at_rest(stage)
        cast.start(stage)
        cast.work(stage, WARM_S)
        self.evidence.before = witness.snapshot(stage, at_rest, cast.outsiders)
        if before := self._unsteady(stage, cast):
            raise Aborted(f"before the first fault: {'; '.join(before)}")
        if self.experiment.calm_s is not None:
            self.evidence.calm_ns = time.monotonic_ns()
            cast.work(stage, self.experiment.calm_s)
        stretches: list[sweep.Stretch] = []
        if self.experiment.sweep is None:
            self._break(stage, cast)
        else:
            stretches = self._sweep(stage, cast, self.experiment.sweep)
        self._calm_down(stage, cast)
        in_use = witness.snapshot(stage, {}, cast.outsiders)
        cast.end(stage)
        stage.taps.end()
        self.evidence.after = in_use._replace(counters=self._at_rest(stage))
        if self.experiment.sweep is not None:
            player = cast.player(self.experiment.sweep.client)
            self.evidence.sweep = sweep.measured(stretches, player, made[player.name])
        self._gather(stage, cast)
        self._look(stage, cast)

    def _at_rest(self, stage: Stage) -> witness.Counters:
        """What the kernel counts when nobody works. Who serves those outside may keep what it has
        opened for the next of them."""
        asked = any(isinstance(checker, NoLeak) for checker in self.experiment.checkers)
        if asked and any(client.outside for client in self.experiment.workload):
            end = time.monotonic() + KEPT_S
            while (left_s := end - time.monotonic()) > 0:
                stage.pump(min(left_s, TURN_S))
        return witness.at_rest(stage)

    def _unsteady(self, stage: Stage, cast: Cast) -> list[str]:
        return [*probes.wrong(stage, cast.recent(), self.experiment.steady_state)]

    def _calm_down(self, stage: Stage, cast: Cast) -> None:
        """Put right what the experiment says, wait until all are READY, and look at a quiet system
        as at the begin."""
        try:
            roll_back(stage, self.experiment.rollbacks)
            stage.settle()
        except NotSettled as error:
            self._say(STEADY, Result.BROKEN, str(error))
            return
        cast.mark()
        cast.work(stage, self.experiment.quiet_s)
        after = self._unsteady(stage, cast)
        self._say(STEADY, Result.BROKEN if after else Result.HELD, "; ".join(after) or "as before")

    # --- faults ---------------------------------------------------------------------------------

    def _sweep(self, stage: Stage, cast: Cast, swept: Sweep) -> list[sweep.Stretch]:
        self.evidence.begun_ns = time.monotonic_ns()
        stretches: list[sweep.Stretch] = []
        for leg in (planned := legs(swept, self.seed)):
            killed = kills(leg, swept.target, len(self._injections))
            with closing(Nemesis(killed, performer(stage))) as nemesis:
                self._injections += nemesis.injections
                stretches.append(sweep.run_leg(stage, cast, leg, nemesis))
            self.progress(len(stretches) / len(planned))
        return stretches

    def _break(self, stage: Stage, cast: Cast) -> None:
        """Carry the plan out. The system may lose its power meanwhile, and is booted again."""
        planned = plan(self.experiment, self.seed)
        felt = any(isinstance(c, BlastRadiusAsPredicted) for c in self.experiment.checkers)
        self._watcher = Witness(stage) if felt else None
        self.evidence.begun_ns = time.monotonic_ns()
        with closing(Nemesis(planned, performer(stage))) as nemesis:
            self._injections += nemesis.injections
            nemesis.begin(self.evidence.begun_ns)
            self._carry_out(stage, cast, nemesis, max(ends_s(planned), 0.001))

    def _carry_out(self, stage: Stage, cast: Cast, nemesis: Nemesis, whole_s: float) -> None:
        while not nemesis.over:
            with self._power(stage, cast, nemesis):
                if self._watcher is not None and stage.boots == 1:
                    self._watcher.watch(nemesis.calm)
                stage.pump(min(nemesis.act(), TURN_S))
                cast.check()
            self.progress(min(1.0, nemesis.elapsed_s / whole_s))
            if nemesis.elapsed_s > whole_s + GRACE_S:
                nemesis.give_up()

    @contextmanager
    def _power(self, stage: Stage, cast: Cast, nemesis: Nemesis) -> Iterator[None]:
        """Inside, the power may be cut on purpose, after which everything is booted again."""
        try:
            yield
        except SystemDown as error:
            if not (nemesis.cuts_power and is_power_cut(error)):
                raise
            cut_ns = time.monotonic_ns()
            cast.lost_power()
            stage.reboot()
            cast.start(stage)
            nemesis.power_is_back(time.monotonic_ns() - cut_ns)

    # --- evidence -------------------------------------------------------------------------------

    def _keep(self, cast: Cast) -> None:
        """What is known of a run that did not come to its end."""
        self.evidence.injections = [injecting.record for injecting in self._injections]
        self.evidence.history = cast.operations()
        self.evidence.lines, self.evidence.health = cast.lines(), cast.health()

    def _gather(self, stage: Stage, cast: Cast) -> None:
        self._keep(cast)
        evidence = self.evidence
        evidence.ended_ns = time.monotonic_ns()
        evidence.transfers = cast.transfers()
        if tapped(self.experiment):
            since_ns = min(
                (op.begun_ns for op in evidence.history), default=0
            )  # the rehearsal's end
            evidence.connections = [c for c in stage.taps.connections if c.opened_ns >= since_ns]
            evidence.unheard = stage.taps.unheard
        evidence.recoveries = witness.recoveries(
            stage.repairs(),
            self._injections,
            stage.cut,
            evidence.history,
            radius.dependents(self.manifest, self.experiment),
        )
        assert evidence.after is not None
        evidence.calls_open = evidence.after.counters["calls_open"]
        evidence.failed = tuple(task.name for task in stage.booted() if task.state == FAILED)
        evidence.bystanders = tuple(c.client for c in self.experiment.workload if c.bystander)
        if self._watcher is not None and self._injections and stage.boots == 1:
            evidence.predicted = radius.predicted(
                self.manifest, self.experiment, self._injections, evidence.recoveries
            )
            self._watcher.fetch()
            evidence.observed = self._watcher.observed(evidence.recoveries)

    def _look(self, stage: Stage, cast: Cast) -> None:
        """Read back what is there, now and after a boot from the same image."""
        try:
            self.evidence.found = cast.find(stage)
            if self.experiment.reboot and self.file.system.manifest.hardware:
                stage.reboot()
                self.evidence.found_after_reboot = cast.find(stage)
        except ClientFailed as error:
            self._unseen = str(error)

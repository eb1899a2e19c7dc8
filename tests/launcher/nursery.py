"""nursery: processes for a supervisor to keep, and the law that it is held to.

A simple account of each server says what every event must lead to: all that is not a `Start` must
be said exactly, and in order. When a `Start` comes is less fixed; it has to be lawful, and nobody
may wait for a start that never comes.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass, field

from launcher import supervisor
from launcher.heartbeat import Vital
from launcher.supervisor import (
    Action,
    BringDown,
    Died,
    Event,
    Kill,
    Ping,
    Ready,
    Round,
    Settle,
    Spare,
    SpareDied,
    Start,
    State,
    Stop,
    Tick,
    Wanted,
    decide,
    next_due_s,
)
from ukernel.abi.exits import NO_RESTART
from ukernel.abi.manifest import Backoff, Heartbeat, Restart, Server

MEMORY = 1000
STATUSES = (-9, -11, 1, 0, 0, NO_RESTART)


@dataclass
class Account:
    """What is known of one server, by one who only watches."""

    spec: Server
    fate: str = "new"  # up, waiting, stopped, failed
    born: int = 0  # number of the event that started its life
    died: int = 0  # number of the event that told of its last death
    since_s: float = 0.0  # of STARTING, or of leaving
    corpse: int | None = None  # exit status of a death that nobody has noticed
    ready_s: float = 0.0
    proven: bool = False
    leaving: str = ""  # rest, again, along, or shot: killed, which is a death like others
    shot: bool = False
    leader: str = ""  # who had it leave, along
    crashed: bool = False  # waiting after a death of its own
    wished: bool = False  # waiting because a person wants it
    due_s: float = 0.0
    delay_ms: float = 0.0
    comebacks: list[float] = field(default_factory=list)  # starts after deaths of its own
    spare: bool = False
    spare_due_s: float = 0.0

    @property
    def up(self) -> bool:
        return self.fate == "up"

    @property
    def limit_s(self) -> float:
        """Until when it has to be READY, or gone."""
        if self.leaving:
            return self.since_s + supervisor.STOP_S
        starting = self.up and not self.ready_s
        return self.since_s + self.spec.restart.ready_timeout_s if starting else supervisor.NEVER


class Nursery:
    """A supervisor, what it keeps, and a clock that only we move."""

    def __init__(self, servers: dict[str, Server], groups: dict[str, tuple[str, ...]]) -> None:
        self.state = State(servers, groups)
        self.groups = groups
        self.accounts = {name: Account(spec) for name, spec in servers.items()}
        self.order = list(servers)
        self.now_s = 1000.0
        self.events = 0
        self.down = False

    # --- what may happen ------------------------------------------------------------------------

    def tell(self, event: Event) -> list[Action]:
        """Let something happen; what was decided, after it was held against the law and done."""
        self.events += 1
        expected = self._expected(event)
        actions = decide(self.state, event, self.now_s)
        starts = [a for a in actions if isinstance(a, Start)]
        pings = [a for a in actions if isinstance(a, Ping)]
        rest = [a for a in actions if a not in starts and a not in pings]
        assert [_plain(a) for a in rest] == [_plain(a) for a in expected]
        assert actions[len(actions) - len(starts) :] == starts
        assert starts == sorted(set(starts), key=lambda a: self.order.index(a.name))
        assert not pings or isinstance(event, Round)
        assert all(self.accounts[a.name].ready_s for a in pings)
        for start in starts:
            self._start(start.name)
        by_hand = isinstance(event, Wanted) and event.name
        for start in starts:
            self._check_leader(start.name, by_hand)
        self._check_progress()
        return actions

    def want(self, name: str, running: bool) -> list[Action]:
        return self.tell(Wanted(name, running))

    def die(self, name: str, status: int) -> None:
        """Its process ends, which the supervisor does not know yet."""
        a = self.accounts[name]
        if a.up and a.corpse is None:
            a.corpse = status

    def notice(self, name: str, luck: float = 0.5) -> list[Action]:
        """The supervisor is told of a death, if there was one."""
        corpse = self.accounts[name].corpse
        return [] if corpse is None else self.tell(Died(name, corpse, luck))

    def lose(self, name: str, status: int = -9, luck: float = 0.5) -> list[Action]:
        """It dies and is missed at once."""
        self.die(name, status)
        return self.notice(name, luck)

    def ready(self, name: str) -> None:
        a = self.accounts[name]
        if a.up and not a.ready_s:
            self.tell(Ready(name))

    def start(self, *names: str) -> None:
        """Have them started and READY."""
        for name in names or self.order:
            self.want(name, True)
            self.ready(name)

    def spare_dies(self, name: str) -> None:
        if self.accounts[name].spare:
            self.tell(SpareDied(name))

    def wait(self, seconds: float) -> list[Action]:
        self.now_s += seconds
        return self.tell(Tick())

    def wait_due(self) -> list[Action]:
        """The next Tick that was asked for. Afterwards another one is due, later, or none."""
        due_s = next_due_s(self.state)
        if due_s == supervisor.NEVER:
            return []
        self.now_s = max(self.now_s, due_s)
        actions = self.tell(Tick())
        assert next_due_s(self.state) > self.now_s, "it would be woken for ever"
        return actions

    def look(self, gluttons: Iterable[str] = ()) -> list[Action]:
        """A round in which everybody is well, but some have eaten too much."""
        self.now_s += 0.1
        vitals = {
            name: Vital(self.now_s, used_bytes=MEMORY + (name in gluttons))
            for name, a in self.accounts.items()
            if a.up
        }
        return self.tell(Round(vitals))

    def go_down(self) -> None:
        self.down = self.state.down = True

    def run_out(self) -> None:
        """Everybody who was asked to leave leaves, all time passes: nobody may be left waiting."""
        for _ in range(20 * len(self.order)):
            for name, a in self.accounts.items():
                if a.leaving:
                    self.die(name, 0)
                self.notice(name)
            for name in self.order:
                self.ready(name)
            if self.wait_due() == [] and not any(a.leaving for a in self.accounts.values()):
                break
        for a in self.accounts.values():
            assert a.fate != "waiting" or self.down
            assert not a.up or (a.ready_s and not a.leaving)

    # --- what each event must lead to -----------------------------------------------------------

    def _expected(self, event: Event) -> list[Action]:
        """Everything but the starts, by the accounts, which are brought up to date."""
        match event:
            case Wanted(name, running):
                return self._wanted(name, running)
            case Ready(name):
                return self._ready(name)
            case Died(name, status, luck):
                return self._died(name, status, luck)
            case SpareDied(name):
                a = self.accounts[name]
                a.spare, a.spare_due_s = False, self.now_s + supervisor.SPARE_S
                return []
            case Tick():
                return [action for name in self.order for action in self._passed(name)]
            case Round(vitals):
                return [
                    self._shoot(name)
                    for name in self.order
                    if name in vitals
                    and vitals[name].used_bytes > MEMORY
                    and self.accounts[name].ready_s
                    and not self.accounts[name].leaving
                ]

    def _wanted(self, name: str, running: bool) -> list[Action]:
        a = self.accounts[name]
        a.comebacks, a.delay_ms = [], 0.0
        if a.up:
            return self._leaves(name, "again" if running else "rest")
        if running and not self.down:
            return self._is_to_wait(name, self.now_s, wished=True)
        return self._settled(name, "stopped")

    def _leaves(self, name: str, why: str, leader: str = "") -> list[Action]:
        a = self.accounts[name]
        before, a.leaving, a.leader = a.leaving, why, leader
        if before:
            return []
        a.since_s = self.now_s
        return [Stop(name)]

    def _ready(self, name: str) -> list[Action]:
        a = self.accounts[name]
        if not a.leaving:
            a.proven, a.ready_s = True, self.now_s
            a.spare_due_s = max(a.spare_due_s, self.now_s + supervisor.CALM_S)
        return []

    def _died(self, name: str, status: int, luck: float) -> list[Action]:
        a = self.accounts[name]
        why, stable = a.leaving, a.ready_s and self.now_s - a.ready_s >= 60
        a.corpse, a.died = None, self.events
        policy = a.spec.restart
        if self.down or why == "rest":
            return self._settled(name, "stopped")
        if why == "again":
            return self._is_to_wait(name, self.now_s, wished=True)
        if why == "along" and status != NO_RESTART:
            if policy.when == "never":
                return self._settled(name, "stopped")
            return self._is_to_wait(name, self.now_s)
        if status == 0 and policy.when != "always" and not a.shot:
            return self._settled(name, "stopped")
        recent = [at for at in a.comebacks if self.now_s - at <= policy.within_s]
        hopeless = status == NO_RESTART or policy.when == "never" or not a.proven
        if hopeless or len(recent) >= policy.max_restarts:
            return self._settled(name, "failed")
        if stable:
            a.delay_ms = 0.0
        jitter = 1 + policy.backoff.jitter * (2 * luck - 1)
        self._is_to_wait(name, self.now_s + a.delay_ms * jitter / 1000, crashed=True)
        longer = a.delay_ms * policy.backoff.factor if a.delay_ms else policy.backoff.first_ms
        a.delay_ms = min(longer, policy.backoff.max_ms)
        return [
            action
            for c in reversed(self.companions(name))
            for action in self._is_taken_along(c, name)
        ]

    def _is_taken_along(self, name: str, leader: str) -> list[Action]:
        a = self.accounts[name]
        if a.up and not a.leaving:
            return self._leaves(name, "along", leader)
        led = a.leader and self.accounts[a.leader].fate == "waiting"
        if not led and (a.fate == "waiting" or a.leaving == "along"):
            a.leader = leader
        return []

    def _is_to_wait(
        self, name: str, due_s: float, *, crashed: bool = False, wished: bool = False
    ) -> list[Action]:
        a = self.accounts[name]
        a.fate, a.due_s, a.crashed, a.wished = "waiting", due_s, crashed, wished
        a.shot, a.leaving, a.ready_s = False, "", 0.0
        return []

    def _settled(self, name: str, fate: str) -> list[Action]:
        a = self.accounts[name]
        a.fate, a.shot, a.leaving, a.ready_s = fate, False, "", 0.0
        end = [BringDown("")] if fate == "failed" and a.spec.critical else []
        return [Settle(name, fate == "failed"), *end]

    def _passed(self, name: str) -> list[Action]:
        a = self.accounts[name]
        if self.now_s >= a.limit_s:
            return [self._shoot(name)]
        well = a.ready_s and not a.leaving and not self.down
        if well and a.spec.standby and not a.spare and self.now_s >= a.spare_due_s:
            a.spare = True
            return [Spare(name)]
        return []

    def _shoot(self, name: str) -> Action:
        a = self.accounts[name]
        a.shot, a.since_s, a.leaving = True, self.now_s, a.leaving or "shot"
        self.die(name, -9)
        return Kill(name, "")

    def companions(self, name: str) -> list[str]:
        """Whom its restart takes along, in start order."""
        strategy = self.accounts[name].spec.restart.strategy
        group = next((members for members in self.groups.values() if name in members), ())
        at = self.order.index(name)
        chosen = {"one_for_one": [], "rest_for_one": self.order[at:], "one_for_all": self.order}
        return [c for c in chosen[strategy] if c in group and c != name]

    # --- when somebody may start, and when somebody must ----------------------------------------

    def _start(self, name: str) -> None:
        a = self.accounts[name]
        assert a.fate == "waiting", "nobody wants it, or it still lives"
        assert not self.down
        assert self.now_s >= a.due_s, "too soon"
        if a.crashed:
            old = [c for c in self.companions(name) if self._lives_since_before(c, a.died)]
            assert old == [], "they knew the life that crashed"
            policy = a.spec.restart
            a.comebacks.append(self.now_s)
            first = a.comebacks[-policy.max_restarts - 1 :][0]
            assert len(a.comebacks) <= policy.max_restarts or self.now_s - first > policy.within_s
        a.fate, a.born, a.since_s, a.ready_s = "up", self.events, self.now_s, 0.0
        a.spare, a.crashed = False, False

    def _lives_since_before(self, name: str, death: int) -> bool:
        a = self.accounts[name]
        return a.up and a.born < death

    def _check_leader(self, name: str, by_hand: str | bool) -> None:
        """Whoever was taken along comes back with the one that took it, or later."""
        a = self.accounts[name]
        if a.leader and by_hand != name:
            assert self.accounts[a.leader].fate != "waiting", "before the one that took it along"
        a.leader = ""

    def _check_progress(self) -> None:
        """Who waits for time to pass is woken; who waits for nothing has been started."""
        waiting = [a for a in self.accounts.values() if a.fate == "waiting"]
        assert not any(a.wished for a in waiting), "a person has to wait"
        leaving = any(a.leaving for a in self.accounts.values())
        if self.down or not waiting or leaving:
            return
        last_s = max(a.due_s for a in waiting)
        assert self.now_s < last_s, "nothing is in the way"
        assert next_due_s(self.state) <= last_s


def _plain(action: Action) -> Action:
    """Without its words."""
    match action:
        case Kill(name, _):
            return Kill(name, "")
        case BringDown(_):
            return BringDown("")
    return action


def any_system(dice: random.Random) -> Nursery:
    """One to five servers under any policy, some of them in groups."""
    names = "abcde"[: dice.choice([1, 2, 3, 3, 4, 5])]
    groups: dict[str, list[str]] = {"": [], "g": [], "h": []}
    for name in names:
        groups[dice.choice(["", "g", "g", "g", "h"])].append(name)
    servers = {name: _any_server(dice) for name in names}
    return Nursery(servers, {g: tuple(members) for g, members in groups.items() if g})


def _any_server(dice: random.Random) -> Server:
    backoff = Backoff(
        first_ms=dice.choice([0.0, 50.0, 3000.0]),
        factor=dice.choice([1.0, 2.0, 1e9]),
        max_ms=dice.choice([3000.0, 30000.0]),
        jitter=dice.choice([0.0, 0.1, 1.0]),
    )
    restart = Restart(
        when=dice.choice(["crashed", "crashed", "crashed", "always", "never"]),
        max_restarts=dice.choice([0, 1, 3, 3]),
        within_s=dice.choice([1.0, 10.0, 100.0]),
        strategy=dice.choice(["one_for_one", "rest_for_one", "one_for_all"]),
        backoff=backoff,
        ready_timeout_s=dice.choice([0.5, 10.0]),
    )
    return Server(
        run="x",
        standby=dice.random() < 0.3,
        critical=dice.random() < 0.2,
        memory=MEMORY,
        restart=restart,
        heartbeat=Heartbeat(period_ms=dice.choice([0.0, 100.0])),
    )

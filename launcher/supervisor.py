"""supervisor: what to do when lives end, hang or do not come up. Pure: events in, actions out.

    actions = decide(state, event, now_s)

Time comes in with the event, and so does chance. Nothing here knows a process: the launcher does
what the actions say and tells what came of it. As in OTP, a death is answered by a restart, alone
or with others of its group, until there have been more than `max_restarts` within `within_s`;
then the server is given up and its callers are told at once.

Before one life begins the last is certainly dead: `Start` is said in one place, of a server that
is WAITING, and what has a process gets there by `Died` alone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from launcher.heartbeat import Pulse, Vital, ailment, ping_due
from ukernel.abi.exits import NO_RESTART
from ukernel.abi.manifest import Server

STABLE_S = 60.0  # of READY: a death after that is a first one
STOP_S = 2.0  # for an orderly exit, before SIGKILL
CALM_S = 0.05  # a life that is READY has the processor to itself, before it gets a standby
SPARE_S = 1.0  # between the death of a standby and the next one
NEVER = float("inf")


class Intent(Enum):
    """What a server that is leaving was asked for; a death without one is a crash."""

    NONE = ""
    AGAIN = "again"  # a person wants a fresh life
    REST = "rest"  # a person, or the end of the system, wants none
    ALONG = "along"  # another of its group starts again, so it must too


class Phase(Enum):
    """Where a server is between its lives."""

    NEW = "new"
    STARTING = "starting"
    READY = "ready"
    STOPPING = "stopping"  # asked to leave, or killed
    WAITING = "waiting"  # dead, and to start when it is due
    STOPPED = "stopped"  # on purpose, or it was done
    FAILED = "failed"  # given up


UP = (Phase.STARTING, Phase.READY, Phase.STOPPING)


# --- what happens --------------------------------------------------------------------------------


class Ready(NamedTuple):
    """It has set itself up."""

    name: str


class Died(NamedTuple):
    """Its process is certainly dead. `status` as subprocess gives it: -9 is SIGKILL."""

    name: str
    status: int
    luck: float  # 0 to 1, of the jitter


class SpareDied(NamedTuple):
    """Its standby is dead, which nobody had missed yet."""

    name: str


class Wanted(NamedTuple):
    """A person, or the boot, wants it to run, to run anew, or not to run."""

    name: str
    running: bool


class Round(NamedTuple):
    """It was time to look after everybody: what the kernel and Linux said of those that live,
    when they were asked at `now_s`."""

    vitals: Mapping[str, Vital]


class Tick(NamedTuple):
    """Time has passed."""


Event = Ready | Died | SpareDied | Wanted | Round | Tick


# --- what is to be done --------------------------------------------------------------------------


class Start(NamedTuple):
    """Give it its next life."""

    name: str


class Spare(NamedTuple):
    """Get its next life ready, to stand by."""

    name: str


class Stop(NamedTuple):
    """Ask it to leave in order."""

    name: str


class Kill(NamedTuple):
    """End its process."""

    name: str
    why: str


class Ping(NamedTuple):
    """Ask its request loop for a sign of life."""

    name: str


class Settle(NamedTuple):
    """It does not come back by itself: tell its callers. `failed` is not `stopped`."""

    name: str
    failed: bool


class BringDown(NamedTuple):
    """The whole system is to go down in order."""

    why: str


Action = Start | Spare | Stop | Kill | Ping | Settle | BringDown


@dataclass
class Child:
    """What the supervisor remembers of one server."""

    name: str
    spec: Server
    phase: Phase = Phase.NEW
    since_s: float = 0.0  # of the phase
    ready_s: float = 0.0  # when this life was READY; 0: not yet
    proven: bool = False  # has been READY once: what dies in its very first init is misconfigured
    intent: Intent = Intent.NONE
    killed: bool = False  # by us: whatever the exit status says
    wait_ms: float = 0.0  # before the restart after its next death
    restarts: deque[float] = field(default_factory=deque)  # when it started after its own deaths
    crashed: bool = False  # WAITING after such a death
    due_s: float = 0.0  # WAITING: not before this time
    behind: str = ""  # WAITING: nor before this server, which takes it along
    spare: bool = False
    spare_due_s: float = 0.0
    pulse: Pulse = field(default_factory=Pulse)

    def enter(self, phase: Phase, now_s: float) -> None:
        self.phase, self.since_s = phase, now_s


class State:
    """All servers in their start order, and their groups."""

    def __init__(
        self, servers: Mapping[str, Server], groups: Mapping[str, Iterable[str]] | None = None
    ) -> None:
        self.children = {name: Child(name, spec) for name, spec in servers.items()}
        self.group = {n: members for members in map(set, (groups or {}).values()) for n in members}
        self.down = False  # the system is going down: nothing starts any more

    def companions(self, child: Child) -> list[Child]:
        """Whom a restart of `child` takes along, in start order."""
        if child.spec.restart.strategy == "one_for_one":
            return []
        members = self.group.get(child.name, set())
        chosen = [c for c in self.children.values() if c.name in members and c is not child]
        if child.spec.restart.strategy == "rest_for_one":
            order = list(self.children)
            chosen = [c for c in chosen if order.index(c.name) > order.index(child.name)]
        return chosen


def decide(state: State, event: Event, now_s: float) -> list[Action]:
    """Apply one event to the state in place; what the launcher must do, in order."""
    return [*_handle(state, event, now_s), *_start_those_due(state, now_s)]


def next_due_s(state: State) -> float:
    """When a Tick is due; infinity when nothing waits for time to pass."""
    return min((_due_s(state, child) for child in state.children.values()), default=NEVER)


def _due_s(state: State, child: Child) -> float:
    if child.phase in (Phase.STARTING, Phase.STOPPING):
        return _limit_s(child)
    if child.phase is Phase.WAITING and not (state.down or _waits_for_others(state, child)):
        return child.due_s
    return child.spare_due_s if _lacks_spare(child) and not state.down else NEVER


# --- events --------------------------------------------------------------------------------------


def _handle(state: State, event: Event, now_s: float) -> list[Action]:
    match event:
        case Round(vitals):
            return _round(state, vitals, now_s)
        case Tick():
            return _tick(state, now_s)
        case Wanted(name, running):
            return _wanted(state, state.children[name], running, now_s)
        case Ready(name):
            return _ready(state.children[name], now_s)
        case Died(name, status, luck):
            return _died(state, state.children[name], status, luck, now_s)
        case SpareDied(name):
            child = state.children[name]
            child.spare, child.spare_due_s = False, now_s + SPARE_S
            return []


def _wanted(state: State, child: Child, running: bool, now_s: float) -> list[Action]:
    child.restarts.clear()
    child.wait_ms = 0.0
    if child.phase in UP:
        return _ask_to_leave(child, Intent.AGAIN if running else Intent.REST, now_s)
    return _wait(child, now_s) if running and not state.down else _settled(child, False, now_s)


def _ready(child: Child, now_s: float) -> list[Action]:
    if child.phase is not Phase.STARTING:
        return []
    child.enter(Phase.READY, now_s)
    child.proven, child.ready_s = True, now_s
    child.spare_due_s = max(child.spare_due_s, now_s + CALM_S)
    return []


def _died(state: State, child: Child, status: int, luck: float, now_s: float) -> list[Action]:
    if state.down or child.intent is Intent.REST:
        return _settled(child, False, now_s)
    if child.intent is Intent.AGAIN:
        return _wait(child, now_s)
    if child.intent is Intent.ALONG:
        return _was_taken_along(child, status, now_s)
    if status == 0 and child.spec.restart.when != "always" and not child.killed:
        return _settled(child, False, now_s)
    if not _may_restart(child, status, now_s):
        return _give_up(child, now_s)
    due_s = now_s + _delay_s(child, luck, now_s)
    _wait(child, now_s, due_s, crashed=True)
    leaving = reversed(state.companions(child))
    return [action for c in leaving for action in _take_along(state, c, child, now_s)]


def _was_taken_along(child: Child, status: int, now_s: float) -> list[Action]:
    """As in OTP, who is never restarted is not restarted with others either."""
    if status == NO_RESTART:
        return _give_up(child, now_s)
    if child.spec.restart.when == "never":
        return _settled(child, False, now_s)
    return _wait(child, now_s, behind=child.behind)


# --- a life ends ---------------------------------------------------------------------------------


def _ask_to_leave(child: Child, intent: Intent, now_s: float, behind: str = "") -> list[Action]:
    child.intent, child.behind = intent, behind
    if child.phase is Phase.STOPPING:
        return []
    child.enter(Phase.STOPPING, now_s)
    return [Stop(child.name)]


def _take_along(state: State, child: Child, leader: Child, now_s: float) -> list[Action]:
    """It comes back with its leader. Whoever was on the way out already leaves as it was to."""
    if child.phase in (Phase.STARTING, Phase.READY):
        return _ask_to_leave(child, Intent.ALONG, now_s, leader.name)
    if child.phase is Phase.WAITING or child.intent is Intent.ALONG:
        child.behind = child.behind if _leader(state, child) else leader.name
    return []


def _kill(child: Child, why: str, now_s: float) -> list[Action]:
    child.enter(Phase.STOPPING, now_s)
    child.killed = True
    return [Kill(child.name, why)]


def _settled(child: Child, failed: bool, now_s: float) -> list[Action]:
    child.enter(Phase.FAILED if failed else Phase.STOPPED, now_s)
    return [Settle(child.name, failed)]


def _give_up(child: Child, now_s: float) -> list[Action]:
    actions = _settled(child, True, now_s)
    if child.spec.critical:
        actions.append(BringDown(f"{child.name} is critical and was given up"))
    return actions


# --- the next one begins -------------------------------------------------------------------------


def _may_restart(child: Child, status: int, now_s: float) -> bool:
    policy, recent = child.spec.restart, child.restarts
    if status == NO_RESTART or policy.when == "never" or not child.proven:
        return False
    while recent and now_s - recent[0] > policy.within_s:
        recent.popleft()
    return len(recent) < policy.max_restarts


def _delay_s(child: Child, luck: float, now_s: float) -> float:
    """Nothing before the first restart, then ever longer, more or less the jitter."""
    backoff = child.spec.restart.backoff
    if child.ready_s and now_s - child.ready_s >= STABLE_S:
        child.wait_ms = 0.0
    wait_ms = child.wait_ms
    child.wait_ms = min(wait_ms * backoff.factor or backoff.first_ms, backoff.max_ms)
    return wait_ms * (1 + backoff.jitter * (2 * luck - 1)) / 1000


def _wait(
    child: Child, now_s: float, due_s: float = 0.0, *, behind: str = "", crashed: bool = False
) -> list[Action]:
    """It is dead and is to start: at `due_s`, or with whom it is `behind`, or else at once."""
    child.enter(Phase.WAITING, now_s)
    child.due_s, child.behind, child.crashed = due_s, behind, crashed
    return []


def _start_those_due(state: State, now_s: float) -> list[Action]:
    """In start order, which is the order of `children`."""
    due = [child for child in state.children.values() if _is_due(state, child, now_s)]
    return [] if state.down else [_start(child, now_s) for child in due]


def _is_due(state: State, child: Child, now_s: float) -> bool:
    """It is time, those that it takes along are dead, and whom it is behind starts too."""
    if child.phase is not Phase.WAITING or now_s < child.due_s or _is_held_up(state, child):
        return False
    leader = _leader(state, child)
    return leader is None or _is_due(state, leader, now_s)


def _waits_for_others(state: State, child: Child) -> bool:
    return _is_held_up(state, child) or _leader(state, child) is not None


def _is_held_up(state: State, child: Child) -> bool:
    """Who talked to the life that crashed is not dead yet."""
    return child.crashed and any(c.phase is Phase.STOPPING for c in state.companions(child))


def _leader(state: State, child: Child) -> Child | None:
    """Whom it has to wait for; nobody, once that one has started, or is not going to."""
    leader = state.children.get(child.behind)
    return leader if leader is not None and leader.phase is Phase.WAITING else None


def _start(child: Child, now_s: float) -> Action:
    if child.crashed:
        child.restarts.append(now_s)
    child.enter(Phase.STARTING, now_s)
    child.intent, child.killed, child.ready_s = Intent.NONE, False, 0.0
    child.spare, child.pulse = False, Pulse()
    return Start(child.name)


# --- time ----------------------------------------------------------------------------------------


def _tick(state: State, now_s: float) -> list[Action]:
    actions: list[Action] = []
    for child in state.children.values():
        if now_s >= _limit_s(child):
            actions += _kill(child, _missed(child), now_s)
        elif _lacks_spare(child) and now_s >= child.spare_due_s and not state.down:
            child.spare = True
            actions.append(Spare(child.name))
    return actions


def _lacks_spare(child: Child) -> bool:
    return child.phase is Phase.READY and child.spec.standby and not child.spare


def _limit_s(child: Child) -> float:
    """Until when a life has to be up, or gone."""
    if child.phase is Phase.STARTING:
        return child.since_s + child.spec.restart.ready_timeout_s
    return child.since_s + STOP_S if child.phase is Phase.STOPPING else NEVER


def _missed(child: Child) -> str:
    if child.phase is Phase.STARTING:
        return f"was not READY in {child.spec.restart.ready_timeout_s:g} s"
    return f"did not leave in {STOP_S:g} s"


def _round(state: State, vitals: Mapping[str, Vital], now_s: float) -> list[Action]:
    """Ping who is due; kill who is hung, or has more memory than it may."""
    actions: list[Action] = []
    for child in state.children.values():
        vital = vitals.get(child.name)
        if child.phase is not Phase.READY or vital is None:
            continue
        if why := ailment(child.pulse, child.spec, vital, now_s):
            actions += _kill(child, why, now_s)
        elif ping_due(child.pulse, child.spec, now_s):
            actions.append(Ping(child.name))
    return actions

"""requests: what clients of the control socket may ask of a system, and what it answers.

Answers are plain JSON. A request whose outcome takes time answers with a Later. None of them
waits for a server, except that `restart` gives the old life a moment to leave in order.
"""

from __future__ import annotations

import json
import os
import signal
import stat
from collections.abc import Callable
from dataclasses import asdict
from itertools import islice
from typing import Any, NamedTuple

from launcher import asks, captures, moves
from launcher.board import MACHINE
from launcher.process import describe
from launcher.replay import Replay, find_case, obstacle
from launcher.system import System
from launcher.tasks import Task
from ukernel.abi import syscalls

SIGNALS = {name: signal.Signals[f"SIG{name}"] for name in ("KILL", "TERM", "SEGV", "STOP", "CONT")}
MAX_ARGV = 32 * 1024  # bytes of a command line, as JSON
PAGE = 256  # events in one answer
MOST_PATIENCE_MS = 600_000  # with a server that is asked something
ASKED = "asked"  # the kind of the event that a person wanted something done


class Refusal(Exception):
    """The request cannot be done; the client is told why and ends with exit status 2."""


class Later(NamedTuple):
    """An outcome to come. `outcome` gives None until it is there; it may raise Refusal. It may
    be a Held."""

    outcome: Callable[[], Any]
    abandon: Callable[[], None] = lambda: None  # nobody waits for it any more


class Held(NamedTuple):
    """An answer, and what goes on from then until its client asks for the end of it, or is gone."""

    answer: Any
    end: Callable[[], Later]


def perform(system: System, request: Any, fds: list[int]) -> Any:
    """Do one request; its answer or a Later. Raises Refusal or LookupError. The caller owns `fds`.

    `request` comes from outside: any JSON value.
    """
    match request:
        case [str(name), *args] if name in REQUESTS:
            do, *kinds = REQUESTS[name]
            if [type(arg) for arg in args] != kinds:
                raise Refusal(f"{name} takes {', '.join(k.__name__ for k in kinds) or 'nothing'}")
            return do(system, *args, fds) if name in WITH_FDS else do(system, *args)
    raise Refusal(f"no such request; there are {', '.join(REQUESTS)}")


def info(system: System) -> Any:
    manifest = system.file.manifest
    servers = manifest.servers
    return {
        "system": system.name,
        "config": str(system.file.path.absolute()),
        "directory": str(system.file.directory),
        "launcher": os.getpid(),
        "kernel": system.kernel.process.pid if system.kernel else 0,
        "boot_ms": system.boot_ms,
        "tasks": list(system.tasks),
        "serves": {name: s.serves for name, s in servers.items() if s.serves},
        "devices": list(manifest.hardware),
        "placement": manifest.placement,
        "channels": [
            (name, called)
            for name, server in servers.items()
            for called, link in server.calls.items()
            if link.via == "channel"
        ],
        "demand": {name: list(s.calls) for name, s in servers.items() if s.start == "demand"},
    }


def ps(system: System) -> Any:
    rows = [slot._asdict() for slot in system.slots().values() if slot.name in system.tasks]
    return [{**row, **_told(system.tasks[row["name"]])} for row in rows]


def _told(task: Task) -> dict[str, Any]:
    """What the kernel does not see; `waits` beside it, of the calls past it."""
    counts, waiting = task.box.tally.counts(), task.waiting
    return {
        "restarts": task.restarts,
        "channel_calls": counts.by_channel,
        "channel_served": counts.doors,
        "direct_calls": counts.direct,
        "in_hand": counts.in_hand,
        "waits": waiting and {**waiting._asdict(), "callee": waiting.callee._asdict()},
    }


def kill(system: System, name: str, signo: int) -> Any:
    if signo not in SIGNALS.values():
        raise Refusal(f"signal {signo} is not one of {', '.join(SIGNALS)}")
    system.signal(name, signo)
    system.say(ASKED, name, f"kill with {signal.Signals(signo).name}")
    return _life(system.tasks[name])


def _life(task: Task) -> Any:
    """Its life, and whom the same has happened to, because they share its process."""
    others = [t.name for t in task.housemates if t is not task]
    return {"life": task.life, **({"with": others} if others else {})}


def restart(system: System, name: str) -> Any:
    """Answered when the new life is READY."""
    task = _supervised(system, name)
    before = task.life
    system.say(ASKED, name, "restart")
    system.restart(name)

    def ready() -> Any:
        if task.state in (syscalls.FAILED, syscalls.STOPPED):
            how = describe(task.status) if task.status is not None else task.state
            raise Refusal(f"{name} did not come up ({how}): see `ukernel logs {name}`")
        if task.life == before:
            return None
        whole = all(member.state == syscalls.READY for member in task.housemates)
        return _life(task) if whole else None

    return Later(ready)


def stop(system: System, name: str) -> Any:
    """Answered when its process has ended and its callers have been told."""
    task = _supervised(system, name)
    system.say(ASKED, name, "stop")
    before = task.life
    system.stop(name)

    def stopped() -> Any:
        if task.life != before:
            raise Refusal(f"{name} was restarted meanwhile: life {task.life}")
        return _life(task) if task.state == syscalls.STOPPED else None

    return Later(stopped)


def _supervised(system: System, name: str) -> Task:
    task = system.task(name)
    if name == MACHINE:
        raise Refusal("the machine runs as long as the system: take that down, and up again")
    if task.spec is not None and task.spec.start == "demand":
        raise Refusal(f"{name} is a command (start: demand): it runs when it is called")
    return task


def caps(system: System) -> Any:
    return [row._asdict() for row in system.caps()]


def kstat(system: System) -> Any:
    return {count.name: count.value for count in system.control().counters()}


def trace(system: System, start: int) -> Any:
    """Finished calls from number `start`, one page, bytes as hex; who wants more asks again."""
    if not 0 <= start < 1 << 64:
        raise Refusal(f"no call has the number {start}")
    rows = system.control().trace(start)
    return [[v.hex() if isinstance(v, bytes) else v for v in row] for row in rows]


def events(system: System, start: int) -> Any:
    """What has happened from number `start`, one page; who wants more asks again."""
    if start < 0:
        raise Refusal(f"no event has the number {start}")
    kept = system.events
    skip = max(0, start - kept[0].number) if kept else 0
    return [event._asdict() for event in islice(kept, skip, skip + PAGE)]


def recoveries(system: System, start: int) -> Any:
    """The recovery of each unasked death, from the `start`th, one page."""
    if start < 0:
        raise Refusal(f"no recovery has the number {start}")
    return [asdict(stages) for stages in system.recoveries[start : start + PAGE]]


def quarantine(system: System) -> Any:
    """The requests that no life is given any more; `number` names one of them."""
    return [
        {
            "server": task.name,
            **case.note._asdict(),
            "body": case.note.body.hex(),
            "deaths": case.deaths,
            "seen": case.seen,
        }
        for task in system.tasks.values()
        for case in system.quarantined(task)
    ]


def release(system: System, number: int) -> Any:
    """Let a quarantined request be sent again."""
    task, case = find_case(system, number)
    assert task.box is not None
    task.box.pardon(case)
    system.say(ASKED, task.name, f"release of request {number}")
    return {"server": task.name}


def replay(system: System, number: int) -> Any:
    """Send a quarantined request again; answered with what comes of it."""
    task, case = find_case(system, number)
    if why := obstacle(task, case):
        raise Refusal(f"request {number} cannot be sent again: {why}")
    system.say(ASKED, task.name, f"replay of request {number}")
    again = Replay(system, task, case)

    def outcome() -> Any:
        verdict = again.verdict()
        return verdict and {**verdict._asdict(), "body": verdict.body.hex()}

    return Later(outcome, again.abandon)


def run(system: System, name: str, argv: list[Any], directory: str, fds: list[int]) -> Any:
    """Run a `start: demand` server; answered with its exit status. Abandoned, it is killed."""
    if len(fds) != 3 or not all(type(word) is str for word in argv):
        raise Refusal("run takes a list of words, and three descriptors beside it")
    if len(json.dumps([argv, directory])) > MAX_ARGV:
        raise Refusal(f"the command line has more than {MAX_ARGV} bytes")
    task = system.run_task(name, argv, (fds[0], fds[1], fds[2]), directory)
    process = task.process
    assert process is not None

    def abandon() -> None:
        if process.status is None:
            process.send(signal.SIGKILL)

    return Later(lambda: None if process.status is None else {"status": process.status}, abandon)


def ask(system: System, server: str, operation: str, args: list[Any], patience_ms: int) -> Any:
    """Ask a server what may be asked of it; answered with its result, or its own refusal."""
    called = asks.askable(system, server, operation)
    args = asks.from_json(called.operation, args)
    if why := asks.obstacle(called.operation, args):
        raise Refusal(why)
    if not 0 < patience_ms <= MOST_PATIENCE_MS:
        raise Refusal(f"patience is 1 to {MOST_PATIENCE_MS} ms")
    if operation in asks.DEEDS:
        system.say(ASKED, server, operation)
    under_way = asks.Ask(system, called, args, patience_ms / 1000)
    return Later(under_way.outcome, under_way.abandon)


def capture(system: System, device: str, path: str) -> Any:
    """Note what passes a network card in a file, until the client says `end`, or is gone."""
    if why := captures.obstacle(system, device):
        raise Refusal(why)
    if not os.path.isabs(path) or "\0" in path:
        raise Refusal(f"{path!r:.80} is no absolute path")
    system.say(ASKED, device, f"capture into {path}")
    capturing = captures.Capturing(system, device, path)

    def ended() -> Later:
        last = capturing.end()
        return Later(last.outcome, last.abandon)

    def begun() -> Any:
        told = capturing.begun()
        return Held(told, ended) if told and "result" in told else told

    return Later(begun, capturing.abandon)


def vm_save(system: System, name: str, fds: list[int]) -> Any:
    """Copy a virtual machine into a file, where it stands."""
    _regular(fds)
    system.say(ASKED, name, "snapshot")
    return _later(moves.save(system, name, fds[0]))


def vm_load(system: System, name: str, engine: str, memory: int, fds: list[int]) -> Any:
    """Continue the copy in a file, from where it stands on, in place of what is there."""
    _regular(fds)
    system.say(ASKED, name, "restore")
    return _later(moves.load(system, name, engine, memory, fds[0]))


def vm_migrate(system: System, source: str, target: str) -> Any:
    """Move a virtual machine to another monitor."""
    system.say(ASKED, source, f"migrate to {target}")
    return _later(moves.migrate(system, source, target))


def _regular(fds: list[int]) -> None:
    if len(fds) != 1 or not stat.S_ISREG(os.fstat(fds[0]).st_mode):
        raise Refusal("one file is needed beside it: nobody waits for a pipe")


def _later(move: moves.Move) -> Later:
    return Later(move.outcome, move.leave)


def end(system: System) -> Any:
    """The end of what goes on for this client; see Control, which knows of it."""
    raise Refusal("nothing goes on here that could be ended")


def down(system: System) -> Any:
    """Whoever pumps the system takes it down; see Control."""
    return "down"


REQUESTS: dict[str, tuple[Any, ...]] = {
    "info": (info,),
    "ps": (ps,),
    "kill": (kill, str, int),
    "restart": (restart, str),
    "stop": (stop, str),
    "caps": (caps,),
    "kstat": (kstat,),
    "trace": (trace, int),
    "events": (events, int),
    "recoveries": (recoveries, int),
    "quarantine": (quarantine,),
    "release": (release, int),
    "replay": (replay, int),
    "run": (run, str, list, str),
    "ask": (ask, str, str, list, int),
    "capture": (capture, str, str),
    "vm_save": (vm_save, str),
    "vm_load": (vm_load, str, str, int),
    "vm_migrate": (vm_migrate, str, str),
    "end": (end,),
    "down": (down,),
}
WITH_FDS = ("run", "vm_save", "vm_load")

"""effects: events go into `step`, effects come out. Neither side of the border does the other's.

Descriptors are named by numbers here; only the shell knows the real ones. A line each, because
the two tables are read as tables. Times are CLOCK_MONOTONIC nanoseconds.
"""
# ruff: noqa: UP014

from __future__ import annotations

from typing import NamedTuple

# A frame, empty when there were several; `pid` is what Linux says of a connection that is not
# bound to a task, else 0.
Arrived = NamedTuple("Arrived", [("now", int), ("rid", bytes), ("frame", bytes), ("pid", int)])
# Time passes: deadlines are looked at.
Tick = NamedTuple("Tick", [("now", int)])
# Fresh random tokens.
Refill = NamedTuple("Refill", [("tokens", list[bytes])])
# A task does not read what it is sent, or its connection is gone.
Undeliverable = NamedTuple("Undeliverable", [("rid", bytes)])
# Linux had no memory or descriptor for the object of this number.
MakeFailed = NamedTuple("MakeFailed", [("number", int)])

Event = Arrived | Tick | Refill | Undeliverable | MakeFailed

# Put a frame on a connection, without ever waiting for it.
Send = NamedTuple("Send", [("rid", bytes), ("frame", bytes)])
# A memfd of `size` bytes, an eventfd when that is 0. Should Linux refuse: `otherwise`, and
# nothing more of this step.
Make = NamedTuple("Make", [("number", int), ("size", int), ("otherwise", Send)])
# A control socket, its far end for the root task under `tag`. As Make.
MakeControl = NamedTuple(
    "MakeControl", [("number", int), ("root", int), ("tag", int), ("otherwise", Send)]
)
# Forget a descriptor.
Close = NamedTuple("Close", [("number", int)])
# Hand descriptors over a life's control socket, announced as `tag`.
Pass = NamedTuple(
    "Pass", [("control", int), ("tag", int), ("numbers", tuple[int, ...]), ("read_only", bool)]
)
# The first datagram on a life's control socket.
BootRecord = NamedTuple(
    "BootRecord", [("control", int), ("secret", bytes), ("slot", str), ("life", int)]
)
# Make an eventfd readable, or not readable any more.
Raise = NamedTuple("Raise", [("number", int), ("readable", bool)])
# CPU cores (empty: leave them) and policy of a process; failing is counted, not fatal.
Schedule = NamedTuple(
    "Schedule", [("pid", int), ("cores", tuple[int, ...]), ("fifo", bool), ("priority", int)]
)
# A Linux signal for a process of ours.
Signal = NamedTuple("Signal", [("pid", int), ("signal", int)])

Effect = Send | Make | MakeControl | Close | Pass | BootRecord | Raise | Schedule | Signal

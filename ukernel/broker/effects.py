"""effects: events go into `step`, effects come out. Neither side of the border does the other's.

Descriptors are named by numbers; only the shell knows the real ones. Times: CLOCK_MONOTONIC ns.
"""
# ruff: noqa: UP014

from typing import NamedTuple

# A frame, empty when there were several; `pid` as Linux says, of an unbound connection, else 0.
Arrived = NamedTuple("Arrived", [("now", int), ("rid", bytes), ("frame", bytes), ("pid", int)])
Tick = NamedTuple("Tick", [("now", int)])  # time passes: deadlines are looked at
Refill = NamedTuple("Refill", [("tokens", list[bytes])])  # fresh random tokens
Undeliverable = NamedTuple("Undeliverable", [("rid", bytes)])  # full, or nobody is there
MakeFailed = NamedTuple("MakeFailed", [("number", int)])  # Linux refused what Make wanted

Event = Arrived | Tick | Refill | Undeliverable | MakeFailed

Send = NamedTuple("Send", [("rid", bytes), ("frame", bytes)])  # without ever waiting
# A memfd of `size` bytes, an eventfd when that is 0. Should Linux refuse: `otherwise`, and
# nothing more of this step.
Make = NamedTuple("Make", [("number", int), ("size", int), ("otherwise", Send)])
# A control socket, its far end for the root task under `tag`. As Make.
MakeControl = NamedTuple(
    "MakeControl", [("number", int), ("root", int), ("tag", int), ("otherwise", Send)]
)
Close = NamedTuple("Close", [("number", int)])  # forget a descriptor
# Hand descriptors over a life's control socket, announced as `tag`.
Pass = NamedTuple(
    "Pass", [("control", int), ("tag", int), ("numbers", tuple[int, ...]), ("read_only", bool)]
)
# The first datagram on a life's control socket.
BootRecord = NamedTuple("BootRecord", [("control", int), ("secret", bytes), ("slot", str)])
Raise = NamedTuple("Raise", [("number", int), ("readable", bool)])  # an eventfd
# CPU cores (empty: leave them) and policy of a process; failing is counted, not fatal.
Schedule = NamedTuple(
    "Schedule", [("pid", int), ("cores", tuple[int, ...]), ("fifo", bool), ("priority", int)]
)

Effect = Send | Make | MakeControl | Close | Pass | BootRecord | Raise | Schedule

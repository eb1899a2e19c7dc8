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
# Descriptors under one number: for each size a memfd, or an eventfd that counts `-size` if that is
# not above 0. Should Linux refuse one: `otherwise`, and nothing more of this step.
Make = NamedTuple("Make", [("number", int), ("sizes", tuple[int, ...]), ("otherwise", Send)])
# A control socket, its far end for the root task under `tag`. As Make.
MakeControl = NamedTuple("MakeControl", [("number", int), ("tag", int), ("otherwise", Send)])
Close = NamedTuple("Close", [("number", int)])  # forget descriptors
# Hand descriptors over a life's control socket, announced as `tag`; the first so many read-only.
Pass = NamedTuple("Pass", [("control", int), ("tag", int), ("number", int), ("read_only", int)])
# The first datagram on a life's control socket.
BootRecord = NamedTuple("BootRecord", [("control", int), ("secret", bytes), ("slot", str)])
Raise = NamedTuple("Raise", [("number", int), ("readable", bool)])  # an eventfd
Shut = NamedTuple("Shut", [("number", int)])  # a channel: say so in its page, wake both ends

Effect = Send | Make | MakeControl | Close | Pass | BootRecord | Raise | Shut

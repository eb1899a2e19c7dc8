"""confine: what a task gives up before it meets anybody: privileges, core dumps, outliving us.

A driver is an ordinary unprivileged process. Started by root it stays root in name only: without
one Linux capability, and unable to gain any.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys

PR_SET_PDEATHSIG = 1
PR_SET_NAME = 15
PR_CAPBSET_DROP = 24
PR_SET_NO_NEW_PRIVS = 38
LAST_CAPABILITY = 63  # prctl refuses numbers that this Linux does not know
CAPABILITY_VERSION_3 = 0x20080522  # linux/capability.h: two 32-bit words of each set

DESCRIPTORS = 256  # of one task: so many connections to the kernel, which must have room for all
HEADROOM = 16 << 20  # bytes beyond `memory`: who comes here slowly is seen, and killed by name

THREAD_STACK = 512 << 10
PTHREAD_ATTR_BYTES = 256  # more than any pthread_attr_t has

_libc = ctypes.CDLL(None, use_errno=True)


def give_up_privileges() -> None:
    """Before the first thread: a thread that exists already would keep them."""
    _want_small_stacks()
    if os.geteuid() == 0:
        _drop_capabilities()
    _libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would hold tokens


def live_under(launcher: int, name: str, memory: int, tasks: int = 1) -> None:
    """Die with `launcher`, be known to `ps` as `name`, keep to `memory` bytes (0: no limit) and to
    the descriptors of so many `tasks`.

    Linux refuses what is far beyond `memory`, wherever in the process it is asked for; what is a
    little beyond is for the launcher to see, which ends the process and says why.
    """
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != launcher:
        sys.exit("the launcher is gone")  # it died before the line above took effect
    _libc.prctl(PR_SET_NAME, name.encode()[:15])
    _limit(resource.RLIMIT_NOFILE, DESCRIPTORS * tasks)
    if memory:
        _limit(resource.RLIMIT_DATA, memory + HEADROOM)


def _limit(what: int, most: int) -> None:
    """For good, and never more than there is already."""
    _, allowed = resource.getrlimit(what)
    most = most if allowed == resource.RLIM_INFINITY else min(most, allowed)
    resource.setrlimit(what, (most, most))


def _want_small_stacks() -> None:
    """Of threads to come, which are ZeroMQ's: 8 MiB each would count as the task's memory."""
    attributes = ctypes.create_string_buffer(PTHREAD_ATTR_BYTES)
    _libc.pthread_attr_init(attributes)
    _libc.pthread_attr_setstacksize(attributes, ctypes.c_size_t(THREAD_STACK))
    _libc.pthread_setattr_default_np(attributes)


def _drop_capabilities() -> None:
    for capability in range(LAST_CAPABILITY + 1):
        _libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
    nothing = (ctypes.c_uint32 * 6)()
    if _libc.capset(header, nothing) != 0:
        raise OSError(ctypes.get_errno(), "capset: cannot give up privileges")

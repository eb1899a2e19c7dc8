"""tools: programs that nobody here wrote, for the tests that need them.

A test that needs one which is not there is skipped, and says which it is and how to get it.
"""

from __future__ import annotations

import shutil
import subprocess
from functools import cache

import pytest

# The package of Debian in which each is.
PACKAGES = {
    "ab": "apache2-utils",
    "curl": "curl",
    "ip": "iproute2",
    "nc": "netcat-openbsd",
    "nsenter": "util-linux",
    "ping": "iputils-ping",
    "tc": "iproute2",
    "tshark": "tshark",
    "unshare": "util-linux",
    "wget": "wget",
    "wrk": "wrk",
    "xargs": "findutils",
}
OWN_NETWORK = "unshare --user --net --map-root-user test -w /dev/net/tun"


def missing(*programs: str) -> str:
    """What to do to have all of these programs; empty when they are there."""
    absent = [name for name in programs if shutil.which(name) is None]
    if not absent:
        return ""
    packages = " ".join(dict.fromkeys(PACKAGES[name] for name in absent))
    return f"{', '.join(absent)} not installed: apt-get install {packages}"


def needs(*programs: str) -> pytest.MarkDecorator:
    """A test that runs these programs."""
    why = missing(*programs)
    return pytest.mark.skipif(bool(why), reason=why)


@cache
def no_own_network() -> str:
    """Why there can be no TAP interface in a namespace that a test may enter; else empty."""
    if why := missing("nsenter", "unshare"):
        return why
    if subprocess.run(OWN_NETWORK.split(), capture_output=True, check=False).returncode:
        return "this host has no TAP interface in a user namespace (/dev/net/tun, unshare --user)"
    return ""

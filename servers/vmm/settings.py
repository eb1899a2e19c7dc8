"""settings: what the system file says of a virtual machine, checked. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from socket import inet_aton
from typing import Any, NamedTuple

from ukernel.abi.sizes import bytes_of

GUESTS = Path(__file__).parent / "guests"
SUFFIX = ".elf"
PAGE = 4096
LEAST_MEMORY = 1 << 16
MOST_MEMORY = 16 << 30
UNICORN, QEMU = "unicorn", "qemu"
OF_QEMU = ("initrd", "append", "accel")  # settings that no other engine has
ACCELS = ("auto", "kvm", "tcg")


class BadSettings(Exception):
    """An argument that no machine can be made of; the text names it, and what would do."""


class Settings(NamedTuple):
    image: str = ""  # the file of the guest, or the name of one that comes with us
    engine: str = UNICORN
    memory: int = 16 << 20  # bytes
    share: int = 100  # percent of one CPU
    snapshot_every_ms: int = 0  # 0: never
    disk: str = ""  # who it is called by, "" without one
    nic: str = ""
    empty: bool = False  # there is no guest until one is loaded
    ip: str = ""  # the IPv4 address that a guest of ours is to have; of Linux, with /24 or so
    initrd: str = ""  # a file; for Linux
    append: str = ""  # what is added to its command line
    accel: str = ACCELS[0]  # how QEMU executes it

    @classmethod
    def of(cls, args: Mapping[str, Any], engine: str = UNICORN) -> Settings:
        """Of a monitor with this engine. Raises BadSettings."""
        known = [name for name in cls._fields if engine == QEMU or name not in OF_QEMU]
        if unknown := sorted(args.keys() - set(known)):
            raise BadSettings(f"args.{unknown[0]}: a monitor knows {', '.join(known)}")
        memory = bytes_of(args.get("memory", cls().memory)) or 0
        if not LEAST_MEMORY <= memory <= MOST_MEMORY or memory % PAGE:
            raise BadSettings(f"args.memory is {args['memory']!r}: say whole pages, such as 4MiB")
        made = cls(**{"engine": engine, **args, "memory": memory})
        for name, most in (("share", 100), ("snapshot_every_ms", 1 << 40)):
            value = getattr(made, name)
            if type(value) is not int or not (name == "share") <= value <= most:
                raise BadSettings(f"args.{name} is {value!r}: a whole number up to {most}")
        if made.engine != engine:
            raise BadSettings(
                f"args.engine is {made.engine!r}: say {engine}, or run another monitor"
            )
        if made.accel not in ACCELS:
            raise BadSettings(f"args.accel is {made.accel!r}: say {' or '.join(ACCELS)}")
        if made.ip and not _is_address(made.ip, prefixed=engine == QEMU):
            example = "10.0.0.2/24" if engine == QEMU else "10.0.0.2"
            raise BadSettings(f"args.ip is {made.ip!r}: say an address such as {example}")
        if not made.image and not made.empty:
            raise BadSettings("args.image is missing: say what the machine is to run")
        return made

    @property
    def program(self) -> Path:
        """The file of the guest."""
        own = GUESTS / f"{self.image.removesuffix(SUFFIX)}{SUFFIX}"
        return own if "/" not in self.image and own.is_file() else Path(self.image)


def _is_address(text: object, *, prefixed: bool) -> bool:
    try:
        address, slash, prefix = str(text).partition("/")
        in_range = prefix.isdecimal() and int(prefix) <= 32
        return len(inet_aton(address)) == len(address.split(".")) and (
            in_range if prefixed else not slash
        )
    except OSError:
        return False

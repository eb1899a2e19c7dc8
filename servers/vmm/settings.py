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
ENGINES = ("unicorn",)


class BadSettings(Exception):
    """An argument that no machine can be made of; the text names it, and what would do."""


class Settings(NamedTuple):
    image: str = ""  # the file of the guest, or the name of one that comes with us
    engine: str = ENGINES[0]
    memory: int = 16 << 20  # bytes
    share: int = 100  # percent of one CPU
    snapshot_every_ms: int = 0  # 0: never
    disk: str = ""  # who it is called by, "" without one
    nic: str = ""
    empty: bool = False  # there is no guest until one is loaded
    ip: str = ""  # the IPv4 address that a guest of ours is to have

    @classmethod
    def of(cls, args: Mapping[str, Any]) -> Settings:
        """Raises BadSettings."""
        if unknown := sorted(args.keys() - set(cls._fields)):
            raise BadSettings(f"args.{unknown[0]}: a monitor knows {', '.join(cls._fields)}")
        memory = bytes_of(args.get("memory", cls().memory)) or 0
        if not LEAST_MEMORY <= memory <= MOST_MEMORY or memory % PAGE:
            raise BadSettings(f"args.memory is {args['memory']!r}: say whole pages, such as 4MiB")
        made = cls(**{**args, "memory": memory})
        for name, most in (("share", 100), ("snapshot_every_ms", 1 << 40)):
            value = getattr(made, name)
            if type(value) is not int or not (name == "share") <= value <= most:
                raise BadSettings(f"args.{name} is {value!r}: a whole number up to {most}")
        if made.engine not in ENGINES:
            raise BadSettings(f"args.engine is {made.engine!r}: say {' or '.join(ENGINES)}")
        if made.ip and not _is_address(made.ip):
            raise BadSettings(f"args.ip is {made.ip!r}: say an address such as 10.0.0.2")
        if not made.image and not made.empty:
            raise BadSettings("args.image is missing: say what the machine is to run")
        return made

    @property
    def program(self) -> Path:
        """The file of the guest."""
        own = GUESTS / f"{self.image.removesuffix(SUFFIX)}{SUFFIX}"
        return own if "/" not in self.image and own.is_file() else Path(self.image)


def _is_address(text: object) -> bool:
    try:
        return isinstance(text, str) and len(inet_aton(text)) == len(text.split("."))
    except OSError:
        return False

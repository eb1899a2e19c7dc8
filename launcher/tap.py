"""tap: opens TAP interfaces of Linux, here or in a network namespace of their own.

A namespace lives as long as somebody is in it: this file, run as a program, is its holder, and ends
when nobody has the other end of its line any more. It imports nothing of ours, so that it is there
in some milliseconds.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import ipaddress
import os
import signal
import socket
import struct
import sys

DEVICE = "/dev/net/tun"
TUNSETIFF = 0x400454CA  # linux/if_tun.h
IFF_TAP, IFF_NO_PI, IFF_VNET_HDR = 0x0002, 0x1000, 0x4000
SIOCGIFFLAGS, SIOCSIFFLAGS = 0x8913, 0x8914  # linux/sockios.h
SIOCGIFADDR, SIOCSIFADDR = 0x8915, 0x8916
SIOCGIFNETMASK, SIOCSIFNETMASK = 0x891B, 0x891C
SIOCGIFMTU, SIOCSIFMTU = 0x8921, 0x8922
IFF_UP = 1
MOST_MTU = 65535 - 14  # that Linux gives a TAP interface
CLONE_NEWUSER, CLONE_NEWNET = 0x1000_0000, 0x4000_0000
PR_SET_PDEATHSIG, PR_SET_NAME = 1, 15

_libc = ctypes.CDLL(None, use_errno=True)


class TapError(OSError):
    """There can be no such interface; the text says what is missing, and what to do."""


def opened(interface: str) -> int:
    """A descriptor of the TAP interface, which does not block; the interface is made when it is
    absent, and then ends with the descriptor. Raises TapError."""
    try:
        fd = os.open(DEVICE, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise TapError(_no_device(error)) from None
    flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR
    try:
        fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", interface.encode(), flags))
    except OSError as error:
        os.close(fd)
        raise TapError(_no_interface(interface, error)) from None
    return fd


def configure(interface: str, address: str, mtu: int) -> None:
    """Give an interface its address and prefix and its MTU, and bring it up. What is so already is
    left alone, and needs no privilege. Raises TapError."""
    host = ipaddress.IPv4Interface(address)
    family = struct.pack("HH", socket.AF_INET, 0)
    wanted = (
        (SIOCGIFMTU, SIOCSIFMTU, struct.pack("i", min(mtu, MOST_MTU))),
        (SIOCGIFADDR, SIOCSIFADDR, family + host.ip.packed),
        (SIOCGIFNETMASK, SIOCSIFNETMASK, family + host.netmask.packed),
    )
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            for get, put, value in wanted:
                if _asked(sock, get, interface)[: len(value)] != value:
                    fcntl.ioctl(sock, put, _request(interface, value))
            _bring_up(sock, interface)
        except OSError as error:
            raise TapError(_no_configuration(interface, address, error)) from None


def _bring_up(sock: socket.socket, interface: str) -> None:
    (flags,) = struct.unpack_from("H", _asked(sock, SIOCGIFFLAGS, interface))
    if not flags & IFF_UP:
        fcntl.ioctl(sock, SIOCSIFFLAGS, _request(interface, struct.pack("H", flags | IFF_UP)))


def _request(interface: str, value: bytes = b"") -> bytes:
    return struct.pack("16s24s", interface.encode(), value)  # struct ifreq


def _asked(sock: socket.socket, request: int, interface: str) -> bytes:
    """What Linux says of an interface; nothing when there is nothing to say."""
    try:
        return fcntl.ioctl(sock, request, _request(interface))[16:]
    except OSError as error:
        if error.errno != errno.EADDRNOTAVAIL:
            raise
        return b""


# --- what is missing --------------------------------------------------------------------------

ELSE = "or set backend: wire, which needs nothing of the host"


def _no_device(error: OSError) -> str:
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"{DEVICE} may not be opened by this user: chmod 0666 {DEVICE} as root, {ELSE}"
    if error.errno in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
        return f"there is no {DEVICE}: load the module tun (modprobe tun), {ELSE}"
    return f"{DEVICE} cannot be opened: {error.strerror}"


def _no_interface(interface: str, error: OSError) -> str:
    if error.errno in (errno.EPERM, errno.EACCES):
        return (
            f"the interface {interface} needs CAP_NET_ADMIN, which this process does not have: run"
            f" as root, or let root make it once for you (ip tuntap add dev {interface} mode tap"
            " user $USER), or set backend: userns, for which nobody needs to be root"
        )
    if error.errno == errno.EBUSY:
        return f"the interface {interface} is in use by another process: end that, or name another"
    if error.errno == errno.EINVAL:
        return f"the interface {interface} is there and is no TAP interface: name another"
    return f"the interface {interface} cannot be had: {error.strerror}"


def _no_configuration(interface: str, address: str, error: OSError) -> str:
    if error.errno in (errno.EPERM, errno.EACCES):
        return (
            f"to give the interface {interface} the address {address} needs CAP_NET_ADMIN, which"
            f" this process does not have: run as root, or let root do it once (ip addr add"
            f" {address} dev {interface}; ip link set {interface} up), or set backend: userns"
        )
    return f"the interface {interface} cannot be given {address}: {error.strerror}"


def _no_namespace(error: OSError) -> str:
    return (
        f"this host gives its users no network namespaces ({error.strerror}): allow them (sysctl"
        " user.max_user_namespaces > 0, kernel.unprivileged_userns_clone=1,"
        " kernel.apparmor_restrict_unprivileged_userns=0), or set backend: tap as root,"
        f" {ELSE}"
    )


# --- the holder -------------------------------------------------------------------------------


def enter_a_namespace() -> None:
    """Be root of a user and network namespace of one's own. Raises TapError."""
    user, group = os.geteuid(), os.getegid()
    try:
        if _libc.unshare(CLONE_NEWUSER | CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        for name, text in (
            ("setgroups", "deny"), ("uid_map", f"0 {user} 1"), ("gid_map", f"0 {group} 1"),
        ):  # fmt: skip
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)
    except OSError as error:
        raise TapError(_no_namespace(error)) from None


def hold(line: socket.socket, launcher: int, interface: str, address: str, mtu: int) -> None:
    """Make the namespace and the interface in it, and hand the descriptor out; then stay."""
    try:
        enter_a_namespace()
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        _libc.prctl(PR_SET_NAME, b"namespace")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            _bring_up(sock, "lo")
        fd = opened(interface)
        with (
            contextlib.suppress(OSError),
            open(f"/proc/sys/net/ipv6/conf/{interface}/disable_ipv6", "w") as file,
        ):
            file.write("1")  # nobody at the other end speaks it
        configure(interface, address, mtu)
    except OSError as error:
        line.send(str(error).encode())
        return
    socket.send_fds(line, [b"\0"], [fd])
    os.close(fd)
    while os.getppid() == launcher and line.recv(1):
        continue


if __name__ == "__main__":
    hold(
        socket.socket(fileno=int(sys.argv[1])),
        int(sys.argv[2]),
        sys.argv[3],
        sys.argv[4],
        int(sys.argv[5]),
    )

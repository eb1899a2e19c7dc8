"""What cards are plugged into: a wire, a switch, and TAP interfaces of this host, for real."""

from __future__ import annotations

import os
import select
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from hwsim.inbox import ROOM
from hwsim.patchbay import Patchbay, PatchError
from hwsim.switch import MOST_ADDRESSES, Switch
from hwsim.tap import Tap
from launcher import tap
from launcher.cables import CableError, Cables, holder, inside, namespaces
from launcher.config import load
from tests.hwsim.card import (
    ALL,
    NEAR,
    CardDriver,
    arp,
    checks_out,
    ones,
    pair,
    plain,
    pseudo,
    segment,
    unchecked,
)
from ukernel.abi.virtio import NET_HDR_F_NEEDS_CSUM, NetHeader
from ukernel.lib.virtio.cable import NONE

PATIENCE_S = 10
# Of four addresses that no other process of the suite has: interfaces are the whole host's.
NET = f"10.213.{os.getpid() % 256}"
HOST, CARD = (f"{NET}.{os.getpid() // 256 % 64 * 4 + number}" for number in (1, 2))

# --- between the cards of a machine -------------------------------------------------------------


def test_what_goes_in_at_one_end_comes_out_at_the_other() -> None:
    near, far = pair()
    near.send(plain(1))
    far.send(plain(2, destination=b"\xff" * 6))
    assert (near.frames(), far.frames()) == ([plain(2, destination=b"\xff" * 6)], [plain(1)])


@pytest.mark.parametrize(
    ("takes", "sizes"),
    [(ALL, [4054]), (1 << 1, [1514, 1514, 1134]), (0, [1514, 1514, 1134])],
    ids=["segments", "sums", "nothing"],
)
def test_offloads_go_through_as_far_as_they_are_taken(takes: int, sizes: list[int]) -> None:
    near, far = pair(far=takes)
    near.send(segment(b"x" * 4000), unchecked(size=1460))
    came = far.received()
    assert [len(frame) for _, frame in came] == sizes
    assert all(checks_out(frame) for header, frame in came if not header.flags)


def test_what_waits_is_cut_for_who_receives_it_and_not_for_who_was_there_before() -> None:
    near, far = pair(far=ALL)
    far.net.reset()
    near.send(segment(b"x" * 4000), unchecked(size=1460))
    far.up(0)
    assert [len(frame) for frame in far.frames()] == [1514, 1514, 1134]


def test_a_segment_that_cannot_be_cut_is_dropped() -> None:
    near, far = pair(far=0)
    near.send(plain(1, 4000), unchecked(size=1460))
    near.send(plain(2))
    assert (far.frames(), far.net.drops()) == ([plain(2)], 1)


def test_a_queue_is_bounded_and_drops_are_counted() -> None:
    near, far = pair()
    far.net.reset()
    for number in range(ROOM + 10):
        near.send(plain(number))
    assert far.net.drops() == 10
    far.up(slots=16)
    came = [frame for _ in range(ROOM // 16) for frame in far.frames()]
    assert came == [plain(number) for number in range(ROOM)]


def three() -> list[CardDriver]:
    switch = Switch()
    return [CardDriver(switch.port(), mac=address(number)) for number in range(3)]


def address(number: int) -> bytes:
    return b"\x02" + number.to_bytes(5, "big")


def test_a_switch_learns_where_cards_are() -> None:
    first, second, third = three()
    ask = plain(1, source=address(0), destination=address(1))
    first.send(ask)
    assert [card.frames() for card in (first, second, third)] == [[], [ask], [ask]]
    answer = plain(2, source=address(1), destination=address(0))
    second.send(answer)
    first.send(ask)
    assert [card.frames() for card in (first, second, third)] == [[answer], [ask], []]
    second.send(plain(3, source=address(1), destination=address(1)))
    assert [card.frames() for card in (first, second, third)] == [[], [], []]


def test_a_switch_floods_what_is_for_all_and_follows_who_moves() -> None:
    first, second, third = three()
    every = plain(1, source=address(0), destination=b"\xff" * 6)
    first.send(every)
    assert [card.frames() for card in (first, second, third)] == [[], [every], [every]]
    third.send(plain(2, source=address(0), destination=address(9)))
    second.frames(), first.frames()
    second.send(plain(3, source=address(1), destination=address(0)))
    assert [len(card.frames()) for card in (first, second, third)] == [0, 0, 1]


def test_the_table_of_a_switch_is_bounded_and_no_group_is_in_it() -> None:
    switch = Switch()
    port, other = switch.port(), switch.port()
    for number in range(MOST_ADDRESSES + 50):
        switch.carry(port, bytes(12) + plain(source=address(number), destination=b"\xff" * 6))
    assert len(switch._seen) == MOST_ADDRESSES
    assert address(0) not in switch._seen
    switch.carry(port, bytes(12) + plain(source=b"\xff" * 6))
    assert b"\xff" * 6 not in switch._seen
    assert (len(other.inbox), port.receive([memoryview(bytearray(100))])) == (ROOM, NONE)


def test_a_card_with_a_tap_needs_its_descriptor() -> None:
    spec = {"name": "nic0", "backend": "tap", "faults": {}}
    with pytest.raises(PatchError, match="nic0: nobody has opened its TAP"):
        Patchbay(Watcher(), {}, lambda *_: None).plug(spec)


# --- the host -----------------------------------------------------------------------------------


class Watcher:
    """Waits for descriptors as a server's loop does, when it is told to."""

    def __init__(self) -> None:
        self.watched: dict[int, Callable[[], None]] = {}

    def watch(self, fd: int, ready: Callable[[], None]) -> None:
        self.watched[fd] = ready

    def unwatch(self, fd: int) -> None:
        del self.watched[fd]

    def turn(self) -> None:
        """Wait until something has come, and handle it."""
        assert self.watched, "nobody listens"
        ready, _, _ = select.select(list(self.watched), [], [], PATIENCE_S)
        assert ready, "nothing came"
        for fd in ready:
            self.watched[fd]()


class Bench(Watcher):
    """A card at a TAP interface whose other end is this host."""

    def __init__(self, fd: int, features: int = ALL, slots: int = 8) -> None:
        super().__init__()
        self.tap = Tap(fd, self)
        self.card = CardDriver(self.tap, features, slots)

    def wanted(self, right: Callable[[bytes], bool]) -> tuple[NetHeader, bytes]:
        """The next frame that is right; the host sends others too."""
        while True:
            for header, frame in self.card.received():
                if right(frame):
                    return header, frame
            self.turn()

    def answered(self, host: str, card: str) -> bytes:
        """The host's address on the link, asked for with ARP."""
        here = socket.inet_aton(card)
        self.card.send(arp(socket.inet_aton(host), here))
        _, reply = self.wanted(lambda f: f[12:14] + f[21:22] + f[38:42] == b"\x08\x06\2" + here)
        assert reply[:6] == NEAR
        return reply[22:28]


def udp(payload: bytes, mac: bytes, port: int) -> bytes:
    """A datagram from the card to the host, whose checksum is that of the pseudo header."""
    total = 28 + len(payload)
    ip = bytearray(struct.pack(">BBHHHBBH", 0x45, 0, total, 1, 0, 64, 17, 0))
    ip += socket.inet_aton(CARD) + socket.inet_aton(HOST)
    ip[10:12] = (0xFFFF - ones(bytes(ip))).to_bytes(2, "big")
    packet = bytes(ip) + struct.pack(">HHHH", 4242, port, total - 20, 0) + payload
    checksum = ones(pseudo(packet)).to_bytes(2, "big")
    return mac + NEAR + b"\x08\x00" + packet[:26] + checksum + packet[28:]


def may_have_taps() -> bool:
    """Whether this process may make interfaces; else what it is told is tested, and no more."""
    with open("/proc/self/status") as file:
        (line,) = [line for line in file if line.startswith("CapEff:")]
    return os.path.exists(tap.DEVICE) and bool(int(line.split()[1], 16) >> 12 & 1)


@pytest.fixture(scope="module")
def interface() -> Iterator[int]:
    """A TAP interface of this host, up and with an address; -1 when it may not be."""
    name = f"uk{os.getpid()}"
    if not may_have_taps():
        with pytest.raises(tap.TapError, match=r"CAP_NET_ADMIN|modprobe tun|chmod"):
            tap.opened(name)
        yield -1
        return
    fd = tap.opened(name)
    with pytest.raises(tap.TapError, match=f"{name} is in use by another process"):
        tap.opened(name)
    tap.configure(name, f"{HOST}/30", 1500)
    tap.configure(name, f"{HOST}/30", 1500)
    yield fd
    os.close(fd)


def test_the_host_answers_through_a_tap(interface: int) -> None:
    if interface < 0:
        return  # its fixture has looked at the message
    bench = Bench(interface)
    assert len(bench.answered(HOST, CARD)) == 6
    bench.card.net.reset()
    assert not bench.watched, "nobody is there to receive"


def test_the_host_does_what_a_driver_leaves_to_the_card(interface: int) -> None:
    """It takes a checksum that is not complete, and gives one to who takes it; and only to them."""
    if interface < 0:
        return
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(PATIENCE_S)
        sock.bind((HOST, 0))
        for features, flags in ((ALL, NET_HDR_F_NEEDS_CSUM), (ALL & ~0x82, 0)):
            bench = Bench(interface, features)
            mac = bench.answered(HOST, CARD)
            frame = udp(b"from the card", mac, sock.getsockname()[1])
            header = NetHeader(NET_HDR_F_NEEDS_CSUM, csum_start=34, csum_offset=6)
            bench.card.send(frame, header, cuts=(12, 40))
            data, where = sock.recvfrom(100)
            assert (data, where) == (b"from the card", (CARD, 4242))
            sock.sendto(b"from the host", where)
            header, came = bench.wanted(lambda f: f[12:14] == b"\x08\x00" and f[23] == 17)
            assert (header.flags & NET_HDR_F_NEEDS_CSUM, header.num_buffers) == (flags, 1)
            assert came[42:] == b"from the host"
            assert flags or checks_out(came)
            assert bench.card.net.drops() == 0
            bench.card.net.reset()


def test_a_frame_for_the_host_that_is_too_long_for_its_buffer_is_dropped(interface: int) -> None:
    if interface < 0:
        return
    bench = Bench(interface, slots=0)
    bench.card.give(40)
    bench.card.give(2048, cuts=(5, 300))
    bench.card.send(arp(socket.inet_aton(HOST), socket.inet_aton(CARD)))
    while not bench.card.net.drops():
        bench.turn()
    bench.card.net.reset()


def test_an_interface_that_is_deleted_is_let_go() -> None:
    if not may_have_taps():
        return
    name = f"uk{os.getpid()}x"
    fd = tap.opened(name)
    bench = Bench(fd)
    assert bench.watched
    subprocess.run(["ip", "link", "delete", name], check=True)
    bench.turn()
    assert not bench.watched
    bench.card.send(plain())
    assert bench.card.net.drops() == 1
    bench.card.net.reset()
    os.close(fd)


UNPRIVILEGED = """\
from ukernel.lib.confine import give_up_privileges
give_up_privileges()
from launcher import tap
try:
    tap.opened("uk-none")
except tap.TapError as error:
    print(error)
"""


def test_without_privilege_it_says_what_is_missing() -> None:
    done = subprocess.run(
        [sys.executable, "-c", UNPRIVILEGED], capture_output=True, text=True, check=True
    )
    if os.access(tap.DEVICE, os.R_OK | os.W_OK):
        assert done.stdout.startswith("the interface uk-none needs CAP_NET_ADMIN, which this")
        assert "or set backend: userns" in done.stdout
    else:
        assert tap.DEVICE in done.stdout
        assert "backend: wire" in done.stdout


def test_an_interface_that_is_there_and_is_no_tap() -> None:
    if may_have_taps():
        with pytest.raises(tap.TapError, match="lo is there and is no TAP interface: name another"):
            tap.opened("lo")


# --- a namespace --------------------------------------------------------------------------------

SYSTEM = f"""\
system: s
hardware:
  nic0: {{model: virtio-net, backend: userns, host_address: {HOST}/24, mtu: 65535}}
servers: {{a: {{run: program}}}}
"""


@pytest.fixture
def cables(tmp_path: Path) -> Iterator[Cables]:
    (tmp_path / "program.py").touch()
    (tmp_path / "system.yaml").write_text(SYSTEM)
    made = Cables(load(tmp_path / "system.yaml"), tmp_path)
    yield made
    made.close()


def in_namespace(cables: Cables, stack: ExitStack) -> list[tuple[str, int]]:
    """What is given to the machine; nothing, and a clear message, where the host forbids it."""
    try:
        return stack.enter_context(cables.opened())
    except CableError as error:
        told = str(error)
    assert ":3: hardware.nic0: " in told
    assert "network namespaces" in told or tap.DEVICE in told
    return []


def test_a_namespace_for_which_nobody_is_root(cables: Cables, tmp_path: Path) -> None:
    with ExitStack() as stack:
        given = in_namespace(cables, stack)
        if not given:
            return
        (device, fd), (unnamed, _) = given
        assert (device, unnamed) == ("nic0", "")
        bench = Bench(fd)
        assert len(bench.answered(HOST, CARD)) == 6
        pid = holder(tmp_path, "nic0")
        assert namespaces(tmp_path) == {"nic0": pid}
        routes = subprocess.check_output(inside(pid, ["cat", "/proc/net/route"]))
        assert b"tap0" in routes
        bench.card.net.reset()


def test_it_ends_with_the_machine(cables: Cables, tmp_path: Path) -> None:
    """When nobody has the holder's line any more: the launcher has closed its own by then."""
    with ExitStack() as stack:
        given = in_namespace(cables, stack)
        if not given:
            return
        machine = os.dup(given[1][1])
        ended = os.pidfd_open(holder(tmp_path, "nic0"))
    assert not select.select([ended], [], [], 0)[0]
    os.close(machine)
    assert select.select([ended], [], [], PATIENCE_S)[0]
    os.close(ended)
    cables.close()
    assert not namespaces(tmp_path)
    with pytest.raises(LookupError, match="nic0 has no network namespace: set backend: userns"):
        holder(tmp_path, "nic0")


def test_each_life_of_the_machine_has_one_of_its_own(cables: Cables, tmp_path: Path) -> None:
    with ExitStack() as stack:
        if not in_namespace(cables, stack):
            return
        first = holder(tmp_path, "nic0")
        stack.enter_context(cables.opened())
        assert holder(tmp_path, "nic0") != first
        assert not os.path.exists(f"/proc/{first}")


def test_a_host_that_gives_no_namespaces_says_so(
    cables: Cables, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As where a sysctl or AppArmor forbids them: the holder's unshare(2) is refused."""
    refusing = tmp_path / "refusing.py"
    source = Path(tap.__file__).read_text()
    refusing.write_text(source.replace("CLONE_NEWUSER | CLONE_NEWNET)", "-1)"))
    monkeypatch.setattr(tap, "__file__", str(refusing))
    with pytest.raises(CableError, match=r"gives its users no network namespaces \(.*backend: tap"):
        cables.opened().__enter__()

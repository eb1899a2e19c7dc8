"""Attacks from the network, and from a client of it, on a system that is at work meanwhile."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from launcher.client import Client
from servers.net import arp, ethernet, ipv4
from servers.net.addresses import number
from servers.net.tcp.segment import ACK, FIN, NO_OPTIONS, PSH, RST, SYN, Options, Segment
from tests.adversary.tasks.parker import CALLS, WINDOW
from tests.hwsim.test_pcapng import packets
from tests.journey.station import MAC, Injector, Sniffer, tcp_frame
from tests.journey.web import PATIENCE_S, Site, by_user_namespace, running
from tests.servers.net.peer import arp_frame, ip_frame
from tests.tools import needs

MIB = 1 << 20
HTTP, ECHO = 80, 7
SYNS, GARBAGE, SLOW = 20_000, 50_000, 100
MOST_GROWTH = 24 * MIB  # of the memory that is net's own
PARKER = "\n  parker: {run: tests.adversary.tasks.parker, calls: [net], start: demand}\n"
NOBODY = "10.77.0.9"
BYSTANDERS = ("nic", "net", "httpd", "echo", "fs", "disk")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Nobody in it has died when all is over."""
    text, peers = by_user_namespace(more_servers=PARKER), {"nic0": "10.77.0.2"}
    with running(tmp_path_factory.mktemp("site"), text, peers) as site:
        site.put("middle", MIB)
        site.put("large", 8 * MIB)
        yield site
        assert {name: site.row(name)["life"] for name in BYSTANDERS} == dict.fromkeys(BYSTANDERS, 1)


@pytest.fixture
def injector(site: Site) -> Iterator[Injector]:
    made = Injector(site)
    yield made
    made.close()


def own_memory(site: Site, server: str) -> int:
    """Bytes that a server has, without what it shares."""
    memory = psutil.Process(site.row(server)["pid"]).memory_info()
    return int(memory.rss - memory.shared)


@contextlib.contextmanager
def downloading(site: Site, name: str) -> Iterator[None]:
    """A download that goes on meanwhile, and is right at the end."""
    got = site.folder / "got"
    argv = site.cable.command("curl", "-sS", "-o", str(got), "--limit-rate", "8M", site.url(name))
    with subprocess.Popen(argv) as curl:
        yield
        assert curl.wait(PATIENCE_S) == 0
    assert got.read_bytes() == site.files[name]


@contextlib.contextmanager
def conversation(site: Site) -> Iterator[socket.socket]:
    """A connection that works before, and as well afterwards."""
    with site.cable.connected(ECHO) as line:
        for word in (b"before", b"after"):
            line.sendall(word)
            assert line.recv(100) == word
            if word == b"before":
                yield line


# --- strangers ----------------------------------------------------------------------------------


@needs("curl")
def test_a_flood_of_syns(site: Site, injector: Injector) -> None:
    """From all over the world and from every address of the link."""
    mac, peer = bytes.fromhex(site.interface()["mac"]), number(site.cable.peer)
    rng, before = random.Random(1), own_memory(site, "net")

    def syns() -> Iterator[bytes]:
        for n in range(SYNS):
            near = number("10.77.0.10") + n % 200
            source = near if n % 4 == 0 else rng.randrange(number("11.0.0.0"), number("126.0.0.0"))
            options = Options(mss=1460, scale=7, sack_permitted=True, timestamp=(n, 0))
            port = rng.choice((HTTP, ECHO, 81))
            syn = Segment(rng.randrange(1024, 65536), port, rng.getrandbits(32), 0, SYN, 65535,
                          options if n % 2 else NO_OPTIONS, memoryview(b""))  # fmt: skip
            yield tcp_frame(mac, source, peer, syn)

    with conversation(site), downloading(site, "large"):
        assert injector.put(syns()) == SYNS
    assert own_memory(site, "net") < before + MOST_GROWTH
    assert len(site.sockets()) < 100


@needs("tshark")
def test_garbage(site: Site, injector: Injector, tmp_path: Path) -> None:
    """Frames of nothing, and real ones with bytes changed, cut off and put on."""
    with site.captured("nic0", tmp_path / "capture") as capture, conversation(site):
        site.cable.run("curl", "-sS", "-o", "/dev/null", site.url("middle"))
        site.cable.run("ping", "-qc", "2", "-s", "4000", "-i", "0.01", site.cable.peer)
    real = [frame for _, frame in packets(capture) if len(frame) < 1514]
    mac = bytes.fromhex(site.interface()["mac"])
    before, memory = site.interface(), own_memory(site, "net")
    with conversation(site):
        frames = garbage(random.Random(2), real, mac)
        assert injector.put(frames) == GARBAGE
    after = site.interface()
    assert after["frames_in"] - before["frames_in"] >= GARBAGE * 0.99
    assert after["dropped"] - before["dropped"] >= GARBAGE // 4
    assert own_memory(site, "net") < memory + MOST_GROWTH


def garbage(rng: random.Random, real: list[bytes], mac: bytes) -> Iterator[bytes]:
    kinds = (ethernet.IPV4, ethernet.ARP, 0x86DD, 0x8100, 0)
    for n in range(GARBAGE):
        if n % 4 == 0:
            head = mac + MAC + rng.choice(kinds).to_bytes(2, "big")
            yield head + rng.randbytes(rng.randrange(0, 200))
            continue
        frame = bytearray(rng.choice(real))
        for _ in range(rng.randrange(1, 4)):
            frame[rng.randrange(12, len(frame))] = rng.randrange(256)
        frame[:6] = mac
        if frame[12:14] == ethernet.ARP.to_bytes(2, "big"):
            # Not of Linux: who says so is believed, as ARP has it, and gets what Linux should
            frame[28:32] = number(NOBODY).to_bytes(4, "big")
        yield bytes(frame[: rng.randrange(14, len(frame) + 1)] if n % 3 == 0 else frame)


@needs("curl")
def test_a_hundred_who_never_finish(site: Site) -> None:
    """Some send half a request, some a byte of one now and then, some read no answer."""
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(site.cable.connected(HTTP)) for _ in range(SLOW)]
        for n, line in enumerate(slow):
            line.sendall(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n" if n % 2 else b"GET /mid")
        for line in slow[1::2]:
            assert line.recv(1)
        with conversation(site), downloading(site, "middle"):
            for line in slow[::2]:
                line.sendall(b"d")


def test_blind_attacks_on_a_connection(site: Site, injector: Injector) -> None:
    """RFC 5961: who does not see the connection cannot end it, or put anything into it, even with
    a number that lies in the window."""
    with Sniffer(site) as sniffer, conversation(site) as line:
        line.sendall(b"seen")
        assert line.recv(100) == b"seen"
        port = line.getsockname()[1]
        last = sniffer.last(port, ECHO)
        seq = last.seq + len(last.payload)
        wrong = [(seq + off) & 0xFFFFFFFF for off in (-70_000, 1, 2000, 1 << 31, 1 << 30)]
        text = memoryview(b"evil")
        made = [
            Segment(port, ECHO, at, last.ack + off & 0xFFFFFFFF, flags, 65535, NO_OPTIONS, load)
            for at in wrong
            for off in (0, 1 << 20, -(1 << 30))
            for flags, load in ((RST, text[:0]), (RST | ACK, text[:0]), (SYN, text[:0]),
                                (SYN | ACK, text[:0]))
        ]  # fmt: skip
        made += [
            Segment(port, ECHO, at, (last.ack + off) & 0xFFFFFFFF, flags, 65535, NO_OPTIONS, text)
            for at in (seq, seq - 70_000 & 0xFFFFFFFF, seq + (1 << 30) & 0xFFFFFFFF)
            for off in (1 << 20, 1 << 31)
            for flags in (ACK, PSH | ACK, FIN | ACK)
        ]
        linux, mac = sniffer.address, bytes.fromhex(site.interface()["mac"])
        peer = number(site.cable.peer)
        injector.put(tcp_frame(mac, linux, peer, segment) for segment in made)
        assert site.state(port) == "ESTABLISHED"


def test_who_says_to_be_somebody_else(site: Site, injector: Injector) -> None:
    """By ARP that nobody asked for, with the address of the system, or of nobody."""
    mac, peer = bytes.fromhex(site.interface()["mac"]), number(site.cable.peer)
    with conversation(site):
        for nobody in ("0.0.0.0", "255.255.255.255", "127.0.0.1", "224.0.0.1", site.cable.peer):
            claim = arp.Arp(arp.REPLY, MAC, number(nobody), mac, peer)
            martian = ip_frame(ipv4.TCP, bytes(20), number(nobody), peer, to=mac, mac=MAC)
            injector.put([arp_frame(claim, mac), arp_frame(claim), martian])


# --- a client -----------------------------------------------------------------------------------


@needs("curl")
def test_a_client_with_calls_that_never_end(site: Site) -> None:
    """Those that do not fit are refused; what waits holds up nobody."""
    theirs_in, ours_out = os.pipe()
    ours_in, theirs_out = os.pipe()

    def run() -> None:
        with Client() as own:
            status.append(own.run("parker", [], (theirs_in, theirs_out, theirs_out)))

    status: list[int] = []
    parker = threading.Thread(target=run)
    parker.start()
    with os.fdopen(ours_in) as told:
        try:
            assert int(told.readline()) == CALLS - WINDOW
            with conversation(site), downloading(site, "middle"):
                pass
            assert "10.77.0.2" in site.interface()["address"]
        finally:
            os.close(ours_out)
            os.close(theirs_in)
            os.close(theirs_out)
            parker.join()
    assert status == [0]

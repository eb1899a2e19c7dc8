"""A web server and an echo, tried by programs that nobody here wrote, and by Linux's own TCP."""

from __future__ import annotations

import contextlib
import hashlib
import random
import re
import select
import socket
import struct
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from servers.net.tcp.segment import ACK, FIN, PSH, RST, SYN
from tests.conftest import until
from tests.hwsim.test_pcapng import packets
from tests.journey.station import Call, Station
from tests.journey.web import (
    PATIENCE_S,
    Cable,
    Site,
    by_user_namespace,
    nothing_is_wrong,
    running,
    shark,
)
from tests.tools import needs

MIB = 1 << 20
BIG = 64 * MIB
HTTP, ECHO, NARROW = 80, 7, 9
BACKLOG = 64  # of an echo
ETHERNET = 14  # bytes of a frame's header
PEERS = {
    "nic0": "10.77.0.2",
    "jumbo-nic0": "10.78.0.2",
    "small-nic0": "10.79.0.2",
    "lossy-nic0": "10.80.0.2",
}
# Three more stacks: with large frames, with small ones and few connections, and at a bad line.
HARDWARE = """\
  jumbo-nic0: {model: virtio-net, backend: userns, host_address: 10.78.0.1/24, mtu: 9000,
               offload: false}
  small-nic0: {model: virtio-net, backend: userns, host_address: 10.79.0.1/24, mtu: 576,
               offload: false}
  lossy-nic0:
    model: virtio-net
    backend: userns
    host_address: 10.80.0.1/24
    faults: {loss: 0.02, duplicate: 0.01, reorder: 0.1, corrupt: 0.005, delay_ms: 5, seed: 5}
"""
STACK = """
  {0}-nic: {{run: servers.nic, serves: ethernet, devices: [{0}-nic0], priority: 200, window: 64}}
  {0}-net:
    run: servers.net
    serves: net
    calls: [{{{0}-nic: {{via: channel}}}}]
    window: 64
    state: persistent
    args: {{address: {1}/24, connections: {2}}}
  {0}-echo: {{run: servers.tcpecho, calls: [{{{0}-net: {{via: channel}}}}], args: {{net: {0}-net}}}}
"""
SERVERS = (
    STACK.format("jumbo", PEERS["jumbo-nic0"], 8)
    + STACK.format("small", PEERS["small-nic0"], 4)
    + STACK.format("lossy", PEERS["lossy-nic0"], 8)
    + f"""
  lossy-httpd:
    run: servers.httpd
    calls: [{{lossy-net: {{via: channel}}}}, {{fs: {{via: channel}}}}]
    args: {{net: lossy-net}}
  narrow: {{run: servers.tcpecho, calls: [net], args: {{port: {NARROW}, connections: 1}}}}
  thief: {{run: servers.tcpecho, calls: [net], args: {{port: {HTTP}}}, start: demand}}
"""
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    with running(folder, by_user_namespace(HARDWARE, SERVERS), PEERS) as site:
        site.put("small", 1000)
        site.put("middle", MIB)
        yield site


@pytest.fixture
def cable(site: Site) -> Cable:
    return site.cable


# --- programs -----------------------------------------------------------------------------------


@needs("ping")
def test_ping(cable: Cable) -> None:
    """The second in six fragments each way, the third as fast as answers come."""
    for count, how in ((3, "-i 0.01"), (5, "-i 0.01 -s 8000"), (200, "-f")):
        # Until so many were answered: without -w, ping gives the last two round trips.
        told = cable.run("ping", "-q", "-c", str(count), "-w", "10", *how.split(), cable.peer)
        answered = re.search("([0-9]+) received", told)
        assert answered is not None, told
        assert int(answered[1]) == count, told


@needs("curl")
def test_curl(site: Site, cable: Cable, tmp_path: Path) -> None:
    got, middle = tmp_path / "got", site.files["middle"]
    curl = ["curl", "-sS", "-o", str(got), "-w", "%{http_code} %{size_download}\n"]
    assert cable.run(*curl, site.url("middle")) == f"200 {MIB}\n"
    assert got.read_bytes() == middle
    for asked, found in (("0-0", middle[:1]), ("70000-270000", middle[70_000:270_001]),
                         ("-5000", middle[-5000:])):  # fmt: skip
        assert cable.run(*curl, "-r", asked, site.url("middle")) == f"206 {len(found)}\n"
        assert got.read_bytes() == found
    assert cable.run(*curl, "-r", f"{MIB}-", site.url("middle")).startswith("416 ")
    head = cable.run("curl", "-sS", "-I", site.url("middle"))
    assert "HTTP/1.1 200" in head
    assert f"content-length: {MIB}" in head.lower()
    assert cable.run(*curl, site.url("nothing")).startswith("404 ")
    assert "(7)" in cable.run("curl", "-sS", f"http://{cable.peer}:81/", status=7)


@needs("curl")
def test_one_connection_has_several_answers(site: Site, cable: Cable, tmp_path: Path) -> None:
    curl = ["curl", "-sS", "-w", "%{num_connects}\n", "-o", f"{tmp_path}/#1"]
    told = cable.run(*curl, site.url("{small,middle,nothing,small}"))
    assert told.split() == ["1", "0", "0", "0"]
    assert (tmp_path / "middle").read_bytes() == site.files["middle"]


@needs("curl", "xargs")
def test_twenty_at_once(site: Site, cable: Cable, tmp_path: Path) -> None:
    lines = "\n".join(f"{tmp_path}/{n} {site.url('middle')}" for n in range(20))
    assert cable.run("xargs", "-P", "20", "-L", "1", "curl", "-sS", "-o", stdin=lines) == ""
    assert all((tmp_path / str(n)).read_bytes() == site.files["middle"] for n in range(20))


@needs("wget")
def test_wget(site: Site, cable: Cable, tmp_path: Path) -> None:
    got = tmp_path / "got"
    got.write_bytes(site.files["middle"][:300_000])  # it goes on from there
    cable.run("wget", "-q", "-c", "-O", str(got), site.url("middle"))
    assert got.read_bytes() == site.files["middle"]
    assert "404" in cable.run("wget", "-nv", "-O", str(got), site.url("nothing"), status=8)


@needs("ab")
def test_ab(site: Site, cable: Cable) -> None:
    """It speaks HTTP/1.0: a connection for each request."""
    ask_with_ab(site, cable, 200)


def ask_with_ab(site: Site, cable: Cable, times: int) -> None:
    told = cable.run("ab", "-q", "-n", str(times), "-c", "20", site.url("small"))
    found = {name: int(number) for name, number in re.findall(r"(?m)^([\w -]+): +(\d+)", told)}
    assert found["Complete requests"] == times
    assert found["Failed requests"] == 0
    assert found["HTML transferred"] == times * 1000


@needs("wrk")
def test_wrk(site: Site, cable: Cable) -> None:
    told = cable.run("wrk", "-t", "1", "-c", "30", "-d", "1s", site.url("small"))
    assert "Socket errors" not in told
    assert "Non-2xx" not in told
    assert int(re.findall(r"(\d+) requests in", told)[0]) > 30


@needs("nc")
def test_nc(cable: Cable) -> None:
    text = random.Random(1).randbytes(150_000).hex()
    assert cable.run("nc", "-N", cable.peer, str(ECHO), stdin=text) == text
    assert cable.run("nc", "-u", "-W", "1", cable.peer, str(ECHO), stdin="hello") == "hello"
    assert "refused" in cable.run("nc", "-v", cable.peer, "81", status=1)


@needs("curl", "ping", "tshark")
def test_tshark_finds_nothing_malformed(site: Site, cable: Cable, tmp_path: Path) -> None:
    with site.captured("nic0", tmp_path / "capture") as capture:
        test_curl(site, cable, tmp_path)
        test_twenty_at_once(site, cable, tmp_path)
        test_ping(cable)
        test_a_reset(site, cable)
        assert sent_back(cable, bytes(MIB)) == bytes(MIB)
    nothing_is_wrong(capture, 1500)


# --- Linux's own TCP ----------------------------------------------------------------------------


def sent_back(cable: Cable, data: bytes, receive_buffer: int = 0, most: int = 1 << 16) -> bytes:
    """What the echo makes of this, sent and received at the same time, then the end of it."""
    with cable.tcp() as line:
        if receive_buffer:
            line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        line.connect((cable.peer, ECHO))

        def send() -> None:
            line.sendall(data)
            line.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=send)
        sender.start()
        got = bytearray()
        while piece := line.recv(most):
            got += piece
        sender.join()
    return bytes(got)


def test_both_ways_at_once_and_an_end_that_is_half_closed(cable: Cable) -> None:
    data = random.Random(2).randbytes(4 * MIB)
    assert sent_back(cable, data) == data
    assert sent_back(cable, b"") == b""


def test_windows_as_small_as_linux_has_them(cable: Cable) -> None:
    data = random.Random(3).randbytes(20_000)
    assert sent_back(cable, data, receive_buffer=1, most=7) == data
    assert sent_back(cable, data[:3000], receive_buffer=1, most=1) == data[:3000]


def test_urgent_data_is_data(cable: Cable) -> None:
    """An urgent pointer is not heeded (RFC 9293 §3.8.5 leaves that to the user): no byte is lost,
    and none goes another way."""
    with cable.connected(ECHO) as line:
        line.sendall(b"one")
        line.send(b"!", socket.MSG_OOB)
        line.sendall(b"two")
        line.shutdown(socket.SHUT_WR)
        assert line.makefile("rb").read() == b"one!two"


def broken_off(line: socket.socket) -> None:
    """Close it with a reset."""
    line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    line.close()


def test_a_reset(site: Site, cable: Cable) -> None:
    """It ends the connection at once, and that one only."""
    with cable.connected(HTTP) as reader, cable.connected(ECHO) as line:
        port = reader.getsockname()[1]
        reader.sendall(b"GET /middle HTTP/1.1\r\nHost: x\r\n\r\n")
        assert reader.recv(1000)
        assert site.state(port) == "ESTABLISHED"
        broken_off(reader)
        until(lambda: not site.state(port))
        line.sendall(b"x")
        assert line.recv(1) == b"x"


def test_who_is_slow_holds_up_nobody(site: Site, cable: Cable) -> None:
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(cable.connected(HTTP)) for _ in range(40)]
        for line in slow:
            line.sendall(b"GET /middle HTTP/1.1\r\nHost: x\r\n\r\n")
        for line in slow:
            assert line.recv(1)
        assert sent_back(cable, bytes(MIB)) == bytes(MIB)
        test_middle_by_hand(site, cable)
        assert slow[0].recv(100_000)


def test_middle_by_hand(site: Site, cable: Cable) -> None:
    with cable.connected(HTTP) as line:
        line.sendall(b"GET /middle HTTP/1.0\r\n\r\n")
        head, _, body = line.makefile("rb").read().partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert body == site.files["middle"]


def test_linux_has_what_is_fetched(site: Site, cable: Cable) -> None:
    """The system's own wget, and a server that any Linux could have."""
    argv = ("wget", "-q", "http://10.77.0.1:8000/x", "-O", "/www/fetched")
    status, told = site.command(*argv)
    assert (status, told) == (4, "wget: 10.77.0.1:8000: nobody listens there\n")
    with cable.tcp() as listener:
        listener.bind(("10.77.0.1", 8000))
        listener.listen()
        server = threading.Thread(target=serve_once, args=(listener, site.files["middle"]))
        server.start()
        status, told = site.command(*argv)
        server.join()
    assert (status, told.split()[0]) == (0, site.digest("middle"))


def serve_once(listener: socket.socket, body: bytes) -> None:
    """As HTTP/1.0 has it: the end of the answer is the end of the connection."""
    line, _ = listener.accept()
    with line, line.makefile("rb") as asked:
        while asked.readline() != b"\r\n":
            continue
        line.sendall(b"HTTP/1.0 200 OK\r\n\r\n" + body)


def test_a_port_where_nobody_listens(cable: Cable) -> None:
    for port in (1, 81, 65535):
        with cable.tcp() as line, pytest.raises(ConnectionRefusedError):
            line.connect((cable.peer, port))
    with cable.opened(socket.AF_INET, socket.SOCK_DGRAM) as line:
        line.connect((cable.peer, 81))
        line.send(b"x")
        with pytest.raises(ConnectionRefusedError):  # by ICMP
            line.recv(1)


def test_more_than_a_backlog_holds(site: Site, cable: Cable) -> None:
    """The echo on this port takes one connection, 64 wait for it, and further ones knock again
    until there is room: nobody is refused."""

    def full() -> bool:
        heard = [row for row in site.sockets() if row["state"] == "LISTEN"]
        row = next(row for row in heard[::-1] if row["local"]["port"] == NARROW)
        return bool(row["receive_queue"] == BACKLOG)

    with contextlib.ExitStack() as stack:
        sent: set[socket.socket] = set()
        unsent = {stack.enter_context(cable.tcp()) for _ in range(BACKLOG + 8)}
        for line in unsent:
            line.setblocking(False)
            line.connect_ex((cable.peer, NARROW))
        until(full)
        while unsent or sent:
            ready, connected, _ = select.select(sent, unsent, [], PATIENCE_S)
            assert ready or connected
            for line in connected:
                line.send(b"x")
            for line in ready:
                assert line.recv(2) == b"x"
                line.close()
            unsent -= set(connected)
            sent = sent - set(ready) | set(connected)


# --- what two ends do at the same time ----------------------------------------------------------


@pytest.fixture
def station(site: Site) -> Iterator[Station]:
    made = Station(site, "10.77.0.9")
    yield made
    made.close()


def test_both_open_at_once(site: Site, station: Station) -> None:
    """RFC 9293 figure 7: a SYN for a SYN."""
    told: list[tuple[int, str]] = []
    argv = ("wget", "-q", "http://10.77.0.9/x", "-O", "/www/fetched")
    wget = threading.Thread(target=lambda: told.append(site.command(*argv)))
    wget.start()
    first = station.hear(lambda made: made.flags == SYN)
    call = Call(station, 80, first.source)
    call.say(SYN)
    call.hear(SYN | ACK)
    call.say()
    assert bytes(call.hear(ACK | PSH).payload).startswith(b"GET /x HTTP/1.1\r\n")
    call.say(payload=b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    call.hear(FIN)
    call.say(FIN | ACK)
    wget.join()
    ((status, digest),) = told
    assert (status, digest.split()[0]) == (0, hashlib.sha256(b"ok").hexdigest())


def test_both_close_at_once(site: Site, station: Station) -> None:
    """RFC 9293 figure 13: a FIN for a FIN."""
    call = Call(station, 4000, HTTP)
    call.say(SYN)
    call.hear(SYN | ACK)
    call.say()
    call.say(payload=b"GET /nothing HTTP/1.0\r\n\r\n")
    end = call.hear(FIN)
    call.ack -= 1  # we have not seen it
    call.say(FIN | ACK)
    until(lambda: site.state(call.port) == "CLOSING")
    call.ack = (end.seq + len(end.payload) + 1) & 0xFFFFFFFF
    call.say()
    until(lambda: site.state(call.port) in ("", "TIME_WAIT"))


# --- lines of other kinds -----------------------------------------------------------------------


@needs("ping", "tshark")
@pytest.mark.parametrize(("which", "mtu"), [("jumbo", 9000), ("small", 576)])
def test_another_mtu(site: Site, tmp_path: Path, which: str, mtu: int) -> None:
    cable = site.cables[f"{which}-nic0"]
    data = random.Random(mtu).randbytes(MIB)
    with site.captured(f"{which}-nic0", tmp_path / "capture") as capture:
        assert sent_back(cable, data) == data
        assert " 0% packet loss" in cable.run("ping", "-qc", "2", "-s", "8000", cable.peer)
    nothing_is_wrong(capture, 2 * MIB // mtu)
    assert max(len(frame) for _, frame in packets(capture)) == ETHERNET + mtu


@needs("curl", "tshark")
def test_a_bad_line(site: Site, tmp_path: Path) -> None:
    """Frames are lost, spoiled, late, twice there, in another order: what arrives is right."""
    bad_line(site, site.cables["lossy-nic0"])


@needs("curl", "tc")
def test_the_bad_line_of_linux(site: Site, cable: Cable) -> None:
    """The same, as netem makes it (tc-netem(8)) of what Linux sends."""
    queue = ["tc", "qdisc", "replace", "dev", "tap0", "root"]
    netem = ["netem", "loss", "2%", "delay", "5ms", "reorder", "10%", "duplicate", "1%"]
    argv = cable.command(*queue, *netem)
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        assert "qdisc kind is unknown" in done.stderr
        pytest.skip("this kernel has no sch_netem: test_a_bad_line has the card's own faults")
    try:
        bad_line(site, cable)
    finally:
        cable.run(*queue, "pfifo_fast")


def bad_line(site: Site, cable: Cable) -> None:
    data = random.Random(4).randbytes(MIB)
    assert sent_back(cable, data) == data
    got = site.folder / "got"
    cable.run("curl", "-sS", "-o", str(got), f"http://{cable.peer}/middle")
    assert got.read_bytes() == site.files["middle"]
    got.unlink()


# --- lives --------------------------------------------------------------------------------------


@needs("curl", "tshark")
def test_a_download_while_driver_and_stack_are_killed(
    site: Site, cable: Cable, tmp_path: Path
) -> None:
    """At each eighth of the file the driver is killed, or the stack, or both."""
    site.put("big", BIG)
    victims = [("nic",), ("net",), ("nic", "net")]
    digest, came, lives = hashlib.sha256(), 0, {"nic": 0, "net": 0}
    with site.captured("nic0", tmp_path / "capture") as capture:
        argv = cable.command("curl", "-sS", "-N", site.url("big"))
        with subprocess.Popen(argv, stdout=subprocess.PIPE) as curl:
            assert curl.stdout is not None
            while piece := curl.stdout.read(1 << 16):
                if (came + len(piece)) * 8 // BIG > came * 8 // BIG and came + len(piece) < BIG:
                    for name in victims[came * 8 // BIG % 3]:
                        until(lambda name=name: site.lives(name, lives[name]))  # type: ignore[misc]
                        lives[name] = site.kill(name)
                digest.update(piece)
                came += len(piece)
        assert curl.returncode == 0
    assert (came, digest.hexdigest()) == (BIG, site.digest("big"))
    assert min(site.row(name)["restarts"] for name in lives) >= 4
    nothing_is_wrong(capture, 1000)
    fields = ("-T", "fields", "-e", "tcp.stream", "-e", "tcp.flags")
    rows = [line.split("\t") for line in shark(capture, "-Y", "tcp", *fields)]
    flags = [int(row[1], 16) for row in rows]
    assert {row[0] for row in rows} == {"0"}
    assert flags.count(SYN) == 1
    assert not any(flag & RST for flag in flags)


def test_an_answer_that_nobody_reads_outlives_driver_and_stack(site: Site, cable: Cable) -> None:
    """The window is shut when they die; that it opens is told to their next lives."""
    with cable.tcp() as line:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        line.connect((cable.peer, HTTP))
        line.sendall(b"GET /middle HTTP/1.0\r\n\r\n")
        port = line.getsockname()[1]

        def unsent() -> int:
            return sum(row["send_queue"] for row in site.sockets() if row["peer"]["port"] == port)

        until(lambda: unsent() > 200_000)
        lives = {name: site.kill(name) for name in ("nic", "net")}
        until(lambda: all(site.lives(name, life) for name, life in lives.items()))
        with line.makefile("rb") as answer:
            assert answer.read().partition(b"\r\n\r\n")[2] == site.files["middle"]


def test_idle_connections_outlive_twenty_restarts(site: Site, cable: Cable) -> None:
    """Half of the lives are ended in order, half are killed."""
    with contextlib.ExitStack() as stack:
        lines = [stack.enter_context(cable.connected(ECHO)) for _ in range(10)]
        for n in range(20):
            if n % 2:
                life = site.kill("net")
                until(lambda life=life: site.lives("net", life))  # type: ignore[misc]
            else:
                site.restart("net")
        for line in lines:
            line.sendall(b"still here")
            assert line.recv(100) == b"still here"
        port = lines[0].getsockname()[1]
        rows = [row for row in site.sockets() if row["peer"]["port"] == port]
        assert rows[0]["lives"] >= 21


# --- when there is no more ----------------------------------------------------------------------


def test_one_connection_more_than_there_is_room_for(site: Site) -> None:
    """It waits, and comes in when another has ended."""
    cable = site.cables["small-nic0"]
    with contextlib.ExitStack() as stack:
        lines = [stack.enter_context(cable.connected(ECHO)) for _ in range(4)]
        for line in lines:
            line.sendall(b"x")
            assert line.recv(1) == b"x"
        late = stack.enter_context(cable.connected(ECHO))  # for Linux it stands
        late.sendall(b"y")
        cable.run("ping", "-qc", "1", cable.peer)
        assert site.state(late.getsockname()[1], "small-net") != "ESTABLISHED"
        broken_off(lines.pop(0))
        assert late.recv(1) == b"y"
        for line in lines:
            line.sendall(b"z")
            assert line.recv(1) == b"z"


def test_a_port_that_another_client_has(site: Site, cable: Cable) -> None:
    status, told = site.command("thief")
    assert status == 1
    assert "AddressInUse: TCP port 80" in told
    test_middle_by_hand(site, cable)


@needs("ab")
def test_nothing_is_left_of_connections_that_are_over(site: Site, cable: Cable) -> None:
    def held() -> int:
        return sum(int(site.row(name)["caps"]) for name in ("net", "httpd", "echo"))

    def listening_only() -> bool:
        return {row["state"] for row in site.sockets()} <= {"LISTEN", ""}

    def some() -> None:
        ask_with_ab(site, cable, 60)
        sent_back(cable, bytes(1000))
        test_a_reset(site, cable)
        until(listening_only)

    some()  # the memory that they lend each other is known now
    before = held()
    some()
    until(lambda: held() <= before + 1)  # a file may be open a little longer

"""What the kernel does with Linux, done: descriptors, who may write them, who is woken.

The tasks are those of `harness`, the effects are carried out by the real shell; only messages stay
here, since there is nobody at the other end of a socket.
"""

from __future__ import annotations

import gc
import mmap
import os
import resource
import select
import socket
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from tests.broker import harness
from tests.broker.harness import Task
from ukernel.abi import wire
from ukernel.abi.errors import Code
from ukernel.broker import effects, shell
from ukernel.broker.memory import CHANNEL_OPEN

PAGE = mmap.PAGESIZE
SIZE = 4 * PAGE
EDGE = select.EPOLLIN | select.EPOLLET


class Shell(shell.Kernel):
    """Keeps what it would send."""

    def __init__(self, address: str, control: socket.socket) -> None:
        self.unsent: list[effects.Send] = []
        super().__init__(address, control, os.getpid(), trace=False)

    def _send(self, effect: effects.Send) -> None:
        self.unsent.append(effect)


class Kernel(harness.Kernel):
    """Descriptors go to the tasks over control sockets, as they would to processes."""

    def __init__(self, linux: Shell, far: socket.socket) -> None:
        self.linux, self.far, self.booted = linux, far, False
        self.lines: dict[str, socket.socket] = {}
        super().__init__()
        linux.state, linux.controls = self.state, {self.state.root.client: linux.root}
        self.booted = True

    def step(self, event: effects.Event) -> list[effects.Effect]:
        done = super().step(event)
        if self.booted:
            self.linux.do([effect for effect in done if not isinstance(effect, effects.Send)])
        return done

    def task(
        self, name: str, calls: Iterable[str] = (), devices: Iterable[str] = (), **slot: int
    ) -> Task:
        task = super().task(name, calls, devices, **slot)
        _, (fd,), _, _ = socket.recv_fds(self.far, 8, 1)
        self.lines[name] = socket.socket(fileno=fd)
        self.lines[name].recv(4096)  # its boot record
        return task

    def got(self, task: Task, tag: int) -> list[int]:
        """The descriptors that a task was handed next."""
        announced, fds, _, _ = socket.recv_fds(self.lines[task.name], 8, 8, socket.MSG_DONTWAIT)
        assert int.from_bytes(announced, "little") == tag
        return fds


def descriptors() -> int:
    gc.collect()  # what earlier tests of this process have left is not ours
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture
def k(tmp_path: Path) -> Iterator[Kernel]:
    before = descriptors()
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    linux = Shell(f"ipc://{tmp_path}/kernel", near)
    far.recv(4096)  # the boot record of the root task
    kernel = Kernel(linux, far)
    yield kernel
    for name in kernel.lines:
        kernel.end(name)
    for line in (near, far, *kernel.lines.values()):
        line.close()
    assert linux.descriptors == {}
    linux.socket.close()
    linux.context.term()
    assert descriptors() == before


@pytest.fixture
def server(k: Kernel) -> Task:
    return k.task("server")


@pytest.fixture
def client(k: Kernel, server: Task) -> Task:
    return k.task("client", calls=["server"])


def ask(server: Task, client: Task) -> int:
    server.credit()
    client.call("server", opcode=CHANNEL_OPEN, flags=wire.ASYNC)
    return server.delivery().seq


def test_a_page_that_the_kernel_writes_and_memory_that_the_ends_write(
    k: Kernel, server: Task, client: Task
) -> None:
    ours, theirs = server.sys("channel", ask(server, client), SIZE)
    page, memory, *bells = k.got(server, ours)
    same_page, same_memory, *same_bells = k.got(client, theirs)
    with mmap.mmap(memory, SIZE) as mine, mmap.mmap(same_memory, SIZE) as yours:
        mine[SIZE - 1] = 7
        assert yours[SIZE - 1] == 7
    for fd in (page, same_page):
        with pytest.raises(PermissionError):
            mmap.mmap(fd, PAGE)
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.write(fd, b"\1")
    assert [os.eventfd_read(bell) for bell in bells] == [1, 1]
    for fd in (page, memory, *bells, same_page, same_memory, *same_bells):
        os.close(fd)


def test_closing_says_so_and_wakes_both_ends(k: Kernel, server: Task, client: Task) -> None:
    """Whatever one end has done to the bells: the kernel neither fails nor waits."""
    ours, theirs = server.sys("channel", ask(server, client), SIZE)
    page, _, *bells = fds = k.got(server, ours)
    same = k.got(client, theirs)
    os.set_blocking(same[2], True)
    os.eventfd_write(same[2], (1 << 64) - 3)  # the server's is full, and whoever adds must wait
    with mmap.mmap(page, PAGE, prot=mmap.PROT_READ) as seen, select.epoll() as waits:
        for bell in bells:
            waits.register(bell, EDGE)
        assert len(waits.poll(0)) == 2
        assert (waits.poll(0), seen[0]) == ([], 0)
        client.sys("delete", on="server")
        assert seen[0] == 1
        assert {fd for fd, _ in waits.poll(0)} == set(bells)
    for fd in (*fds, *same):
        os.close(fd)


def test_a_thousand_channels_leave_no_descriptor(k: Kernel, server: Task, client: Task) -> None:
    before = descriptors()
    for _ in range(1000):
        ours, theirs = server.sys("channel", (call := ask(server, client)), SIZE)
        for fd in (*k.got(server, ours), *k.got(client, theirs)):
            os.close(fd)
        server.send(wire.REPLY, seq=call)
        (token,) = [t for t in client.life.caps if t != client.named["self"]]
        client.named["server"] = client.sys("move", on=token)
    assert descriptors() == before
    assert not [name for name in k.state.counters if name.startswith("failed_")]


@pytest.mark.parametrize("left", range(4))
def test_a_channel_that_linux_cannot_make_leaves_nothing(
    k: Kernel, server: Task, client: Task, left: int
) -> None:
    call, before = ask(server, client), descriptors()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    spare = [os.dup(0) for _ in range(left)]
    lowest = os.dup(0)
    for fd in (*spare, lowest):
        os.close(fd)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        server.post("channel", call, SIZE, on=wire.NO_TOKEN)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert descriptors() == before
    assert (k.state.memory, client.life.owned, client.life.slot.region_bytes) == ({}, {}, 0)
    assert not [name for name in k.state.counters if name.startswith("failed_")]
    assert k.linux.descriptors == {}
    (refusal,) = [wire.decode(effect.frame) for effect in k.linux.unsent]
    assert isinstance(refusal, wire.Message)
    assert Code(refusal.status) is Code.E_NO_MEMORY

"""Channels: opened by a server that was asked, closed once, paid for by the client alone."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.broker.harness import Kernel, Task, living, only_reference_counts
from tests.broker.test_step import handed, machine_and_driver, refused, status
from ukernel.abi import syscalls, wire
from ukernel.abi.errors import Code
from ukernel.abi.syscalls import CALL, GRANT, KERNEL_BADGE, Quota
from ukernel.broker import effects
from ukernel.broker.memory import CHANNEL_OPEN
from ukernel.broker.objects import Channel, Life

PAGE = 4096
SIZE = 4 * PAGE


@pytest.fixture
def k() -> Kernel:
    return Kernel()


@pytest.fixture
def server(k: Kernel) -> Task:
    return k.task("server")


@pytest.fixture
def client(k: Kernel, server: Task) -> Task:
    return k.task("client", calls=["server"])


def ask(server: Task, client: Task, through: str | bytes = "server") -> wire.Message:
    """The client's call for a channel, in the server's hands."""
    server.credit()
    client.call(through, opcode=CHANNEL_OPEN, flags=wire.ASYNC)
    return server.delivery()


def opened(server: Task, client: Task, through: str | bytes = "server") -> Channel:
    got = ask(server, client, through)
    _, theirs = server.sys("channel", got.seq, SIZE)
    server.answer(got, wire.pack(theirs))
    *_, made = (each for each in server.k.state.memory.values() if isinstance(each, Channel))
    return made


def ends(k: Kernel, channel: Channel) -> list[effects.Effect]:
    """What was done to end a channel, since the kernel was booted."""
    over = (effects.Shut(channel.number), effects.Close(channel.number))
    return [effect for effect in k.sent if effect in over]


def nothing_left(k: Kernel, client: Task) -> bool:
    slot = k.state.slots["client"]
    owned = slot.life.owned if slot.life is not None else {}
    return k.state.memory == {} and owned == {} and slot.region_bytes == 0


# --- opening -------------------------------------------------------------------------------------


def test_both_ends_are_handed_what_the_kernel_made(k: Kernel, server: Task, client: Task) -> None:
    got = ask(server, client)
    ours, theirs = server.sys("channel", got.seq, SIZE)
    (number,) = k.state.memory
    make, *passed, answered = k.last
    assert isinstance(make, effects.Make)
    assert (make.number, make.sizes) == (number, (PAGE, SIZE, -1, -1))
    assert passed == [
        effects.Pass(server.life.client, ours, number, 1),
        effects.Pass(client.life.client, theirs, number, 1),
    ]
    assert isinstance(answered, effects.Send)
    assert answered.rid == server.rid
    assert client.life.slot.region_bytes == SIZE
    assert (server.life.slot.region_bytes, server.life.owned) == (0, {})
    assert (len(client.life.caps), len(server.life.caps)) == (2, 1)  # it is no capability


def refuses(server: Task, call: int, size: int = SIZE) -> None:
    """Not to be had, which is nobody's fault."""
    before = dict(server.k.state.memory)
    refused(Code.E_UNAVAILABLE, server, "channel", call, size)
    assert server.k.state.memory == before
    assert server.life.slot.faults == 0
    assert not [e for e in server.k.last if isinstance(e, effects.Make | effects.Pass)]


def test_only_who_has_the_call_opens_a_channel(k: Kernel, server: Task, client: Task) -> None:
    got = ask(server, client)
    refuses(k.task("thief"), got.seq)
    refuses(server, got.seq + 1)
    server.answer(got)
    refuses(server, got.seq)


def test_only_a_call_that_asks_for_a_channel_opens_one(server: Task, client: Task) -> None:
    """Else a server could fill its clients' memory and their control sockets as it likes."""
    server.credit()
    client.call("server", opcode=1, flags=wire.ASYNC)
    refuses(server, server.delivery().seq)


def test_a_call_opens_one_channel(server: Task, client: Task) -> None:
    got = ask(server, client)
    server.sys("channel", got.seq, SIZE)
    refuses(server, got.seq)


def test_a_send_opens_no_channel(server: Task, client: Task) -> None:
    server.credit()
    client.call("server", wire.SEND, opcode=CHANNEL_OPEN)
    refuses(server, server.delivery().seq)


@pytest.mark.parametrize("size", [0, 1, PAGE - 1, PAGE + 1])
def test_a_channel_has_whole_pages(k: Kernel, server: Task, client: Task, size: int) -> None:
    got = ask(server, client)
    refused(Code.E_PROTO, server, "channel", got.seq, size)
    assert nothing_left(k, client)
    server.sys("channel", got.seq, SIZE)


def test_who_no_longer_waits_gets_no_channel(k: Kernel, server: Task, client: Task) -> None:
    server.credit()
    client.call("server", opcode=CHANNEL_OPEN, deadline_ns=k.now + 10)
    late = server.delivery()
    k.tick(10)
    refuses(server, late.seq)
    dead = ask(server, client)
    k.end("client")
    refuses(server, dead.seq)
    assert nothing_left(k, client)


def test_a_dead_clients_call_opens_nothing_in_its_next_life(
    k: Kernel, server: Task, client: Task
) -> None:
    got = ask(server, client)
    k.end("client")
    client = k.task("client", calls=["server"])
    refuses(server, got.seq)
    assert nothing_left(k, client)


@pytest.mark.parametrize("how", ["delete", "revoke", "pass on"])
def test_a_capability_that_went_in_the_meantime_opens_nothing(
    k: Kernel, server: Task, client: Task, how: str
) -> None:
    through = client.sys("mint", CALL | GRANT, 0, on="server")
    got = ask(server, client, through)
    if how == "pass on":
        handed(client, k.task("other"), through, wire.MOVE)
    else:
        client.sys(how, on=through if how == "delete" else "server")
    refuses(server, got.seq)


def test_the_same_capability_under_a_fresh_token_will_do(server: Task, client: Task) -> None:
    through = client.sys("mint", CALL, 0, on="server")
    got = ask(server, client, through)
    fresh = client.sys("move", on=through)
    server.sys("channel", got.seq, SIZE)
    client.sys("delete", on=fresh)
    assert nothing_left(server.k, client)


@pytest.mark.parametrize("scarce", ["bytes", "objects", "caps"])
def test_a_quota_of_the_client_is_not_held_against_the_server(
    k: Kernel, server: Task, client: Task, scarce: str
) -> None:
    server.life.quota = Quota(objects=0, caps=0)  # nor does its own matter
    match scarce:
        case "bytes":
            client.life.slot.memory = SIZE - 1
        case "objects":
            client.life.quota = Quota(objects=0)
        case "caps":
            client.life.quota = Quota(caps=client.life.paid)
    got = ask(server, client)
    refused(Code.E_NO_MEMORY, server, "channel", got.seq, SIZE)
    assert server.life.slot.faults == 0
    assert k.root.events(syscalls.EVENT_DENIED) == []
    assert nothing_left(k, client)
    client.life.slot.memory, client.life.quota = SIZE, Quota()
    server.sys("channel", got.seq, SIZE)


def test_a_size_beyond_all_memory_is_refused(k: Kernel, server: Task, client: Task) -> None:
    got = ask(server, client)
    refused(Code.E_NO_MEMORY, server, "channel", got.seq, (1 << 64) - PAGE)
    assert nothing_left(k, client)


def test_a_channel_that_linux_cannot_make_never_was(k: Kernel, server: Task, client: Task) -> None:
    got = ask(server, client)
    server.sys("channel", got.seq, SIZE)
    (made,) = [e for e in k.sent if isinstance(e, effects.Make)]
    assert k.step(effects.MakeFailed(made.number)) == [
        effects.Shut(made.number), effects.Close(made.number),
    ]  # fmt: skip
    assert nothing_left(k, client)
    refusal = wire.decode(made.otherwise.frame)
    assert isinstance(refusal, wire.Message)
    assert (made.otherwise.rid, Code(refusal.status)) == (server.rid, Code.E_NO_MEMORY)
    opened(server, client)  # the next attempt finds everything as it was


# --- closing -------------------------------------------------------------------------------------

Ending = Callable[[Kernel, Task, Task, bytes], object]
ENDINGS: dict[str, Ending] = {
    "delete": lambda k, server, client, through: client.sys("delete", on=through),
    "move": lambda k, server, client, through: client.sys("move", on=through),
    "revoke": lambda k, server, client, through: client.sys("revoke", on="server"),
    "pass on": lambda k, server, client, through: client.call(
        "server", flags=wire.MOVE | wire.ASYNC, caps=(through,)
    ),
    "client dies": lambda k, server, client, through: k.end("client"),
    "server dies": lambda k, server, client, through: k.end("server"),
    "server is given up": lambda k, server, client, through: k.end("server", syscalls.FAILED),
}


@pytest.mark.parametrize("how", ENDINGS)
def test_a_channel_is_closed_once_and_before_anybody_is_told(
    k: Kernel, server: Task, client: Task, how: str
) -> None:
    through = client.sys("mint", CALL | GRANT, 0, on="server")
    channel = opened(server, client, through)
    ENDINGS[how](k, server, client, through)
    over: list[effects.Effect] = [effects.Shut(channel.number), effects.Close(channel.number)]
    assert ends(k, channel) == over
    at, answered = k.last.index(over[0]), k.last[-1]
    assert k.last[at : at + 2] == over
    assert isinstance(answered, effects.Send)  # to who did it
    assert nothing_left(k, client)
    for name in ("client", "server"):
        k.end(name)
    assert ends(k, channel) == over


def test_a_copy_leaves_a_channel_open(server: Task, client: Task) -> None:
    through = client.sys("mint", CALL | GRANT, 0, on="server")
    channel = opened(server, client, through)
    client.call("server", flags=wire.ASYNC, caps=(through,))
    client.sys("delete", on=client.sys("copy", on=through))
    client.sys("delete", on=client.sys("mint", CALL, 0, on=through))
    client.sys("revoke", on=through)
    assert ends(server.k, channel) == []


def test_a_capability_has_one_channel(k: Kernel, server: Task, client: Task) -> None:
    """The next one takes its place: so a client may begin anew, and nothing adds up."""
    client.life.slot.memory = SIZE
    first, second = opened(server, client), opened(server, client)
    assert len(ends(k, first)) == 2
    assert ends(k, second) == []
    happened = [e for e in k.sent if isinstance(e, effects.Make | effects.Shut | effects.Close)]
    assert [e.number for e in happened] == [*[first.number] * 3, second.number]
    assert k.state.memory == {second.number: second}


def test_copies_have_channels_of_their_own(k: Kernel, server: Task, client: Task) -> None:
    copies = [client.sys("copy", on="server") for _ in range(2)]
    first, second = (opened(server, client, copy) for copy in copies)
    client.sys("delete", on=copies[0])
    assert (len(ends(k, first)), len(ends(k, second))) == (2, 0)


def test_the_next_life_of_a_server_opens_its_own(k: Kernel, server: Task, client: Task) -> None:
    first = opened(server, client)
    with only_reference_counts() as unreachable:
        k.end("server")
    assert unreachable == []
    assert "server#1" not in living(k, Life)
    second = opened(k.task("server"), client)
    assert (len(ends(k, first)), len(ends(k, second))) == (2, 0)


def test_a_channel_with_oneself_ends_once(k: Kernel, server: Task) -> None:
    channel = opened(server, server, "self")
    k.end("server")
    assert len(ends(k, channel)) == 2
    assert k.state.memory == {}


@pytest.mark.parametrize("who", ["disk", "machine"])
def test_a_channel_to_a_device_ends_with_driver_or_machine(k: Kernel, who: str) -> None:
    machine, driver = machine_and_driver(k)
    channel = opened(machine, driver, "disk0")
    k.end(who)
    assert len(ends(k, channel)) == 2
    assert k.state.memory == {}


def test_the_kernels_own_requests_open_nothing(k: Kernel) -> None:
    machine, driver = machine_and_driver(k)
    driver.post("dma_map", driver.sys("region", "dma", PAGE, False), True, on="disk0")
    got = machine.delivery()
    assert wire.STAMP.unpack(got.token)[0] == KERNEL_BADGE
    refuses(machine, got.seq)


def test_a_call_for_a_channel_is_a_call_like_any_other(server: Task, client: Task) -> None:
    got = ask(server, client)
    _, theirs = server.sys("channel", got.seq, SIZE)
    server.answer(got, wire.pack(theirs))
    assert wire.unpack(client.outcome(client.seq).body) == theirs
    through = client.sys("mint", CALL, 0, on="server")
    queued = [client.call(through, opcode=CHANNEL_OPEN, flags=wire.ASYNC) for _ in range(9)][-1]
    client.sys("delete", on=through)
    assert status(client, queued) is Code.E_REVOKED


def test_people_see_channels(k: Kernel, server: Task, client: Task) -> None:
    channel = opened(server, client)
    rows = [syscalls.CapRow(*row) for row in k.root.sys("caps", 0, on="control")]
    (row,) = [row for row in rows if row.kind == "channel"]
    assert (row.number, row.parent, row.holder) == (channel.root.number, 0, "kernel")
    assert row.object == "client#1 to server#1"
    slots = {row[0]: syscalls.SlotRow(*row) for row in k.root.sys("slots", on="control")}
    assert (slots["client"].regions, slots["client"].region_bytes) == (1, SIZE)


def test_a_thousand_channels_leave_nothing(k: Kernel, server: Task, client: Task) -> None:
    numbers = len(k.state.caps), server.life.paid, client.life.paid
    for at in range(1000):
        through = client.sys("copy", on="server")
        channel = opened(server, client, through)
        client.sys("delete" if at % 2 else "move", on=through)
        if not at % 2:
            (fresh,) = [t for t in client.life.caps if t not in client.named.values()]
            client.sys("delete", on=fresh)
        assert channel.number not in k.state.memory
    assert (len(k.state.caps), server.life.paid, client.life.paid) == numbers
    assert nothing_left(k, client)
    made = {e.number for e in k.sent if isinstance(e, effects.Make)}
    assert made == {e.number for e in k.sent if isinstance(e, effects.Close)}

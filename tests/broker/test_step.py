"""What the kernel promises, one rule a test. A call is delivered at most once and ends once."""

from __future__ import annotations

import random

import pytest

from tests.broker.harness import Kernel, Refused, Task, living, only_reference_counts
from ukernel.abi import syscalls, wire
from ukernel.abi.errors import Code
from ukernel.abi.syscalls import CALL, GRANT, KERNEL_BADGE, READ, RECV, WRITE, Quota
from ukernel.broker import caps, effects
from ukernel.broker.objects import Life, Region

PAGE = 4096


@pytest.fixture
def k() -> Kernel:
    return Kernel()


@pytest.fixture
def server(k: Kernel) -> Task:
    return k.task("server")


@pytest.fixture
def client(k: Kernel, server: Task) -> Task:
    return k.task("client", calls=["server"])


def refused(code: Code, task: Task, name: str, *args: object, on: str | bytes = b"\0" * 16) -> str:
    with pytest.raises(Refused) as refusal:
        task.sys(name, *args, on=on)
    assert Code(refusal.value.code) is code, refusal.value
    return str(refusal.value)


def status(task: Task, seq: int) -> Code:
    return Code(task.outcome(seq).status)


# --- a request and its one outcome ---------------------------------------------------------------


def test_a_call_is_stamped_delivered_and_answered(server: Task, client: Task) -> None:
    server.credit()
    seq = client.call("server", opcode=7, body=b"question")
    got = server.delivery()
    assert (got.opcode, got.body) == (7, b"question")
    assert wire.STAMP.unpack(got.token) == (0, client.life.client)
    server.answer(got, b"answer")
    assert client.outcome(seq).body == b"answer"


def test_without_credit_nothing_is_delivered(server: Task, client: Task) -> None:
    client.call("server", body=b"1")
    assert server.deliveries() == []
    server.credit(1)
    assert server.delivery().body == b"1"


def test_credit_never_exceeds_the_window(k: Kernel) -> None:
    server = k.task("server", window=2)
    client = k.task("client", calls=["server"])
    server.credit(255)
    server.credit(255)
    for _ in range(5):
        client.call("server", flags=wire.ASYNC)
    taken = server.deliveries()
    assert len(taken) == 2
    server.credit(255)
    assert server.deliveries() == []
    server.answer(taken[0])
    assert len(server.deliveries()) == 1


def test_queues_are_ordered_by_priority_then_by_age(k: Kernel, server: Task) -> None:
    low = k.task("low", calls=["server"], priority=1)
    high = k.task("high", calls=["server"], priority=200)
    for task, body in ((low, b"low 1"), (high, b"high 1"), (low, b"low 2"), (high, b"high 2")):
        task.call("server", flags=wire.ASYNC, body=body)
    server.credit()
    order = [m.body for m in server.deliveries()]
    assert order == [b"high 1", b"high 2", b"low 1", b"low 2"]


@pytest.mark.parametrize("seed", range(20))
def test_a_queue_stays_in_order_when_calls_leave_it(k: Kernel, seed: int) -> None:
    dice = random.Random(seed)
    server = k.task("server", window=255)
    stays = []
    for priority in dice.sample(range(200), 24):
        client = k.task(f"client{priority}", calls=["server"], priority=priority)
        leaves = dice.random() < 0.5
        client.call("server", body=bytes([priority]), deadline_ns=k.now + 1 if leaves else 0)
        if not leaves:
            stays.append(priority)
    k.tick(1)
    server.credit()
    assert [m.body[0] for m in server.deliveries()] == sorted(stays, reverse=True)


def test_a_reply_may_be_deferred(server: Task, client: Task) -> None:
    server.credit()
    first = client.call("server", flags=wire.ASYNC)
    second = client.call("server", flags=wire.ASYNC)
    later, now = server.deliveries()
    server.answer(now, b"now")
    server.answer(later, b"later")
    assert client.outcome(second).body == b"now"
    assert client.outcome(first).body == b"later"


def test_a_send_is_one_way_and_takes_a_credit_until_recv(k: Kernel) -> None:
    server = k.task("server", window=1)
    client = k.task("client", calls=["server"])
    server.credit()
    client.call("server", wire.SEND, body=b"1")
    client.call("server", wire.SEND, body=b"2")
    got = server.delivery()
    assert (got.flags, got.body) == (wire.ONEWAY, b"1")
    server.credit(1)
    assert server.delivery().body == b"2"
    assert client.inbox == []
    assert client.life.sent == {}


def test_a_reply_without_a_request_is_a_fault(k: Kernel, server: Task) -> None:
    server.send(wire.REPLY, seq=12345)
    (event,) = k.root.events(syscalls.EVENT_FAULT)
    assert event[1:] == ["server", 1, "reply to a call that it does not have"]


def test_a_second_reply_is_a_fault(k: Kernel, server: Task, client: Task) -> None:
    server.credit()
    seq = client.call("server")
    got = server.delivery()
    server.answer(got, b"first")
    server.answer(got, b"second")
    assert [m.body for m in client.outcomes(seq)] == [b"first"]
    assert len(k.root.events(syscalls.EVENT_FAULT)) == 1


def test_a_reply_by_a_task_that_was_not_called_is_a_fault(
    k: Kernel, server: Task, client: Task
) -> None:
    thief = k.task("thief")
    server.credit()
    seq = client.call("server")
    thief.answer(server.delivery(), b"mine")
    assert client.outcomes(seq) == []
    assert k.root.events(syscalls.EVENT_FAULT)[0][1] == "thief"


def test_a_deadline_passes_in_the_queue(k: Kernel, server: Task, client: Task) -> None:
    seq = client.call("server", deadline_ns=k.now + 10)
    k.tick(9)
    assert client.outcomes(seq) == []
    k.tick(1)
    assert status(client, seq) is Code.E_DEADLINE
    server.credit()
    assert server.deliveries() == []


def test_a_late_reply_is_dropped_and_counted(k: Kernel, server: Task, client: Task) -> None:
    server.credit(1)
    seq = client.call("server", deadline_ns=k.now + 10)
    got = server.delivery()
    k.tick(10)
    assert status(client, seq) is Code.E_DEADLINE
    server.answer(got, b"late")
    assert client.outcomes(seq) == []
    assert k.state.counters["late_replies"] == 1
    client.call("server", body=b"next")  # and the credit came back
    assert server.delivery().body == b"next"


# --- when somebody dies --------------------------------------------------------------------------


def test_queued_stays_queued_and_goes_to_the_next_life(
    k: Kernel, server: Task, client: Task
) -> None:
    seq = client.call("server", body=b"patient")
    k.end("server")
    server = k.task("server")
    server.credit()
    server.answer(server.delivery(), b"done")
    assert client.outcome(seq).body == b"done"


def test_queued_and_bound_to_a_life_is_not_run(k: Kernel, server: Task, client: Task) -> None:
    seq = client.call("server", flags=wire.BOUND_LIFE)
    k.end("server")
    assert status(client, seq) is Code.E_DEAD_NOTRUN
    assert status(client, client.call("server", flags=wire.BOUND_LIFE)) is Code.E_DEAD_NOTRUN


def test_taken_and_not_replied_is_unknown(k: Kernel, server: Task, client: Task) -> None:
    server.credit()
    seq = client.call("server")
    k.end("server")
    reply = client.outcome(seq)
    assert Code(reply.status) is Code.E_DEAD_UNKNOWN
    assert wire.unpack(reply.body)[1] == {"old_life": 1, "new_life": 2}


@pytest.mark.parametrize("state", [syscalls.FAILED, syscalls.STOPPED])
def test_given_up_means_unavailable_at_once(
    k: Kernel, server: Task, client: Task, state: str
) -> None:
    seq = client.call("server", flags=wire.ASYNC)
    k.end("server", state)
    assert status(client, seq) is Code.E_UNAVAILABLE
    assert status(client, client.call("server")) is Code.E_UNAVAILABLE
    k.task("server").credit()
    assert client.outcomes(client.call("server")) == []


def test_the_old_life_is_fenced(k: Kernel, server: Task, client: Task) -> None:
    server.credit()
    client.call("server")
    got = server.delivery()
    k.end("server")
    client.inbox.clear()
    fresh = k.task("server")
    server.answer(got, b"from the grave")
    server.credit()
    client.call("server")
    assert client.inbox == []
    assert server.deliveries() == []
    assert fresh.deliveries() == []
    assert k.state.counters["unbound"] == 2


def test_the_calls_of_a_dead_client_are_not_delivered(
    k: Kernel, server: Task, client: Task
) -> None:
    client.call("server")
    k.end("client")
    server.credit()
    assert server.deliveries() == []


def test_a_reply_to_a_dead_client_goes_nowhere(k: Kernel, server: Task, client: Task) -> None:
    server.credit()
    client.call("server")
    k.end("client")
    k.task("client", calls=["server"])
    server.answer(server.delivery())
    assert {e.rid for e in k.last if isinstance(e, effects.Send)} <= {k.root.rid}
    assert k.state.counters["late_replies"] == 1


def test_a_life_that_calls_itself_and_dies_hears_nothing(k: Kernel, server: Task) -> None:
    server.credit()
    server.call("self", flags=wire.ASYNC)
    server.call("self", flags=wire.ASYNC)
    k.end("server")
    sends = [e.rid for e in k.last if isinstance(e, effects.Send)]
    assert sends == [k.root.rid]


def test_an_earlier_lifes_token_is_stale(k: Kernel, client: Task) -> None:
    old = client.named["server"]
    k.end("client")
    client = k.task("client", calls=["server"])
    assert status(client, client.call(old)) is Code.E_STALE_LIFE
    k.end("client")
    client = k.task("client", calls=["server"])
    assert status(client, client.call(old)) is Code.E_DENIED


def test_two_lives_never_live_at_once(k: Kernel, server: Task) -> None:
    refused(Code.E_PROTO, k.root, "begin", [], on=k.slots["server"])


def test_a_life_begins_with_a_process(k: Kernel) -> None:
    refused(Code.E_PROTO, k.root, "begin", [], on=k.slot("server"))
    k.root.sys("prepare", on=k.slots["server"])
    refused(Code.E_PROTO, k.root, "begin", [], on=k.slots["server"])


def test_a_prepared_life_that_died_is_forgotten(k: Kernel) -> None:
    first = k.prepare("server")
    second = k.prepare("server")
    assert len(k.state.lives) == 2  # the root and the second
    assert k.begin("server") == 1
    with pytest.raises(Refused):
        k.hello("server", *first)
    k.hello("server", *second)


def test_a_standby_holds_nothing_until_it_begins(k: Kernel, server: Task, client: Task) -> None:
    spare = k.stand_by("server")
    assert spare.inbox == []
    spare.seq = 1
    spare.send(wire.SYS, opcode=20, seq=1, body=wire.pack([]))
    assert spare.take(lambda m: m.status == Code.E_DENIED)
    assert spare.inbox == []
    k.end("server")
    seq = client.call("server")
    assert k.begin("server") == 2
    k.welcomed(spare)
    spare.credit()
    spare.answer(spare.delivery(), b"soon")
    assert client.outcome(seq).body == b"soon"


def test_a_standby_is_no_second_life(k: Kernel, server: Task) -> None:
    k.stand_by("server")
    refused(Code.E_PROTO, k.root, "begin", [], on=k.slots["server"])
    assert server.life.number == 1


# --- who is who ----------------------------------------------------------------------------------


def test_a_secret_works_once(k: Kernel) -> None:
    secret, pid = k.prepare("a")
    k.begin("a")
    k.hello("a", secret, pid)
    with pytest.raises(Refused):
        k.hello("a", secret, pid)


def test_a_secret_works_for_its_process_only(k: Kernel) -> None:
    secret, pid = k.prepare("a")
    with pytest.raises(Refused):
        k.hello("a", secret, pid + 1)


def test_a_chosen_routing_id_is_refused(k: Kernel) -> None:
    secret, pid = k.prepare("a")
    frame = wire.encode(wire.HELLO, token=secret)
    *_, sent = k.step(effects.Arrived(k.now, b"chosen", frame, pid))
    assert isinstance(sent, effects.Send)
    reply = wire.decode(sent.frame)
    assert isinstance(reply, wire.Message)
    assert Code(reply.status) is Code.E_DENIED


def test_hello_twice_is_a_fault(k: Kernel, server: Task) -> None:
    server.send(wire.HELLO)
    assert k.root.events(syscalls.EVENT_FAULT)[0][1] == "server"


@pytest.mark.parametrize("frame", [b"", b"x", bytes(40), b"\1\3" + bytes(38), bytes(400_000)])
def test_malformed_frames_are_faults_and_nothing_else(
    k: Kernel, server: Task, frame: bytes
) -> None:
    server.raw(frame)
    assert server.inbox == [] or Code(server.inbox[0].status) is Code.E_DENIED


def test_an_unknown_operation_is_a_fault(k: Kernel, server: Task) -> None:
    server.send(99)
    assert "operation 99" in k.root.events(syscalls.EVENT_FAULT)[0][3]


def test_an_unknown_system_call_is_refused(server: Task) -> None:
    server.send(wire.SYS, opcode=999, seq=5)
    assert status(server, 5) is Code.E_PROTO


def test_arguments_that_are_not_as_declared_are_refused(server: Task) -> None:
    refused(Code.E_PROTO, server, "mint", 256, 0, on="self")
    refused(Code.E_PROTO, server, "mint", True, 0, on="self")
    refused(Code.E_PROTO, server, "mint", on="self")


def test_system_calls_of_the_root_task_need_the_control_capability(server: Task) -> None:
    refused(Code.E_DENIED, server, "slots", on="self")
    refused(Code.E_DENIED, server, "slots")


def test_who_does_not_read_becomes_a_stranger(k: Kernel, server: Task, client: Task) -> None:
    server.credit()
    k.step(effects.Undeliverable(server.rid))
    assert k.root.events(syscalls.EVENT_LOST)[0][1] == "server"
    seq = client.call("server")  # not lost with it: the next life answers
    k.end("server")
    server = k.task("server")
    server.credit()
    server.answer(server.delivery())
    assert status(client, seq) is Code.OK


def test_nothing_is_sent_to_who_was_cut_off(k: Kernel, server: Task, client: Task) -> None:
    client.call("server")
    k.step(effects.Undeliverable(client.rid))
    server.credit()
    server.answer(server.delivery())
    assert {e.rid for e in k.last if isinstance(e, effects.Send)} <= {k.root.rid}


# --- wait cycles ---------------------------------------------------------------------------------


def test_a_cycle_of_two_is_refused_and_named(k: Kernel) -> None:
    for name in "ab":
        k.slot(name)
    a, b = k.task("a", calls=["b"]), k.task("b", calls=["a"])
    a.call("b")
    reply = b.outcome(b.call("a"))
    assert Code(reply.status) is Code.E_DEADLOCK
    assert wire.unpack(reply.body)[1] == {"cycle": ["b", "a", "b"]}


def test_a_ring_of_five_is_refused_and_named(k: Kernel) -> None:
    for name in "abcde":
        k.slot(name)
    ring = [k.task(a, calls=[b]) for a, b in zip("abcde", "bcdea", strict=True)]
    for task, to in zip(ring[:4], "bcde", strict=True):
        task.call(to)
    reply = ring[4].outcome(ring[4].call("a"))
    assert wire.unpack(reply.body)[1] == {"cycle": ["e", "a", "b", "c", "d", "e"]}


def test_calling_oneself_is_a_cycle(server: Task) -> None:
    assert status(server, server.call("self")) is Code.E_DEADLOCK


def test_an_async_call_waits_for_nobody(k: Kernel) -> None:
    for name in "ab":
        k.slot(name)
    a, b = k.task("a", calls=["b"]), k.task("b", calls=["a"])
    a.call("b", flags=wire.ASYNC)
    assert b.outcomes(b.call("a")) == []


def test_a_cycle_through_the_machine_is_refused(k: Kernel) -> None:
    machine, driver = machine_and_driver(k)
    machine.call(handed(driver, machine, driver.named["self"]))
    region = driver.sys("region", "dma", PAGE, False)
    refused(Code.E_DEADLOCK, driver, "dma_map", region, True, on="disk0")


# --- capabilities --------------------------------------------------------------------------------


def handed(giver: Task, taker: Task, token: bytes, flags: int = 0) -> bytes:
    """`token` in the hands of `taker`: passed with a call to the giver itself, and its reply."""
    giver.credit()
    to = next(iter(giver.k.state.slots[giver.name].endpoint.root.children)).token
    assert to == giver.named["self"]
    reach = taker.named.get(giver.name)
    if reach is None:  # wire the two together, as the root task would have
        slot = giver.k.state.slots[giver.name]
        cap = caps.derive(giver.k.state, slot.endpoint.root, taker.life, CALL | GRANT)
        reach = taker.named[giver.name] = cap.token
    seq = taker.call(reach, flags=wire.ASYNC)
    giver.answer(giver.delivery(), caps=(token,), flags=flags)
    (given,) = taker.outcome(seq).caps
    return given


def test_rights_only_shrink(server: Task) -> None:
    weak = server.sys("mint", CALL, 0, on="self")
    text = refused(Code.E_DENIED, server, "mint", CALL | RECV, 0, on=weak)
    assert "recv not held on endpoint server" in text
    assert server.sys("describe", on=weak)[:3] == ["endpoint", "server", CALL]


def test_a_token_works_for_its_holder_only(k: Kernel, server: Task, client: Task) -> None:
    thief = k.task("thief")
    assert status(thief, thief.call(client.named["server"])) is Code.E_DENIED
    refused(Code.E_DENIED, thief, "describe", on=client.named["server"])


def test_a_badge_is_set_once(server: Task) -> None:
    badged = server.sys("mint", CALL | RECV, 5, on="self")
    refused(Code.E_DENIED, server, "mint", CALL, 6, on=badged)
    again = server.sys("mint", CALL, 0, on=badged)
    assert server.sys("describe", on=again)[3] == 5


@pytest.mark.parametrize("badge", [5, KERNEL_BADGE])
def test_badges_of_an_endpoint_are_made_by_its_server_alone(client: Task, badge: int) -> None:
    refused(Code.E_DENIED, client, "mint", CALL, badge, on="server")


def test_revoke_destroys_every_descendant(server: Task, client: Task) -> None:
    child = client.sys("mint", CALL | GRANT, 0, on="server")
    grandchild = client.sys("mint", CALL, 0, on=child)
    assert client.sys("revoke", on="server") == 2
    for token in (child, grandchild):
        refused(Code.E_REVOKED, client, "describe", on=token)
    client.sys("describe", on="server")


def test_delete_leaves_what_was_derived_to_the_parent(client: Task) -> None:
    child = client.sys("mint", CALL | GRANT, 0, on="server")
    grandchild = client.sys("mint", CALL, 0, on=child)
    client.sys("delete", on=child)
    client.sys("describe", on=grandchild)
    assert client.sys("revoke", on="server") == 1


def test_a_copy_is_a_sibling(client: Task) -> None:
    child = client.sys("mint", CALL, 0, on="server")
    twin = client.sys("copy", on=child)
    client.sys("delete", on=child)
    client.sys("describe", on=twin)
    assert client.sys("revoke", on="server") == 1


def test_moved_under_a_fresh_token(client: Task) -> None:
    child = client.sys("mint", CALL | GRANT, 0, on="server")
    grandchild = client.sys("mint", CALL, 0, on=child)
    fresh = client.sys("move", on=child)
    refused(Code.E_DENIED, client, "describe", on=child)
    assert client.sys("revoke", on=fresh) == 1
    refused(Code.E_REVOKED, client, "describe", on=grandchild)


def test_revoke_reaches_what_is_in_flight(server: Task, client: Task) -> None:
    child = client.sys("mint", CALL, 0, on="server")
    seq = client.call(child, flags=wire.ASYNC)
    client.sys("revoke", on="server")
    assert status(client, seq) is Code.E_REVOKED
    server.credit()
    assert server.deliveries() == []


def test_a_capability_revoked_while_its_message_is_queued_is_not_passed(
    server: Task, client: Task
) -> None:
    region = client.sys("region", "r", PAGE, False)
    lent = client.sys("mint", READ | GRANT, 0, on=region)
    seq = client.call("server", caps=(lent,))
    client.sys("revoke", on=region)
    server.credit()
    assert server.deliveries() == []
    assert status(client, seq) is Code.E_REVOKED


def test_transfer_needs_grant(client: Task) -> None:
    mute = client.sys("mint", CALL, 0, on="server")
    seq = client.call("server", caps=(mute,))
    assert status(client, seq) is Code.E_DENIED


def test_what_is_lent_again_is_the_same_capability(server: Task, client: Task) -> None:
    region = client.sys("region", "r", PAGE, False)
    server.credit()
    client.call("server", flags=wire.ASYNC, caps=(region,))
    client.call("server", flags=wire.ASYNC, caps=(region,))
    first, second = server.deliveries()
    assert first.caps == second.caps != (region,)
    refused(Code.E_DENIED, client, "describe", on=first.caps[0])
    assert client.sys("revoke", on=region) == 1


def test_what_is_moved_leaves_its_sender(server: Task, client: Task) -> None:
    region = client.sys("region", "r", PAGE, False)
    server.credit()
    client.call("server", flags=wire.MOVE | wire.ASYNC, caps=(region, region))
    first, second = server.delivery().caps
    assert first == second
    refused(Code.E_DENIED, client, "describe", on=region)
    server.sys("describe", on=first)


def test_the_receiver_of_a_move_may_move_it_back(server: Task, client: Task) -> None:
    region = client.sys("region", "r", PAGE, False)
    server.credit()
    seq = client.call("server", flags=wire.MOVE, caps=(region,))
    got = server.delivery()
    server.answer(got, caps=got.caps, flags=wire.MOVE)
    (back,) = client.outcome(seq).caps
    client.sys("describe", on=back)
    refused(Code.E_DENIED, server, "describe", on=got.caps[0])


def test_the_server_hears_when_nobody_holds_a_badge(k: Kernel, server: Task, client: Task) -> None:
    handle = handed(server, client, server.sys("mint", CALL | GRANT, 7, on="self"), wire.MOVE)
    twin = client.sys("copy", on=handle)
    assert server.sys("badges", on="self") == [7]
    client.sys("delete", on=handle)
    assert server.notices(wire.NOTICE_UNHELD) == []
    client.sys("delete", on=twin)
    assert server.notices(wire.NOTICE_UNHELD) == [[7]]
    assert server.sys("badges", on="self") == []


def test_the_badges_of_a_dead_client_are_one_notice(k: Kernel, server: Task, client: Task) -> None:
    for badge in (1, 2, 3):
        handed(server, client, server.sys("mint", CALL | GRANT, badge, on="self"), wire.MOVE)
    k.end("client")
    assert server.notices(wire.NOTICE_UNHELD) == [[1, 2, 3]]


@pytest.mark.parametrize("why", ["late", "full"])
def test_a_handle_that_cannot_reach_its_client_is_nobodys(
    k: Kernel, server: Task, client: Task, why: str
) -> None:
    """The server gave it away; were it left in the server's table, the table would fill."""
    server.credit()
    seq = client.call("server", deadline_ns=k.now + 10)
    got = server.delivery()
    handle = server.sys("mint", CALL | GRANT, 9, on="self")
    if why == "late":
        k.tick(10)
    else:
        client.life.quota = Quota(caps=client.life.paid)
    server.answer(got, caps=(handle,), flags=wire.MOVE)
    assert status(client, seq) in (Code.E_DEADLINE, Code.E_OVERLOAD)
    assert server.notices(wire.NOTICE_UNHELD) == [[9]]
    assert handle not in server.life.caps
    assert server.life.slot.faults == 0


# --- quotas --------------------------------------------------------------------------------------


def test_capabilities_are_limited(client: Task) -> None:
    client.life.quota = Quota(caps=client.life.paid + 1)
    client.sys("mint", CALL, 0, on="server")
    refused(Code.E_OVERLOAD, client, "mint", CALL, 0, on="server")
    refused(Code.E_OVERLOAD, client, "region", "r", PAGE, False)
    assert client.life.owned == {}


def test_the_caller_pays_for_what_it_passes_on(k: Kernel, server: Task, client: Task) -> None:
    """Else one client could fill the table of a server that all of them need."""
    bystander = k.task("bystander", calls=["server"])
    regions = [client.sys("region", f"r{at}", PAGE, False) for at in range(2)]
    client.life.quota = Quota(caps=client.life.paid + 1)
    server.life.quota = Quota(caps=server.life.paid)
    server.credit()
    first = client.call("server", flags=wire.ASYNC, caps=(regions[0],))
    over = client.call("server", flags=wire.ASYNC, caps=(regions[1],))
    again = client.call("server", flags=wire.ASYNC, caps=(regions[0],))
    assert status(client, over) is Code.E_OVERLOAD
    mine = bystander.sys("region", "mine", PAGE, False)
    bystander.call("server", caps=(mine,))
    assert len(server.deliveries()) == 3
    assert client.outcomes(first) == client.outcomes(again) == []


def test_open_calls_are_limited(client: Task) -> None:
    client.life.quota = Quota(calls=2)
    for _ in range(2):
        client.call("server", flags=wire.ASYNC)
    assert status(client, client.call("server", flags=wire.ASYNC)) is Code.E_OVERLOAD


def test_queued_bytes_are_limited_and_come_back(server: Task, client: Task) -> None:
    client.life.quota = Quota(queued_bytes=10)
    client.call("server", flags=wire.ASYNC, body=bytes(10))
    assert status(client, client.call("server", flags=wire.ASYNC, body=b"x")) is Code.E_OVERLOAD
    server.credit()
    server.answer(server.delivery())
    client.inbox.clear()
    assert client.outcomes(client.call("server", body=bytes(10))) == []


def test_region_bytes_are_limited(k: Kernel) -> None:
    task = k.task("a", memory=2 * PAGE)
    token = task.sys("region", "r", PAGE + 1, False)
    refused(Code.E_OVERLOAD, task, "region", "s", 1, False)
    task.sys("delete", on=token)
    task.sys("region", "s", 1, False)


def test_regions_and_notifications_are_limited(server: Task) -> None:
    server.life.quota = Quota(objects=2)
    server.sys("notification")
    server.sys("region", "r", PAGE, True)
    refused(Code.E_OVERLOAD, server, "notification")


@pytest.mark.parametrize(("name", "size"), [("r", 0), ("r" * 65, 1), ("r", 1 << 63)])
def test_absurd_regions_are_refused(server: Task, name: str, size: int) -> None:
    with pytest.raises(Refused):
        server.sys("region", name, size, False)
    assert k_objects(server) == 0


def k_objects(task: Task) -> int:
    return len(task.k.state.memory)


def test_faults_are_told_but_not_without_end(k: Kernel, server: Task) -> None:
    for _ in range(1000):
        server.send(99)
    assert server.life.slot.faults == 1000
    assert len(k.root.events(syscalls.EVENT_FAULT)) == 16 + 5  # 32, 64, 128, 256, 512


def test_ready_is_said_once(k: Kernel, server: Task) -> None:
    server.sys("ready", "cafe")
    refused(Code.E_PROTO, server, "ready", "cafe")
    assert len(k.root.events(syscalls.EVENT_READY)) == 1


def test_a_full_window_of_full_messages_fits_in_one_step(k: Kernel) -> None:
    server = k.task("server", window=255)
    client = k.task("client", calls=["server"])
    client.life.quota = Quota(calls=255, caps=4096, objects=2000)
    for _ in range(255):
        tokens = tuple(client.sys("notification") for _ in range(wire.MAX_CAPS))
        client.call("server", flags=wire.ASYNC, caps=tokens)
    server.credit(255)
    assert len(server.deliveries()) == 255


def test_many_grants_fit_in_one_step(k: Kernel) -> None:
    names = [f"s{at}" for at in range(900)]
    for name in names:
        k.slot(name)
    assert len(k.task("a", calls=names).named) == 901


# --- memory and notifications --------------------------------------------------------------------


def test_a_persistent_region_is_there_again_in_the_next_life(k: Kernel, server: Task) -> None:
    server.sys("region", "state", PAGE, True)
    number = server.life.slot.regions["state"].number
    k.end("server")
    assert not [e for e in k.last if e == effects.Close(number)]
    server = k.task("server")
    server.sys("region", "state", PAGE, True)
    assert server.life.slot.regions["state"].number == number
    assert server.life.slot.region_bytes == PAGE
    refused(Code.E_PROTO, server, "region", "state", 2 * PAGE, True)


def test_what_a_life_has_lent_of_a_persistent_region_ends_with_it(
    k: Kernel, server: Task, client: Task
) -> None:
    for _ in range(3):
        region = client.sys("region", "state", PAGE, True)
        server.credit()
        client.call("server", caps=(client.sys("mint", READ | GRANT, 0, on=region),))
        (lent,) = server.delivery().caps
        passed_on = server.sys("mint", READ, 0, on=lent)
        held = len(server.life.caps)
        k.end("client")
        assert len(server.life.caps) == held - 2
        for token in (lent, passed_on):
            refused(Code.E_REVOKED, server, "map", on=token)
        client = k.task("client", calls=["server"])
    assert k.state.slots["client"].region_bytes == PAGE


def test_a_region_ends_with_its_life_wherever_it_was_lent(
    k: Kernel, server: Task, client: Task
) -> None:
    region = client.sys("region", "r", PAGE, False)
    (number,) = k.state.memory
    server.credit()
    client.call("server", caps=(region,))
    (lent,) = server.delivery().caps
    k.end("client")
    assert effects.Close(number) in k.last
    refused(Code.E_REVOKED, server, "map", on=lent)
    assert k.state.memory == {}
    assert k.state.slots["client"].region_bytes == 0


def test_a_region_ends_with_its_last_capability(k: Kernel, server: Task, client: Task) -> None:
    region = client.sys("region", "r", PAGE, False)
    lent = handed(client, server, region)
    client.sys("delete", on=region)
    server.sys("map", on=lent)
    server.sys("delete", on=lent)
    assert k.state.memory == {}


def test_a_region_is_mapped_read_only_without_write(k: Kernel, server: Task) -> None:
    region = server.sys("region", "r", PAGE, False)
    for rights, read_only in ((READ, True), (READ | WRITE, False)):
        token = server.sys("mint", rights, 0, on=region)
        tag = server.sys("map", on=token)
        (number,) = k.state.memory
        passed = effects.Pass(server.life.client, tag, number, read_only)
        assert passed in k.sent


def test_a_notification_collects_the_badges_that_signal_it(server: Task) -> None:
    word = server.sys("notification")
    one, two = (server.sys("mint", WRITE, badge, on=word) for badge in (1, 2))
    server.sys("signal", on=one)
    server.sys("signal", on=two)
    assert server.sys("take", on=word) == 3
    assert server.sys("take", on=word) == 0
    refused(Code.E_DENIED, server, "take", on=one)


@pytest.mark.parametrize("what", [("notification",), ("region", "r", PAGE, True)])
def test_what_linux_cannot_make_never_was(
    k: Kernel, server: Task, what: tuple[object, ...]
) -> None:
    server.sys(str(what[0]), *what[1:])
    (made,) = [e for e in k.sent if isinstance(e, effects.Make)]
    k.step(effects.MakeFailed(made.number))
    assert k.state.memory == {}
    assert server.life.slot.region_bytes == 0
    assert set(server.life.caps) == {server.named["self"]}
    refusal = wire.decode(made.otherwise.frame)
    assert isinstance(refusal, wire.Message)
    assert Code(refusal.status) is Code.E_NO_MEMORY


# --- devices -------------------------------------------------------------------------------------


def machine_and_driver(k: Kernel) -> tuple[Task, Task]:
    machine = k.task("machine")
    k.device("disk0", "machine")
    machine.credit()
    return machine, k.task("disk", devices=["disk0"])


def test_the_machine_hears_who_drives(k: Kernel) -> None:
    machine, _ = machine_and_driver(k)
    ((index, epoch, driver, tag),) = machine.notices(wire.NOTICE_DEVICE)
    assert (index, epoch, driver, tag > 0) == (0, 1, "disk", True)
    k.end("disk")
    assert machine.notices(wire.NOTICE_DEVICE) == [[0, 2, "", 0]]


def test_a_register_access_is_a_call_badged_with_device_and_epoch(k: Kernel) -> None:
    machine, driver = machine_and_driver(k)
    driver.call("disk0")
    assert wire.STAMP.unpack(machine.delivery().token) == (0 | 1 << 16, driver.life.client)


def test_a_device_has_one_driver(k: Kernel) -> None:
    machine_and_driver(k)
    grant = syscalls.Grant("device", "disk0", CALL, "disk0")
    k.prepare("other")
    refused(Code.E_PROTO, k.root, "begin", [grant], on=k.slots["other"])
    assert k.state.slots["other"].life is None
    k.end("disk")
    k.root.sys("begin", [grant], on=k.slots["other"])


def test_the_machine_answers_a_mapping(k: Kernel) -> None:
    machine, driver = machine_and_driver(k)
    region = driver.sys("region", "dma", PAGE, False)
    seq = driver.post("dma_map", region, True, on="disk0")
    got = machine.delivery()
    assert wire.STAMP.unpack(got.token)[0] == KERNEL_BADGE
    index, iova, size, writable, _ = wire.unpack(got.body)
    assert (index, size, writable) == (0, PAGE, True)
    assert driver.outcomes(seq) == []
    machine.answer(got, wire.pack(iova))
    assert wire.unpack(driver.outcome(seq).body) == iova


def test_a_writable_mapping_needs_write(k: Kernel) -> None:
    _, driver = machine_and_driver(k)
    region = driver.sys("region", "dma", PAGE, False)
    weak = driver.sys("mint", READ, 0, on=region)
    refused(Code.E_DENIED, driver, "dma_map", weak, True, on="disk0")


def mapped(machine: Task, driver: Task, region: bytes) -> int:
    seq = driver.post("dma_map", region, True, on="disk0")
    got = machine.delivery()
    iova: int = wire.unpack(got.body)[1]
    machine.answer(got, wire.pack(iova))
    assert status(driver, seq) is Code.OK
    return iova


def test_what_is_taken_back_is_unmapped(k: Kernel) -> None:
    machine, driver = machine_and_driver(k)
    region = driver.sys("region", "dma", PAGE, False)
    lent = driver.sys("mint", READ | WRITE, 0, on=region)
    iova = mapped(machine, driver, lent)
    driver.sys("revoke", on=region)
    assert machine.notices(wire.NOTICE_UNMAP) == [[0, iova]]


def test_the_mappings_of_a_dead_driver_end_with_its_domain(k: Kernel) -> None:
    """One notice, however many mappings: a machine that has too many to read is cut off."""
    machine, driver = machine_and_driver(k)
    region = driver.sys("region", "dma", PAGE, False)
    for _ in range(5):
        mapped(machine, driver, region)
    machine.inbox.clear()
    k.end("disk")
    assert machine.notices(wire.NOTICE_UNMAP) == []
    assert len(machine.notices(wire.NOTICE_DEVICE)) == 1


def test_a_capability_of_a_former_driver_unmaps_nothing_of_the_next(k: Kernel) -> None:
    machine, driver = machine_and_driver(k)
    friend = k.task("friend")
    theirs = friend.sys("region", "r", PAGE, False)
    lent = handed(friend, driver, theirs)
    iova = mapped(machine, driver, lent)
    back = handed(driver, friend, lent, wire.MOVE)
    k.end("disk")
    driver = k.task("disk", devices=["disk0"])
    assert mapped(machine, driver, driver.sys("region", "dma", PAGE, False)) != iova
    friend.sys("delete", on=back)
    assert machine.notices(wire.NOTICE_UNMAP) == []


def test_mappings_are_limited(k: Kernel) -> None:
    machine, driver = machine_and_driver(k)
    region = driver.sys("region", "dma", PAGE, False)
    driver.life.quota = Quota(mappings=2, calls=2)
    for _ in range(2):
        mapped(machine, driver, region)
    refused(Code.E_OVERLOAD, driver, "dma_map", region, True, on="disk0")


def test_mappings_under_way_are_calls_like_any_other(k: Kernel) -> None:
    machine, driver = machine_and_driver(k)
    region = driver.sys("region", "dma", PAGE, False)
    driver.life.quota = Quota(calls=1)
    driver.post("dma_map", region, True, on="disk0")
    passed = len([e for e in k.sent if isinstance(e, effects.Pass)])
    refused(Code.E_OVERLOAD, driver, "dma_map", region, True, on="disk0")
    assert len([e for e in k.sent if isinstance(e, effects.Pass)]) == passed
    assert len(machine.deliveries()) == 1


def test_a_mapping_that_the_machine_died_of_is_unknown(k: Kernel) -> None:
    _, driver = machine_and_driver(k)
    region = driver.sys("region", "dma", PAGE, False)
    seq = driver.post("dma_map", region, True, on="disk0")
    k.end("machine")
    assert status(driver, seq) is Code.E_DEAD_UNKNOWN
    refused(Code.E_UNAVAILABLE, driver, "dma_map", region, True, on="disk0")


def test_only_the_machine_reports_faults_of_a_driver(k: Kernel) -> None:
    machine, driver = machine_and_driver(k)
    machine.post("device_fault", 0, "DMA outside its grant", on=bytes(16))
    assert k.root.events(syscalls.EVENT_FAULT)[0][1:] == [
        "disk", 1, "device disk0: DMA outside its grant",
    ]  # fmt: skip
    seq = driver.post("device_fault", 0, "not me", on=bytes(16))
    assert status(driver, seq) is Code.E_DENIED


# --- the root task -------------------------------------------------------------------------------


def test_process_0_is_nobody(k: Kernel) -> None:
    """As whom the kernel sees a peer that Linux does not vouch for: anybody could be that life."""
    k.root.sys("prepare", on=k.slot("a"))
    refused(Code.E_PROTO, k.root, "start", 0, on=k.slots["a"])


@pytest.mark.parametrize("kind", [wire.NOTICE_STOP, wire.NOTICE_PING])
def test_the_root_task_tells_a_life(k: Kernel, server: Task, kind: int) -> None:
    k.root.sys("tell", kind, on=k.slots["server"])
    assert server.notices(kind) == [[]]


def test_the_root_task_reaches_any_object_of_a_server(k: Kernel, server: Task) -> None:
    server.credit()
    k.root.call(k.root.sys("endpoint", 7, on=k.slots["server"]))
    assert wire.STAMP.unpack(server.delivery().token)[0] == 7


def test_a_grant_may_stand_for_another_server(k: Kernel, server: Task) -> None:
    """So an interposer takes the place of who is called, and the caller sees no difference."""
    k.prepare("client")
    grant = syscalls.Grant("endpoint", "real", CALL, "server")
    k.root.sys("begin", [grant], on=k.slots["client"])
    described = k.state.lives[max(k.state.lives)].named
    assert k.state.caps[described["real"]].obj.name == "server"


def test_a_grant_may_be_for_one_object_of_a_server(k: Kernel, server: Task) -> None:
    """Its holder cannot make another object's of it, nor the server's own."""
    server.credit()
    who = k.prepare("client")
    grant = syscalls.Grant("endpoint", "server", CALL, "server", 7)
    k.root.sys("begin", [grant], on=k.slots["client"])
    client = k.hello("client", *who)
    client.call("server")
    assert wire.STAMP.unpack(server.delivery().token)[0] == 7
    assert server.sys("badges", on="self") == [7]
    refused(Code.E_DENIED, client, "mint", CALL, 8, on="server")
    k.end("client")
    assert server.notices(wire.NOTICE_UNHELD) == [[7]]


def test_a_report_says_who_waits_for_whom(k: Kernel, server: Task, client: Task) -> None:
    server.credit()
    k.now += 5
    client.call("server", opcode=3)
    rows = {row[0]: syscalls.SlotRow(*row) for row in k.root.sys("slots", on="control")}
    assert rows["client"][-5:] == ("server", 3, 0, k.now, 0)
    assert rows["server"].oldest_ns == k.now
    k.now += 10
    server.answer(server.delivery())
    rows = {row[0]: syscalls.SlotRow(*row) for row in k.root.sys("slots", on="control")}
    assert rows["client"].waits_for == ""
    assert (rows["server"].waited_ns, rows["server"].heard_ns) == (10, k.now)


def test_events_are_short(k: Kernel) -> None:
    machine, _ = machine_and_driver(k)
    machine.post("device_fault", 0, "x" * 10_000, on=bytes(16))
    assert len(k.root.events(syscalls.EVENT_FAULT)[0][3]) == 256


def test_reports_show_no_token(k: Kernel, server: Task, client: Task) -> None:
    server.credit()
    client.call("server", body=b"x")
    server.answer(server.delivery())
    rows = [k.root.sys(name, *args, on="control") for name, *args in (
        ("caps", 0), ("slots",), ("counters",), ("trace", 0),
    )]  # fmt: skip
    assert not [token for token in k.state.caps if token in wire.pack(rows)]
    assert rows[3][0][1:3] == ["client#1", "server"]


def test_the_trace_begins_where_it_is_asked_to(k: Kernel, server: Task, client: Task) -> None:
    server.credit()
    for _ in range(3):
        client.call("server", wire.SEND)
        server.credit()
    assert [row[0] for row in k.root.sys("trace", 1, on="control")] == [1, 2]


# --- without a garbage collector -----------------------------------------------------------------


def test_the_dead_are_freed_without_a_garbage_collector(k: Kernel) -> None:
    machine, driver = machine_and_driver(k)
    client = k.task("client", calls=["disk"])
    region = client.sys("region", "r", PAGE, False)
    driver.credit()
    client.call("disk", flags=wire.ASYNC, caps=(region,))
    (lent,) = driver.delivery().caps
    driver.post("dma_map", lent, True, on="disk0")
    client.call("disk")  # it dies while it waits
    with only_reference_counts() as unreachable:
        k.end("client")
        k.end("disk")
        machine.answer(machine.delivery())
    assert unreachable == []
    assert living(k, Life) == {"root#1", "machine#1"}
    assert living(k, Region) == set()

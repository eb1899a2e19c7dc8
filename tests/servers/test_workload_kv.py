"""The key-value client: a change is said again as the same one, until it is answered."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from launcher.chaos.evidence import FAIL, INFO, OK, Operation
from servers.workload.kv import TRIES, KeyValueRun, settled
from tests.servers.workload import Whims, client_of, told
from ukernel.abi.errors import DeadlinePassed, DeadUnknown, Unavailable
from ukernel.abi.services import PAGE, DeviceFailed, KeyValue, NoSpace, NoSuchKey


class Table(KeyValue):
    """Does what its interface says, unless its whims are otherwise."""

    def __init__(self) -> None:
        self.whims = Whims()
        self.values: dict[str, bytes] = {}
        self.numbers = Counter[str]()
        self.answered: dict[bytes, int] = {}

    def get(self, key: str) -> bytes:
        with self.whims.around("get"):
            if key not in self.values:
                raise NoSuchKey(key)
            return self.values[key]

    def put(self, key: str, value: bytes, operation: bytes) -> None:
        def put() -> int:
            self.values[key] = value
            return 0

        self._once("put", operation, put)

    def add(self, key: str, amount: int, operation: bytes) -> int:
        return self._once("add", operation, lambda: self._added(key, amount))

    def _added(self, key: str, amount: int) -> int:
        self.numbers[key] += amount
        return self.numbers[key]

    def _once(self, op: str, operation: bytes, do: Callable[[], int]) -> int:
        with self.whims.around(op):
            if operation not in self.answered:
                self.answered[operation] = do()
            return self.answered[operation]

    def number(self, key: str) -> int:
        return self.numbers[key]

    def keys(self, start: int) -> list[str]:
        return sorted(self.values)[start : start + PAGE]


class Unlucky:
    """Raises at each `every`-th chance."""

    def __init__(self, every: int, error: Exception) -> None:
        self.every = every
        self.error = error
        self.chances = 0

    def __call__(self, op: str, done: bool) -> None:
        self.chances += 1
        if self.chances % self.every == 0:
            raise self.error


def test_what_it_reads_is_what_it_wrote() -> None:
    table = Table()
    client = client_of(KeyValueRun, table, keys=4, size=20)
    assert all(client.step() for _ in range(300))
    written: dict[str, str] = {}
    total = 0
    for op in told(client):
        if op.op == "add":
            amount, _, answer = op.value.partition("=")
            total += int(amount)
            assert (op.key, answer) == ("client.sum", str(total))
        elif op.op == "put":
            written[op.key] = op.value
            assert len(op.value) == 20
        else:
            assert op.value == written[op.key]
    assert set(written) == {f"client.{n}" for n in range(4)}
    assert {op.op for op in told(client)} == {"add", "put", "get"}
    assert client.found() == {**written, "client.sum": str(total)}


@pytest.mark.parametrize("every", [2, 3, 7])
def test_a_doubt_is_settled_without_a_second_effect(every: int) -> None:
    table = Table()
    client = client_of(KeyValueRun, table)
    table.whims.next = Unlucky(every, DeadlinePassed("late"))
    for _ in range(200):
        client.step()
    adds = [op for op in told(client) if op.op == "add"]
    sure = sum(_amount(op) for op in adds if op.outcome == OK)
    doubtful = sum(_amount(op) for op in adds if op.outcome == INFO)
    assert sure <= table.numbers["client.sum"] <= sure + doubtful
    assert {op.outcome for op in adds} == ({INFO} if every == 2 else {OK})


def _amount(op: Operation) -> int:
    return int(op.value.partition("=")[0])


def test_it_gives_up_after_so_many_tries() -> None:
    said = []

    def hopeless(operation: bytes) -> str:
        said.append(operation)
        raise DeadlinePassed("late")

    with pytest.raises(DeadlinePassed):
        settled(hopeless)
    assert len(said) == TRIES
    assert len(set(said)) == 1


def test_every_operation_has_an_id_of_its_own() -> None:
    said = {settled(lambda operation: operation.hex()) for _ in range(10)}
    assert len(said) == 10
    assert {len(operation) for operation in said} == {32}


@pytest.mark.parametrize("after", [NoSpace("full"), Unavailable("kv is failed")])
@pytest.mark.parametrize("first", [DeadUnknown("died"), DeviceFailed("flush")])
def test_a_refusal_after_a_doubt_leaves_the_doubt(first: Exception, after: Exception) -> None:
    errors = [first, after]

    def do(operation: bytes) -> str:
        raise errors.pop(0)

    with pytest.raises(type(first)):
        settled(do)
    assert errors == []


def test_a_refusal_is_final() -> None:
    table = Table()
    client = client_of(KeyValueRun, table)
    table.whims.next = Unlucky(1, NoSpace("full"))
    for _ in range(30):
        assert not client.step()
    assert {op.outcome for op in told(client)} == {FAIL}
    assert table.whims.next.chances == 30
    assert client.found() == {"client.sum": "0"}


def test_a_key_that_is_lost_is_seen_as_nothing() -> None:
    table = Table()
    client = client_of(KeyValueRun, table, keys=1)
    while not client.acknowledged:
        client.step()
    table.values.clear()
    while told(client)[-1].op != "get":
        table.values.clear()
        client.step()
    assert (told(client)[-1].outcome, told(client)[-1].value) == (OK, "")


def test_everything_of_the_client_is_found_and_nothing_else() -> None:
    table = Table()
    table.values = {f"client.{n}": b"v" for n in range(300)} | {"client2.1": b"x", "a": b"y"}
    table.values["client.7"] = b"\xff"
    found = client_of(KeyValueRun, table).found()
    assert len(found) == 301
    assert found["client.7"] == "\\xff"
    table.whims.next = Unlucky(300, DeviceFailed("sector 1"))
    found = client_of(KeyValueRun, table).found()
    assert "DeviceFailed: sector 1" in found.values()

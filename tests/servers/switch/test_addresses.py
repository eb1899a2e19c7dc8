"""Where an address is: nobody takes another's over, or makes the switch forget it."""

from __future__ import annotations

import pytest

from servers.switch.addresses import MOST, SILENT_S, Addresses
from servers.switch.server import BadSettings, Settings

ONE, TWO = bytes.fromhex("020000000001"), bytes.fromhex("020000000002")
ELSE = bytes.fromhex("020000000099")


@pytest.fixture
def table() -> Addresses:
    return Addresses({ONE: 1, TWO: 2})


def test_a_ports_own_address_is_there_before_it_has_spoken(table: Addresses) -> None:
    assert (table.port_of(ONE), table.port_of(TWO), table.port_of(ELSE)) == (1, 2, None)


def test_nobody_speaks_under_another_ports_address(table: Addresses) -> None:
    assert table.seen(ONE, 1, 0.0)
    assert not table.seen(ONE, 2, 1e9)
    assert not table.seen(b"\x01" + ONE[1:], 1, 0.0)  # of a group: nobody's
    assert table.port_of(ONE) == 1


def test_another_address_is_where_it_was_seen_and_moves_when_it_has_been_silent(
    table: Addresses,
) -> None:
    assert table.seen(ELSE, 0, 100.0)
    assert not table.seen(ELSE, 2, 100.0 + SILENT_S / 2)
    assert table.seen(ELSE, 0, 110.0)
    assert not table.seen(ELSE, 2, 110.0 + SILENT_S / 2)
    assert table.port_of(ELSE) == 0
    assert table.seen(ELSE, 2, 110.0 + SILENT_S)
    assert table.port_of(ELSE) == 2


def test_a_port_with_too_many_addresses_forgets_its_own(table: Addresses) -> None:
    table.seen(ELSE, 0, 0.0)
    many = [b"\x04" + number.to_bytes(5) for number in range(MOST + 3)]
    for address in many:
        assert table.seen(address, 1, 1.0)
    assert [table.port_of(address) for address in (*many[:3], many[3], many[-1])] == [
        None, None, None, 1, 1,
    ]  # fmt: skip
    assert table.port_of(ELSE) == 0
    assert table.seen(many[0], 2, 1.0)  # it is nobody's any more


def test_each_port_has_an_address_of_its_own() -> None:
    said = Settings.of({"ports": 3, "mac": "02:00:00:00:00:fe"})
    assert said.address("x", 1).hex(":") == "02:00:00:00:00:ff"
    assert said.address("x", 2).hex(":") == "02:00:00:00:01:00"
    derived = Settings.of({})
    assert derived.address("a", 1) == derived.address("a", 1) != derived.address("b", 1)
    assert derived.address("a", 1)[0] == 2


@pytest.mark.parametrize(
    ("args", "why"),
    [
        ({"port": 1}, "the switch knows ports, mtu, mac"),
        ({"ports": 0}, "args.ports is 0: from 1 to 64"),
        ({"ports": "4"}, "args.ports is '4'"),
        ({"mtu": 20}, "args.mtu is 20"),
        ({"mac": "02:00"}, "args.mac is '02:00'"),
        ({"mac": "01:00:00:00:00:00"}, "args.mac is"),
    ],
)
def test_settings_that_it_cannot_work_with(args: dict[str, object], why: str) -> None:
    with pytest.raises(BadSettings, match=why.replace(".", r"\.")):
        Settings.of(args)

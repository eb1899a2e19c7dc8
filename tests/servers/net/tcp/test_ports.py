"""Ephemeral ports: in a row for one service, elsewhere for another; all of them before none."""

from __future__ import annotations

from servers.net.tcp.ports import COUNT, FIRST, LAST, Ports
from servers.net.tcp.quad import Quad

SECRET = bytes(range(32))
SERVICE = Quad(0x0A000001, 0, 0x0A000002, 80)


def anything(port: int) -> bool:
    return True


def test_the_ports_to_a_service_follow_one_another() -> None:
    ports = Ports(SECRET)
    first = ports.choose(SERVICE, anything, 1)
    for step in range(1, 100):
        found = ports.choose(SERVICE, anything, 1)
        assert found == FIRST + (first - FIRST + step) % COUNT


def test_all_of_them_are_dynamic_and_each_comes_once() -> None:
    ports = Ports(SECRET)
    found = {ports.choose(SERVICE, anything, 1) for _ in range(COUNT)}
    assert found == set(range(FIRST, LAST + 1))


def test_what_is_not_free_is_passed_over() -> None:
    ports = Ports(SECRET)
    assert ports.choose(SERVICE, lambda port: port == 50_000, 1) == 50_000
    assert ports.choose(SERVICE, lambda port: port == 50_000, 1) == 50_000


def test_none_is_free() -> None:
    assert Ports(SECRET).choose(SERVICE, lambda port: False, 1) == 0


def test_another_service_begins_elsewhere() -> None:
    found = {
        Ports(SECRET).choose(SERVICE._replace(remote_port=port), anything, 1)
        for port in range(1, 200)
    }
    assert len(found) > 190


def test_nobody_knows_where_without_the_secret_and_the_moment() -> None:
    found = {
        Ports(bytes([key] * 32)).choose(SERVICE, anything, now)
        for key in range(9)
        for now in range(9)
    }
    assert len(found) > 78

"""dbus: dbus-daemon on a bus of its own, with jeepney at both ends. The body is one byte array."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NoReturn

from jeepney import DBusAddress, MessageType, new_method_call, new_method_return
from jeepney.bus_messages import message_bus
from jeepney.io.blocking import DBusConnection, Proxy, open_dbus_connection

from launcher.bench.job import Client
from launcher.bench.peers import Answer, Peer, become, dial, pack, ready, unpack

NAME = "bench.Echo"
CONFIG = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>session</type>
  <listen>unix:path={path}</listen>
  <policy context="default">
    <allow send_destination="*" eavesdrop="true"/>
    <allow eavesdrop="true"/>
    <allow own="*"/>
  </policy>
</busconfig>
"""


def broker(address: str) -> NoReturn:
    config = Path(address, "dbus.conf")
    config.write_text(CONFIG.format(path=_bus(address)))
    ready()
    become("dbus-daemon", f"--config-file={config}", "--nofork", "--nopidfile")


def server(address: str, answer: Answer) -> NoReturn:
    connection = _connected(address)
    Proxy(message_bus, connection).RequestName(NAME)
    ready()
    while True:
        message = connection.receive()
        if message.header.message_type is MessageType.method_call:
            (body,) = message.body
            connection.send(new_method_return(message, "ay", (answer(body),)))


def client(address: str) -> Client:
    connection = _connected(address)
    echo = DBusAddress("/", bus_name=NAME, interface=NAME)

    def call(data: bytes) -> Any:
        request = new_method_call(echo, "Echo", "ay", (pack((data,)),))
        return unpack(connection.send_and_get_reply(request).body[0])

    return Client(call)


def _bus(address: str) -> str:
    return f"{address}/bus"


def _connected(address: str) -> DBusConnection:
    dial(_bus(address)).close()
    return open_dbus_connection(f"unix:path={_bus(address)}")


PEERS = {"dbus_daemon": Peer(client, server, broker)}

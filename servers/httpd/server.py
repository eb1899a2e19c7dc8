"""server: many connections in one loop. When it dies its connections break: HTTP clients ask again.

args:
    port: 80            where it listens
    root: /www          the directory that is shown
    index: index.html   the file that stands for its directory; "": directories are listed
    connections: 256    at once; when there are more, those that wait longest for a request go
    idle_s: 30          how long a client may send no whole request, or take nothing
    log: false          a line for each answer
    net: net, fs: fs    whom it calls
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from email.utils import formatdate
from typing import Any

from servers.httpd.files import Site
from servers.httpd.replies import Reply, Request
from servers.httpd.sending import REGION, FileChanged, Pieces
from servers.httpd.shelf import Shelf
from servers.httpd.visitor import Tools, Visitor
from ukernel.abi.errors import Answer, Overload, Protocol
from ukernel.abi.network import Address, Network, Stream
from ukernel.abi.services import FileSystem
from ukernel.lib.server import Server
from ukernel.lib.sockets import Port, TcpStream, Watch, Window
from ukernel.lib.stub import connect

SCRATCH = 32 * 1024  # bytes: of what is received at once, and of text that is sent
BACKLOG = 128
LOOK_NS = 1_000_000_000  # how often it looks for those that are idle
DEFAULTS: dict[str, Any] = {
    "port": 80,
    "root": "/www",
    "index": "index.html",
    "connections": 256,
    "idle_s": 30,
    "log": False,
    "net": "net",
    "fs": "fs",
}


class HttpServer(Server):
    def setup(self) -> None:
        args = DEFAULTS | self.args
        net = connect(Network, str(args["net"]), timeout_s=None)
        fs = connect(FileSystem, str(args["fs"]), timeout_s=None)  # it may not write when too late
        self.scratch = Window(self.region("scratch", SCRATCH), 0, SCRATCH)
        pieces = Pieces(self.region("pieces", REGION))
        shelf = Shelf(fs, time.monotonic_ns)
        site = Site(fs, shelf, str(args["root"]), str(args["index"]), pieces)
        log = self.log if args["log"] else _say_nothing
        self.tools = Tools(site, shelf, pieces, self.date, log)
        self.most = int(args["connections"])
        self.idle_ns = int(float(args["idle_s"]) * 1e9)
        self.visitors: OrderedDict[int, Visitor] = OrderedDict()  # who moved on last is last
        self.moved_ns: dict[int, int] = {}  # when each did
        self.eager: dict[int, Visitor] = {}  # would go on sending
        self.look_ns = 0
        self.dated = 0, ""
        self.sockets = Watch(self, net)
        self.port = Port(self.sockets, Address("0.0.0.0", int(args["port"])), BACKLOG, self.come)
        self.alarm_ns = 1  # as soon as it serves

    def come(self, stream: Stream, tag: int) -> None:
        """A new connection."""
        visitor = Visitor(tag, TcpStream(stream, self.scratch), self.tools)
        self.visitors[tag] = visitor
        self.moved_ns[tag] = time.monotonic_ns()
        self.sockets.tell(tag, lambda events: self.do(visitor, lambda: visitor.told(events)))
        if len(self.visitors) > self.most:
            self.make_room()
        if len(self.visitors) <= self.most:
            self.port.more()

    def make_room(self) -> None:
        """Let the one go that waits longest for a request, if there is one."""
        longest = next((visitor for visitor in self.visitors.values() if visitor.idle), None)
        if longest is not None:
            self.leave(longest)

    def do(self, visitor: Visitor, step: Callable[[], None]) -> None:
        """Have it go on, and see what has become of it."""
        before = visitor.progress
        try:
            step()
        except (Answer, Protocol, Overload):  # the client, or net, has ended it
            visitor.over = True
        except FileChanged:
            with suppress(Answer, Protocol, Overload):
                visitor.stream.stream.abort()  # so that the client does not take it for the whole
            visitor.over = True
        if visitor.over:
            self.leave(visitor)
        elif visitor.progress != before:
            self.visitors.move_to_end(visitor.tag)
            self.moved_ns[visitor.tag] = time.monotonic_ns()
        if visitor.eager:
            self.eager[visitor.tag] = visitor
            self.alarm_ns = 1  # when what has come meanwhile is done

    def leave(self, visitor: Visitor) -> None:
        """This connection is over."""
        self.sockets.forget(visitor.tag)
        del self.visitors[visitor.tag], self.moved_ns[visitor.tag]
        visitor.close()
        self.port.more()

    def alarmed(self) -> None:
        eager, self.eager = self.eager, {}
        for tag, visitor in eager.items():
            if tag in self.visitors and visitor.eager:
                self.do(visitor, visitor.go_on)
        now = time.monotonic_ns()
        if now >= self.look_ns:
            self.look_ns = now + LOOK_NS
            self.look(now)
        if not self.eager:
            self.alarm_ns = self.look_ns

    def look(self, now: int) -> None:
        """Let those go who have not moved on for too long; others may come."""
        self.tools.shelf.tidy()
        for tag, visitor in list(self.visitors.items()):
            if now - self.moved_ns[tag] < self.idle_ns:
                break
            self.leave(visitor)
        if len(self.visitors) <= self.most:
            self.port.more()

    def date(self) -> str:
        """Now, as HTTP has it."""
        now = int(time.time())
        if self.dated[0] != now:
            self.dated = now, formatdate(now, usegmt=True)
        return self.dated[1]

    def log(self, stream: TcpStream, request: Request | None, reply: Reply) -> None:
        peer = stream.stream.peer()
        asked = "-" if request is None else f"{request.method} {request.target.path or '/'}"
        print(f"{peer.host}:{peer.port} {asked!r} {reply.status.value} {reply.length}", flush=True)


def _say_nothing(stream: TcpStream, request: Request | None, reply: Reply) -> None:
    pass

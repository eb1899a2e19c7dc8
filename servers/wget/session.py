"""session: one command: asks, follows redirections, and says what came of it.

Exit status, as of GNU wget: 0 fetched, 1 the system did not let it, 2 not a command, 3 the file
could not be written, 4 the network failed, 7 what came is no HTTP, 8 the server refused.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn

from servers.wget.exchange import BadAnswer, Exchange
from servers.wget.output import PIECE, FileOutput, Output, Stdout
from servers.wget.url import BadUrl, Url, parse_url, redirected
from ukernel.abi.errors import Answer, CallError, DeadlinePassed
from ukernel.abi.network import Address, Network
from ukernel.abi.services import FileSystem
from ukernel.lib import task
from ukernel.lib.memory import Region
from ukernel.lib.sockets import TcpStream, Window
from ukernel.lib.stub import connect

DONE, DENIED, USAGE, FILE, NETWORK, PROTOCOL, REFUSED = 0, 1, 2, 3, 4, 7, 8
REDIRECTIONS = 5
TIMEOUT_S = 30.0  # of each call: name, connection, next bytes
RECEIVED = 64 * 1024  # bytes in one call
OK = 200
WORDS = {
    "BadAddress": "that is no address to connect to",
    "Unreachable": "no way leads there",
    "ConnectionRefused": "nobody listens there",
    "ConnectionReset": "the server has broken the connection off",
    "TimedOut": "no answer",
    "NoBuffers": "the network has no room for one more connection",
    "NoSuchName": "no such host",
}


class Failed(Exception):
    """It was not fetched: why, and the exit status that says so."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise Failed(USAGE, f"{message} ({' '.join(self.format_usage().split())})")


class Fetched:
    """What has come, and where it goes; the output is opened when there is something to put."""

    def __init__(self, output: Callable[[], Output]) -> None:
        self._open = output
        self._output: Output | None = None
        self._digest = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> None:
        with failing(FILE, "cannot write"):
            self._output = self._output or self._open()
            self._output.write(data)
        self._digest.update(data)
        self.size += len(data)

    def close(self) -> str:
        """All is there: its SHA-256."""
        self.write(b"")  # so that an empty file is there too
        with failing(FILE, "cannot write"):
            assert self._output is not None
            self._output.close()
        return self._digest.hexdigest()

    def give_up(self) -> None:
        if self._output is not None:
            self._output.give_up()


class Session:
    """What one command holds."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.connection = task.connection()
        names = self.connection.info.args
        self.net = connect(Network, str(names.get("net", "net")), timeout_s=options.timeout)
        self.fs_name = str(names.get("fs", "fs"))
        self.window = Window(Region(self.connection, "received", RECEIVED), 0, RECEIVED)
        self.options = options
        self.name = ""  # of what is written

    def fetch(self, url: Url) -> tuple[str, int]:
        """Fetch it, wherever it is by now: SHA-256 and bytes. Raises Failed."""
        self.name = self.options.output or f"/{url.name}"
        for _ in range(REDIRECTIONS + 1):
            self.say(str(url))
            with failing(NETWORK, url.authority):
                stream = self.connected(url)
            fetched = Fetched(self.output)
            try:
                exchange = self.asked(url, stream, fetched)
                if not exchange.redirects:
                    return fetched.close(), fetched.size
            except BaseException:
                fetched.give_up()
                raise
            finally:
                stream.close()
            self.say(f"{exchange.status} {exchange.reason}: {exchange.location}")
            with failing(PROTOCOL, "redirected"):
                url = redirected(url, exchange.location)
        raise Failed(REFUSED, f"more than {REDIRECTIONS} redirections")

    def connected(self, url: Url) -> TcpStream:
        """A connection to the first address of the host that takes one."""
        *others, last = self.net.resolve(url.host)
        for host in others:
            with suppress(Answer):
                return TcpStream(self.net.connect(Address(host, url.port), 0), self.window)
        return TcpStream(self.net.connect(Address(last, url.port), 0), self.window)

    def asked(self, url: Url, stream: TcpStream, fetched: Fetched) -> Exchange:
        """Ask on this connection; to the end of the file, or to where it is known that none comes.
        Raises Failed."""
        exchange = Exchange(url)
        with failing(NETWORK, url.authority):
            stream.send_all(exchange.request)
        while not exchange.done:
            with failing(NETWORK, url.authority):
                data = bytes(stream.recv())
            with failing(PROTOCOL, url.authority):
                pieces = list(exchange.receive(data))
            if exchange.redirects:
                break
            if exchange.status and exchange.status != OK:
                raise Failed(REFUSED, f"{url}: {exchange.status} {exchange.reason}")
            for piece in pieces:
                fetched.write(piece)
        return exchange

    def output(self) -> Output:
        if self.name == "-":
            return Stdout()
        fs = connect(FileSystem, self.fs_name)
        return FileOutput(fs, self.name, Region(self.connection, "file", PIECE))

    def say(self, text: str) -> None:
        if not self.options.quiet:
            print(text, file=sys.stderr, flush=True)


@contextmanager
def failing(status: int, what: str) -> Iterator[None]:
    """What goes wrong within is a failure of this kind."""
    try:
        yield
    except (BadUrl, BadAnswer, OSError) as error:
        raise Failed(status, f"{what}: {error}") from error
    except DeadlinePassed as error:
        raise Failed(status, f"{what}: no answer in time") from error
    except Answer as error:
        name = type(error).__name__
        raise Failed(status, f"{what}: {WORDS.get(name) or f'{name} ({error})'}") from error


def make_parser() -> Parser:
    parser = Parser(prog="wget", description="Fetch a file by HTTP. Its SHA-256 is printed.")
    parser.add_argument("url", metavar="URL", help="http://HOST[:PORT]/PATH")
    parser.add_argument(
        "-O",
        dest="output",
        metavar="FILE",
        default="",
        help="the file to write, or - for standard output",
    )
    parser.add_argument(
        "-T",
        dest="timeout",
        metavar="SECONDS",
        type=float,
        default=TIMEOUT_S,
        help="how long to wait for each answer",
    )
    parser.add_argument("-q", dest="quiet", action="store_true", help="say nothing but errors")
    return parser


def main(argv: list[str]) -> int:
    try:
        options = make_parser().parse_args(argv)
        with failing(USAGE, "not a command"):
            url = parse_url(options.url)
        return _main(options, url)
    except Failed as failed:
        print(f"wget: {failed}", file=sys.stderr)
        return failed.status
    except CallError as error:
        print(f"wget: {error}", file=sys.stderr)
        return DENIED


def _main(options: argparse.Namespace, url: Url) -> int:
    session = Session(options)
    try:
        digest, size = session.fetch(url)
    finally:
        session.connection.leave()
    told = sys.stderr if session.name == "-" else sys.stdout
    print(f"{digest}  {session.name}", file=told)
    session.say(f"{size} bytes")
    return DONE

"""parser: the shell's command line."""

from __future__ import annotations

import argparse
import shlex
from typing import NoReturn


class UsageError(Exception):
    """Not a command; the text says what is wrong and how to write it."""


class Parser(argparse.ArgumentParser):
    """Says what is wrong instead of ending the process: a script has a line to name."""

    def error(self, message: str) -> NoReturn:
        usage = " ".join(self.format_usage().split())
        raise UsageError(f"{message} ({usage})")


def make_parser() -> Parser:
    parser = Parser(prog="shell", description="File commands inside the system.")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    common = Parser(add_help=False)
    common.add_argument("--json", action="store_true", default=argparse.SUPPRESS)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, text: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=text, description=text, parents=[common])

    ls = command("ls", "list a directory")
    ls.add_argument("-l", dest="long", action="store_true", help="kinds and sizes too")
    ls.add_argument("path", nargs="?", default="/")
    command("cat", "show files").add_argument("paths", nargs="+", metavar="path")
    put = command("put", "copy into the system; a REMOTE that ends in / is a directory")
    put.add_argument("-r", dest="recursive", action="store_true", help="a directory and all in it")
    put.add_argument("local", help="a file or directory outside, or - for standard input")
    put.add_argument("remote")
    get = command("get", "copy out of the system; a LOCAL that ends in / is a directory")
    get.add_argument("remote")
    get.add_argument("local", help="a file outside, or - for standard output")
    rm = command("rm", "remove files or empty directories")
    rm.add_argument("-r", dest="recursive", action="store_true", help="and all in them")
    rm.add_argument("paths", nargs="+", metavar="path")
    mkdir = command("mkdir", "make directories and those above them")
    mkdir.add_argument("paths", nargs="+", metavar="path")
    mv = command("mv", "rename; a NEW that ends in / is a directory")
    mv.add_argument("old")
    mv.add_argument("new")
    command("stat", "kind and size").add_argument("paths", nargs="+", metavar="path")
    command("sha256", "SHA-256 of files").add_argument("paths", nargs="+", metavar="path")
    script = command("script", "run a command from each line of a file")
    script.add_argument("--keep-going", action="store_true", help="go on after an error")
    script.add_argument("file", help="a file outside, or - for standard input")
    return parser


def parse_line(parser: Parser, line: str) -> argparse.Namespace | None:
    """The command on a line of a script; None when there is none. Raises UsageError."""
    try:
        words = shlex.split(line, comments=True)
    except ValueError as error:
        raise UsageError(str(error)) from None
    if not words:
        return None
    options = parser.parse_args(words)
    if options.command == "script":
        raise UsageError("a script cannot run a script")
    return options

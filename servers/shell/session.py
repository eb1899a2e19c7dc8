"""session: one command, or a script of them, and how its outcome is told.

Exit status: 0 done, 1 not done (standard error says why), 2 not a command.
"""

from __future__ import annotations

import json
import os
import sys
from argparse import Namespace
from contextlib import nullcontext
from dataclasses import asdict

from servers.shell.commands import COMMANDS, SHOWN, STDOUT, explain
from servers.shell.parser import Parser, UsageError, make_parser, parse_line
from servers.shell.volume import BULK, Volume
from ukernel.abi.errors import Answer, CallError
from ukernel.abi.services import FileSystem
from ukernel.lib import task
from ukernel.lib.memory import Region
from ukernel.lib.stub import connect


class Shell:
    """Runs commands and counts the failed ones."""

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json
        self.connection = task.connection()
        self.volume = Volume(connect(FileSystem, "fs"), Region(self.connection, "bulk", BULK))

    def run(self, options: Namespace, where: str = "") -> bool:
        """Do one command; whether it was done."""
        if self.as_json and (options.command == "cat" or getattr(options, "local", "") == "-"):
            raise UsageError(f"{options.command}: --json and the file would share standard output")
        try:
            result = COMMANDS[options.command](self.volume, options)
        except BrokenPipeError:
            raise
        except (Answer, CallError, OSError) as error:
            self._complain(options.command, error, where)
            return False
        if self.as_json:
            print(json.dumps({"command": options.command, **result}), flush=True)
        else:
            for line in SHOWN[options.command](result, options):
                print(line)
        return True

    def _complain(self, command: str, error: Exception, where: str) -> None:
        print(f"shell: {where}{explain(error)}", file=sys.stderr)
        if self.as_json:
            kind = type(error).__name__
            print(
                json.dumps({"command": command, "error": kind, "text": explain(error)}), flush=True
            )

    def script(self, parser: Parser, options: Namespace) -> bool:
        """Run the commands of a file; whether all were done. Stops at the first that was not."""
        good = True
        name = options.file
        source = nullcontext(sys.stdin) if name == "-" else open(name, encoding="utf-8")  # noqa: SIM115
        with source as lines:
            for number, line in enumerate(lines, 1):
                where = f"{name}:{number}: "
                try:
                    parsed = parse_line(parser, line)
                    good &= parsed is None or self.run(parsed, where)
                except UsageError as error:
                    raise UsageError(f"{where}{error}") from None
                if not good and not options.keep_going:
                    break
        return good

    def close(self) -> None:
        if self.as_json:
            print(json.dumps({"calls": asdict(self.connection.stats)}), flush=True)
        self.connection.leave()


def main(argv: list[str]) -> int:
    try:
        status = _main(argv)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), STDOUT)  # whoever read us has seen enough
        return 1
    except UsageError as error:
        print(f"shell: {error}", file=sys.stderr)
        return 2
    except (CallError, OSError) as error:
        print(f"shell: {explain(error)}", file=sys.stderr)
        return 1
    return status


def _main(argv: list[str]) -> int:
    parser = make_parser()
    options = parser.parse_args(argv)
    shell = Shell(options.json)
    try:
        script = options.command == "script"
        done = shell.script(parser, options) if script else shell.run(options)
    finally:
        shell.close()
    return 0 if done else 1

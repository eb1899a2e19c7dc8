"""cli: the `ukernel` command.

Exit status: 0 fine, 1 what was asked did not come true, 2 bad input (one line says which),
3 unknown: the system went away meanwhile.
"""

from __future__ import annotations

import sys

import typer

from launcher.client import Refused
from launcher.commands import (
    act,
    blast,
    blocked,
    boot,
    capture,
    chaos,
    compare,
    events,
    net,
    observe,
    quarantine,
    reference,
    run,
    stop,
    top,
    trace,
    vm,
)
from launcher.rundir import RunDirError
from launcher.source import ConfigError

PASS_THROUGH = {"ignore_unknown_options": True, "allow_interspersed_args": False}
INTERRUPTED = 128 + 2  # as a shell has it for SIGINT

app = typer.Typer(
    help="A microkernel operating system made of real Linux processes.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
for command in (
    reference.check, boot.up, observe.ps, top.top, blocked.blocked, act.kill, act.restart,
    stop.stop, observe.caps, observe.kstat, trace.trace, events.events, observe.logs,
    quarantine.quarantine, act.down, reference.schema, reference.manual, reference.demo,
    blast.blast, compare.compare, capture.capture,
):  # fmt: skip
    app.command()(command)
app.command(context_settings=PASS_THROUGH)(act.fs)
app.command(context_settings=PASS_THROUGH)(run.run)
app.add_typer(net.app, name="net")
app.add_typer(vm.app, name="vm")
app.add_typer(reference.bench, name="bench")
app.add_typer(chaos.app, name="chaos")


def main() -> None:
    """Run the command line of this process."""
    try:
        app(prog_name="ukernel")
    except Refused as refused:
        _leave(str(refused), refused.code)
    except (ConfigError, RunDirError, LookupError) as error:
        _leave(str(error.args[0] if error.args else error), 2)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def _leave(text: str, status: int) -> None:
    print(f"ukernel: {text}", file=sys.stderr)
    sys.exit(status)


if __name__ == "__main__":
    main()

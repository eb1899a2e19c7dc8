"""readme: what README.md shows is run, what it links to is there, and what it counts is so.

The tables between `<!-- NAME -->` and `<!-- end -->` are made from the code. After a change there:

    python -m tests.test_readme
"""

from __future__ import annotations

import ast
import contextlib
import json
import re
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

import pytest
import zmq
from typer.main import get_command

from hwsim.inbox import ROOM
from launcher import foreground, placement, supervisor, system, vitals, vm_rules
from launcher.bench import outages, result
from launcher.bench.hops import CHANNEL_HOPS, KERNEL_HOPS
from launcher.bench.net.plan import VARIANTS
from launcher.bench.net.result import SCHEMA as NET_SCHEMA
from launcher.bench.net.result import NetResult
from launcher.bench.net.result import Row as NetRow
from launcher.bench.paths import PATHS
from launcher.bench.vm.result import SCHEMA as VM_SCHEMA
from launcher.bench.vm.result import Row as VmRow
from launcher.board import REGIONS
from launcher.chaos import journal
from launcher.chaos.catalogue import (
    SECTIONS,
    Described,
    Parameter,
    Section,
    common_parameters,
    described,
)
from launcher.chaos.checks import Predict
from launcher.chaos.evidence import Evidence
from launcher.chaos.experiment import Experiment, load
from launcher.chaos.nemesis import Sweep
from launcher.chaos.plan import ends_s, legs, plan
from launcher.cli import app
from launcher.commands.events import KINDS
from launcher.compare.result import SCHEMA as COMPARE_SCHEMA
from launcher.config import load as load_system
from launcher.demo import Findings, broker_lines
from launcher.heartbeat import LATE_S
from launcher.reader import MAX_BYTES, MAX_NESTING, MAX_VALUES
from servers import partitions
from servers.fs.handles import SELECTOR_SIZE
from servers.fs.paths import LONGEST_PART, LONGEST_PATH
from servers.fs.server import HANDLES
from servers.fs.volume import LARGEST_FILE
from servers.httpd.server import DEFAULTS as HTTPD
from servers.kv.server import LIMIT_BYTES, REMEMBER
from servers.net import host, neighbours, reassembly, udp
from servers.net.port import RECEIVES, SENDS
from servers.net.settings import Settings
from servers.net.store import PASTS, SOCKETS
from servers.net.tcp.connection import RECORD_BYTES
from servers.net.tcp.limits import Limits
from servers.switch.addresses import SILENT_S
from servers.switch.port import KEPT
from servers.vmm import blk, runner, share, transcript
from servers.vmm import net as vm_net
from servers.vmm.qemu import process
from servers.vmm.settings import GUESTS
from tests.conftest import Ukernel, until
from tests.tools import needs, no_own_network
from ukernel.abi import exits, hardware, manifest, wire
from ukernel.abi.errors import Code
from ukernel.abi.faults import DEVICE_FAULTS, MESSAGE_FAULTS
from ukernel.abi.manifest import BUILTIN_INTERFACES, HARDWARE_MODELS, Part
from ukernel.abi.recorder import MOST_BODY, MOST_POISON
from ukernel.abi.syscalls import RIGHT_NAMES, Quota
from ukernel.abi.vm import EMPTY, FAILED, HALTED, PAUSED, RUNNING, VirtualMachine
from ukernel.broker.shell import OPTIONS, TICK_MS
from ukernel.broker.state import GOT_HEAD, SENT_HEAD, TRACE_LENGTH
from ukernel.lib.channel import MOST_REGISTERED
from ukernel.lib.link import SELDOM
from ukernel.lib.reception import MOST_DOORS
from ukernel.lib.ring import SLOT, SLOTS

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
EXPERIMENTS = ROOT / "configs/experiments"
LINK = re.compile(r"\[([^\]]+)\]\(([^)\s]+)\)")
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
KIB, MIB = 1 << 10, 1 << 20


def section(title: str) -> str:
    """The text under a heading, up to the next of its level."""
    found = re.search(rf"^(#+) {re.escape(title)}\n(.*?)(?=^\1 |\Z)", text(), re.M | re.S)
    assert found, f"no section {title}"
    return found[2]


def text() -> str:
    return README.read_text()


# --- tables made from the code ------------------------------------------------------------------


def table(head: str, rows: list[list[str]]) -> str:
    columns = head.split(" | ")
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def key_tables() -> str:
    """Every key of a system file, as `ukernel.abi.manifest` declares it."""
    parts: list[tuple[str, type[Part]]] = [
        ("The top of the file", manifest.Manifest),
        ("`servers.NAME`", manifest.Server),
        ("`servers.NAME.calls`, an entry written as `{NAME: {...}}`", manifest.Link),
        ("`servers.NAME.restart`", manifest.Restart),
        ("`servers.NAME.restart.backoff`", manifest.Backoff),
        ("`servers.NAME.heartbeat`", manifest.Heartbeat),
        ("`vms.NAME`", manifest.Vm),
        ("`vms.NAME.disk`", manifest.VmDisk),
        ("`vms.NAME.nic`", manifest.VmNic),
    ]
    for name, kind in HARDWARE_MODELS.items():
        parts.append((f"`hardware.NAME` with `model: {name}`", kind))
        if kind is manifest.VirtioNet:
            parts.append(("`hardware.NAME.faults` of it", manifest.Impairments))
    return "\n\n".join(f"**{title}**\n\n{_keys(kind)}" for title, kind in parts)


def _keys(kind: type[Part]) -> str:
    shapes = kind.model_json_schema()["properties"]
    rows = []
    for name, field in kind.model_fields.items():
        values, default = _values(shapes[name]), "required"
        value = None if field.is_required() else field.get_default(call_default_factory=True)
        if isinstance(value, Part):
            default = "see below"
        elif not field.is_required():
            default = f"`{_as_yaml([] if values == 'list' and value == {} else value)}`"
        rows.append([f"`{name}`", values, default, " ".join((field.description or "").split())])
    return table("key | value | default | meaning", rows)


def _as_yaml(value: Any) -> str:
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_as_yaml, value))}]"
    if value is None:
        return "none"
    if isinstance(value, int) and value and value % MIB == 0:
        return f"{value // MIB}MiB"
    return json.dumps(value) if not isinstance(value, str) or not value else value


def _values(shape: dict[str, Any]) -> str:
    """What may stand behind a key, from its JSON Schema."""
    kinds = [s for s in shape.get("anyOf", [shape]) if s.get("type") != "null"]
    if any("KiB" in s.get("pattern", "") for s in kinds):
        return "size"
    if any("ms|s|m" in s.get("pattern", "") for s in kinds):
        return "duration"
    one = kinds[0]
    if "const" in one or "enum" in one:
        return ", ".join(f"`{value}`" for value in one.get("enum", [one.get("const")]))
    match one.get("type"):
        case "integer" | "number" as kind:
            low = one.get("minimum", one.get("exclusiveMinimum"))
            high = one.get("maximum")
            word = "whole number" if kind == "integer" else "number"
            above = f" above {low}" if "exclusiveMinimum" in one else f" from {low}"
            return f"{low} to {high}" if high is not None and high < KIB else word + above
        case "boolean":
            return "`true`, `false`"
        case "array":
            return "list"
        case "string":
            return "text"
    return "mapping"


def command_table() -> str:
    """Every command and its options, as the command line declares them."""
    rows = [[f"`ukernel {u}`", o or "none", w] for u, o, w in _commands("", get_command(app))]
    return table("command | options | what it does", rows)


def _commands(prefix: str, group: Any) -> Iterator[tuple[str, str, str]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(f"{prefix}{name} ", command)
            continue
        arguments, options = [], []
        for param in command.params:
            word = (param.metavar or param.name.upper()).replace("|", r"\|")  # in a table
            if param.param_type_name == "argument":
                arguments.append(word if param.required else f"[{word}]")
            elif not param.hidden:
                value = "" if param.is_flag else f" {word}"
                options.append(f"`{', '.join(param.opts)}{value}`")
        usage = " ".join([prefix + name, *arguments])
        yield usage, ", ".join(options), " ".join((command.help or "").split("\n\n")[0].split())


def limit_table() -> str:
    """Every limit that a program can meet."""
    quota = Quota()
    limits = [
        ("calls without an outcome, of one life", quota.calls, "`E_OVERLOAD`"),
        ("bytes in those calls", f"{quota.queued_bytes // MIB} MiB", "`E_OVERLOAD`"),
        ("capabilities that one life pays for", quota.caps, "`E_OVERLOAD`"),
        ("regions, notifications and channels of one life", quota.objects, "`E_OVERLOAD`"),
        ("mappings in one device's IOMMU domain", quota.mappings, "`E_OVERLOAD`"),
        ("bytes of regions without `memory:`", f"{REGIONS // MIB} MiB", "`E_OVERLOAD`"),
        ("body of a message", f"{wire.MAX_BODY // KIB} KiB", "ZeroMQ cuts the sender off"),
        ("capabilities in a message", wire.MAX_CAPS, "a fault of the sender"),
        ("nesting of a body", wire.MAX_DEPTH, "`E_PROTO`"),
        ("elements of one list or map in a body", wire.MAX_ELEMENTS, "`E_PROTO`"),
        ("messages that a task leaves unread", OPTIONS[zmq.SNDHWM], "it is killed"),
        ("how late a deadline is seen", f"{TICK_MS} ms", "nothing"),
        ("a ring of a channel", f"{SLOTS} slots of {SLOT} bytes", "the writer waits for room"),
        ("channels that a server opens", MOST_DOORS, "calls go by the kernel"),
        ("regions that a channel knows", MOST_REGISTERED, "calls that lend more go by the kernel"),
        ("servers in one process", placement.MOST, "refused"),
        ("finished calls in the trace", TRACE_LENGTH, "the oldest go"),
        ("bytes of a request, of a reply in the trace", f"{SENT_HEAD}, {GOT_HEAD}", "cut off"),
        ("size of a system file", f"{MAX_BYTES // MIB} MiB", "refused"),
        ("values, nesting in a system file", f"{MAX_VALUES}, {MAX_NESTING}", "refused"),
        ("size of a file in `fs`", f"{LARGEST_FILE} bytes", "`OutOfRange`"),
        ("name, whole path in `fs`", f"{LONGEST_PART}, {LONGEST_PATH} bytes", "`BadName`"),
        (
            "log of open files in `fs`",
            f"{(HANDLES - SELECTOR_SIZE) // 2} bytes of records",
            "`E_OVERLOAD`",
        ),
        ("values and numbers in `kv`", f"{LIMIT_BYTES // MIB} MiB", "`NoSpace`"),
        ("changes that `kv` knows again", REMEMBER, "the oldest would be done once more"),
        *network_limits(),
        *vm_limits(),
        ("log of a task", f"{vitals.LOG_LIMIT // MIB} MiB", _cut()),
        ("events that `ukernel events` knows", system.EVENTS, "the oldest go"),
        ("requests in quarantine, of one server", MOST_POISON, "the oldest come free"),
        ("bytes of a request in quarantine", MOST_BODY, "it cannot be replayed"),
        ("boots by `on_kernel_death: reboot`", _boots(), "status 3"),
    ]
    return table("what | limit | beyond it", [[w, str(n), b] for w, n, b in limits])


def network_limits() -> list[tuple[str, int, str]]:
    """Those that `net` and its cards have for clients, and for strangers."""
    few = Limits()
    return [
        ("MTU of a network card", hardware.MOST_MTU, "refused"),
        ("frames that wait for a card of `wire` or `switch`", ROOM, "dropped"),
        ("TCP connections of a `net` without `connections:`", Settings.connections, "`NoBuffers`"),
        ("listeners and UDP sockets of a `net`", SOCKETS, "`NoBuffers`"),
        ("connections that wait to be accepted, of one port", few.backlog, "the peer asks again"),
        ("handshakes that a port remembers", few.half_open, "SYN cookies"),
        ("connections in TIME-WAIT", PASTS, "the oldest go"),
        ("bytes of a datagram", udp.MOST_BYTES, "`TooLong`"),
        ("bytes of datagrams that wait at a UDP socket", udp.QUEUE_BYTES, "dropped"),
        ("datagrams that are put together", reassembly.MOST_DATAGRAMS, "the oldest go"),
        ("neighbours", neighbours.MOST_ENTRIES, "the oldest go"),
    ]


def vm_limits() -> list[tuple[str, int | str, str]]:
    """Those of virtual machines, and of what they share."""
    return [
        ("requests of one partition at the disk", partitions.AT_ONCE, "the others wait"),
        ("frames that wait at a port of `switch`", f"{KEPT // KIB} KiB of each source", "dropped"),
        ("requests of a guest's disk under way", blk.CALLS, "the others wait"),
        ("frames that wait for a guest", vm_net.RECEIVES, "no more are fetched"),
        ("output of a guest that is kept", f"{transcript.KEPT // KIB} KiB", "the oldest goes"),
    ]


def _cut() -> str:
    return f"cut down to its last {vitals.LOG_KEPT // KIB} KiB"


def _boots() -> str:
    return f"{foreground.MOST_BOOTS} within {foreground.WITHIN_S:g} s"


def catalogue_tables() -> str:
    """Everything that an experiment file can name, as `ukernel chaos list` has it."""
    alone: dict[str, type[Part]] = {
        "The top of the file": Experiment, "`predict`": Predict, "`sweep`": Sweep,
    }  # fmt: skip
    tables = [_own_keys(title, kind) for title, kind in alone.items()]
    for key, kind in SECTIONS.items():
        rows = [[f"`{e.name}`", _spelled(e.parameters), e.meaning] for e in described(kind)]
        tables.append(f"**`{key}`**\n\n{table(f'{kind.title} | keys | meaning', rows)}")
        if common := common_parameters(kind):
            tables.append(f"Every entry of `{key}` also has\n\n{_key_rows(common)}")
    return "\n\n".join(tables)


def _own_keys(title: str, kind: type[Part]) -> str:
    (whole,) = _described(kind)
    return f"**{title}**\n\n{_key_rows(whole.parameters)}"


def _described(kind: type[Part]) -> list[Described]:
    return described(Section("", "", Part, {"": kind}))


def _key_rows(parameters: Iterable[Parameter]) -> str:
    return table("key | meaning", [[_spelled([p]), p.meaning] for p in parameters])


def _spelled(parameters: Iterable[Parameter]) -> str:
    return " ".join(f"`{p}`" if p.default != "" else f"`{p.name}?`" for p in parameters) or "none"


def experiment_table() -> str:
    """The experiments that come with the system, as their files say."""
    with contextlib.chdir(ROOT):  # their systems are named from here
        rows = [_experiment(path) for path in sorted(EXPERIMENTS.glob("*.yaml"))]
    return table("experiment | faults | what it shows", rows)


def _experiment(path: Path) -> list[str]:
    loaded = load(path).experiment
    done = f"{len(plan(loaded))} in {round(ends_s(plan(loaded)), 1):g} s"
    if loaded.sweep is not None:
        stretches = legs(loaded.sweep, loaded.seed)
        done = f"{sum(len(leg.kills_s) for leg in stretches)} in {len(stretches)} legs"
    head = re.match(r"(?:#.*\n)+", path.read_text())
    assert head, f"{path} does not say what it shows"
    told = [line[2:] for line in head[0].splitlines() if not line.startswith("#  ")]
    return [f"[{path.stem}]({path.relative_to(ROOT)})", done, " ".join(told)]


GENERATED = {
    "keys": key_tables,
    "commands": command_table,
    "limits": limit_table,
    "catalogue": catalogue_tables,
    "experiments": experiment_table,
}


def with_tables(readme: str) -> str:
    """`readme` with every generated table as it is now."""
    for name, make in GENERATED.items():
        begin, end = f"<!-- {name} -->\n", "<!-- end -->"
        before, _, rest = readme.partition(begin)
        assert rest, f"no place for the table {name}"
        readme = f"{before}{begin}{make()}\n{end}{rest.partition(end)[2]}"
    return readme


def test_tables_are_what_the_code_says() -> None:
    assert text() == with_tables(text()), "run: python -m tests.test_readme"


def test_every_key_has_a_meaning() -> None:
    assert not re.findall(r"^.*\|  \|$", key_tables() + catalogue_tables(), re.M)


def test_every_command_that_a_text_names_exists() -> None:
    known = {usage.split()[0] for usage, _, _ in _commands("", get_command(app))}
    for path in (README, ROOT / "CHANGELOG.md", *(ROOT / "configs").rglob("*.yaml")):
        named = re.findall(r"(?:`|\$ |#   )ukernel ([a-z]+)", path.read_text())
        assert not set(named) - known, path


# --- names and figures --------------------------------------------------------------------------


def _defined(path: Path) -> set[str]:
    """`function`, `Class` and `Class.method` of a module, and the names that it binds."""
    names: set[str] = set()
    for node in ast.parse(path.read_text()).body:
        match node:
            case ast.FunctionDef(name=name):
                names.add(name)
            case ast.ClassDef(name=name, body=body):
                names |= {
                    name,
                    *(f"{name}.{m.name}" for m in body if isinstance(m, ast.FunctionDef)),
                }
    return names


FOLDERS = ("", "ukernel/broker", "ukernel/lib", "servers/net")  # that have a guide
GUIDES = [ROOT / folder / "README.md" for folder in FOLDERS]


@pytest.mark.parametrize("path", GUIDES, ids=str)
def test_links_lead_somewhere(path: Path) -> None:
    """To a file that exists, and to the function in it that the link names."""
    for name, target in LINK.findall(path.read_text()):
        if target.startswith("https://"):
            continue
        if target.startswith("#"):
            assert target[1:] in _anchors(path.read_text()), target
            continue
        found = path.parent / target
        assert found.exists(), target
        if name.startswith("`") and found.suffix == ".py" and "/" not in name:
            assert name.strip("`") in _defined(found), f"{target} has no {name}"


def _anchors(readme: str) -> set[str]:
    titles = re.findall(r"^#+ (.*)$", readme, re.M)
    return {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}


def test_one_read_passes_through_every_layer() -> None:
    found = LINK.findall(section("Follow one read"))
    links = [(name, target) for name, target in found if not target.startswith("#")]
    assert all(name.startswith("`") for name, _ in links)
    folders = {str(Path(target).parent) for _, target in links}
    assert {"servers/shell", "ukernel/lib", "ukernel/broker", "servers/fs", "hwsim"} <= folders


def test_a_read_by_channels_does_not_touch_the_kernel() -> None:
    by_channels, _, by_the_kernel = section("Follow one read").partition("\n### ")
    assert "](ukernel/broker/" not in by_channels
    assert "](ukernel/broker/" in by_the_kernel
    assert f"first {SELDOM} calls" in by_channels


def test_the_kernel_is_as_small_as_said() -> None:
    assert "under 1,500 lines" in section("What it is")
    assert broker_lines() < 1500


def test_every_outcome_right_and_interface_is_explained() -> None:
    outcomes = section("Outcomes of a call")
    assert not [code.name for code in Code if f"`{code.name}`" not in outcomes]
    rights = section("Rights and operations")
    assert not [name for name in RIGHT_NAMES.values() if f"`{name.upper()}`" not in rights]
    interfaces = section("Interfaces")
    assert not [name for name in BUILTIN_INTERFACES if f"`{name}`" not in interfaces]


def test_every_field_of_the_demo_is_explained() -> None:
    explained = section("What `demo --json` writes")
    found = Findings(calls=dict.fromkeys(("ok", "retried", "unknown", "lost"), 0))
    assert not [name for name in found.document() if f"`{name}`" not in explained]


def test_supervision_is_told_with_its_figures() -> None:
    told = section("Supervision")
    figures = [
        f"{supervisor.STABLE_S:g} s of READY",
        f"{supervisor.STOP_S:g} s to leave",
        f"more than {1000 * LATE_S:g} ms late",
        f"{vitals.LOG_LIMIT // MIB} MiB",
        f"last {vitals.LOG_KEPT // KIB} KiB",
        f"{foreground.MOST_BOOTS} boots within {foreground.WITHIN_S:g} s",
        *(f"| {status} |" for status in (exits.OUT_OF_MEMORY, exits.NO_RESTART)),
        f"first {MOST_BODY} bytes",
    ]
    assert not [figure for figure in figures if figure not in told]


def test_every_kind_of_event_is_explained() -> None:
    explained = section("Looking at it live")
    assert not [kind for kind in KINDS if f"`{kind}`" not in explained]


def test_every_fault_and_every_part_of_a_journal_is_explained() -> None:
    faults = section("How a fault gets there")
    assert not [fault for fault in (*DEVICE_FAULTS, *MESSAGE_FAULTS) if f"`{fault}`" not in faults]
    explained = section("What a run leaves behind")
    origin = journal.Origin("", {}, {}, "")
    known = [*journal.document("", "", origin, Evidence(), []), *(f.name for f in fields(Evidence))]
    assert not [name for name in known if f"`{name}`" not in explained]
    assert f"`{journal.SCHEMA}`" in explained


def test_one_packet_passes_through_every_layer() -> None:
    told = section("Follow one packet")
    folders = {str(Path(target).parent) for _, target in LINK.findall(told)}
    layers = {"launcher", "hwsim", "servers", "servers/net", "servers/net/tcp", "servers/httpd"}
    assert layers | {"ukernel/lib"} <= folders
    assert f"keeps {RECEIVES} calls" in told


def test_the_network_is_told_with_its_figures() -> None:
    told, few = section("The network"), Limits()
    backends = get_args(manifest.VirtioNet.model_fields["backend"].annotation)
    names = {*backends, *(f.name for f in fields(Settings)), *HTTPD} - {"prefix"}
    assert not [name for name in sorted(names) if f"`{name}`" not in told]
    figures = [
        f"{RECEIVES} that come and {SENDS} that go",
        f"a record of {RECORD_BYTES} bytes",
        f"{few.half_open} are remembered for each listener",
        f"The oldest of {PASTS} make room",
        f"{few.resets} resets, {few.challenges} challenge ACKs",
        f"{host.ERRORS_PER_SECOND} ICMP errors",
        f"`connections` | {Settings.connections} |",
        f"`send_buffer`, `receive_buffer` | {Settings.send_buffer} |",
        *(f"| `{name}` | {HTTPD[name]} |" for name in ("port", "connections", "idle_s")),
    ]
    assert not [figure for figure in figures if figure not in told]


def test_virtual_machines_are_told_with_their_figures() -> None:
    told = section("Virtual machines")
    guests = [path.stem for path in GUESTS.glob("*.elf")]
    assert len(guests) > 5
    assert not [name for name in guests if f"| `{name}` |" not in told]
    states = (RUNNING, PAUSED, HALTED, EMPTY, FAILED)
    assert not [state for state in states if f"`{state}`" not in told]
    figures = [
        f"slices of at most {runner.SLICE_NS // 1_000_000} ms",
        f"Credit of {share.WINDOW_NS // 1_000_000} ms",
        f"Up to {blk.CALLS} calls",
        f"{vm_net.RECEIVES} frames that have come",
        f"last {transcript.KEPT // KIB} KiB",
        f"{partitions.AT_ONCE} requests of each partition",
        f"{KEPT // KIB} KiB of each source",
        f"after {SILENT_S:g} s of silence",
        f"At least {vm_rules.LEAST_OF_QEMU // MIB} MiB",
        process.APPEND,
    ]
    assert not [figure for figure in figures if figure not in told]
    (row,) = re.findall(r"^\| `vm` \|.*$", section("Interfaces"), re.M)
    names = [
        *(op.name for op in VirtualMachine.ops.values()),
        *(answer.__name__ for answer in VirtualMachine.answers),
    ]
    assert not [name for name in names if f"`{name}`" not in row]


def test_every_rfc_in_the_table_is_in_the_code() -> None:
    folders = [ROOT / "servers" / name for name in ("net", "httpd", "wget")]
    code = "".join(path.read_text() for folder in folders for path in folder.rglob("*.py"))
    named = re.findall(r"\d+", section("What it speaks").replace("| RFC |", ""))
    assert len(named) > 20
    assert not [number for number in named if f"RFC {number}" not in code]


def test_schemas_of_the_benches_are_named() -> None:
    net = section("What `bench net --json` writes")
    known = {f.name for kind in (NetRow, NetResult) for f in fields(kind)} - {"kind", "results"}
    assert not [name for name in sorted({*known, "class"}) if f"`{name}`" not in net]
    assert f"`{NET_SCHEMA}`" in net
    vm = section("What `bench vm --json` writes")
    known = {f.name for f in fields(VmRow)} - {"kind"}
    assert not [name for name in sorted({*known, "class"}) if f"`{name}`" not in vm]
    assert f"`{VM_SCHEMA}`" in vm
    compared = section("The network beside other stacks")
    assert not [name for name in VARIANTS if f"| `{name}` |" not in compared]
    assert f"`{outages.SCHEMA}`" in section("What `bench recovery --json` writes")
    assert f"`{result.SCHEMA}`" in section("What `bench ipc --json` writes")
    assert f"`{COMPARE_SCHEMA}`" in section("The price of isolation")


def test_every_field_and_path_of_the_bench_is_explained() -> None:
    explained = section("What `bench ipc --json` writes")
    known = {f.name for kind in (result.Row, result.Result) for f in fields(kind)} - {"kind"}
    assert not [name for name in sorted({*known, "class"}) if f"`{name}`" not in explained]
    told = section("What the bench shows")
    assert not [name for name in PATHS if f"`{name}`" not in told]
    assert f"measures {len(PATHS)} paths" in told


def test_every_part_of_a_call_is_in_the_table() -> None:
    told = section("Where the time goes")
    assert not [name for name in (*KERNEL_HOPS, *CHANNEL_HOPS) if f"| {name} |" not in told]


def test_channels_are_told_with_their_figures() -> None:
    told = section("Channels")
    assert f"a ring of {SLOTS} slots of {SLOT} bytes" in told
    assert f"after {SELDOM} calls" in told


def test_messages_of_the_troubleshooting_are_real() -> None:
    sources = "".join(
        path.read_text()
        for folder in ("launcher", "ukernel", "hwsim", "servers")
        for path in (ROOT / folder).rglob("*.py")
    )
    quoted = re.findall(r"^\| `([^`]+)` \|", section("Troubleshooting"), re.M)
    assert len(quoted) >= 8
    assert not [message for message in quoted if message not in sources]


# --- the example --------------------------------------------------------------------------------

PATH_LINE = re.compile(r"^# (\S+\.(?:py|yaml))\n")
VERDICT = re.compile(r"^(\w+) +(HELD|BROKEN|UNKNOWN)\b", re.M)


def written(title: str, folder: Path) -> str:
    """The text of a section, whose files are made, each where its first line says."""
    told = section(title)
    for kind, body in BLOCK.findall(told):
        if kind in ("python", "yaml"):
            place = PATH_LINE.match(body)
            assert place, body
            (folder / place[1]).parent.mkdir(exist_ok=True)
            (folder / place[1]).write_text(body)
    return told


@pytest.fixture
def example(tmp_path: Path) -> str:
    return written("Write a server in ten minutes", tmp_path)


@pytest.fixture
def experiment(tmp_path: Path) -> str:
    return written("An experiment in ten lines", tmp_path)


def carry_out(told: str, ukernel: Ukernel) -> None:
    """Run the commands of a text, and compare what they show."""
    (console,) = [body for kind, body in BLOCK.findall(told) if kind == "console"]
    for command, expected in _steps(console):
        _, *words = shlex.split(command)
        shown = ukernel(*words).stdout
        assert _comparable(words[0], shown) == _comparable(words[0], expected), command


def test_example_does_what_it_says(example: str, ukernel: Ukernel) -> None:
    try:
        carry_out(example, ukernel)
    finally:
        ukernel("down", "--all")


def _steps(console: str) -> Iterator[tuple[str, str]]:
    """`$ command` and what is shown below it."""
    for step in re.split(r"^\$ ", console, flags=re.M)[1:]:
        command, _, shown = step.partition("\n")
        yield command, shown


def _comparable(command: str, shown: str) -> list[str]:
    """Lines; without times and process ids where there are any."""
    if command in ("up", "trace"):
        shown = re.sub(r"\d+\.\d+|\d{3,}|\d+(?= us| ms)", "N", shown)
    if command == "chaos":
        shown = re.sub(r"\d+(\.\d+)?", "N", shown)
    if command == "net":  # addresses stay
        shown = re.sub(r"(?:[0-9a-f]{2}:){5}[0-9a-f]{2}", "MAC", shown)
        shown = re.sub(r"(?<![\d.:])\d+(\.\d+)?(?![\d.:])", "N", shown)
    return [" ".join(line.split()) for line in shown.splitlines()]


def test_example_without_its_capability(example: str, ukernel: Ukernel, tmp_path: Path) -> None:
    file = tmp_path / "doors.yaml"
    file.write_text(file.read_text().replace("calls: [turnstile]", "calls: []"))
    (expected,) = [body for kind, body in BLOCK.findall(example) if kind == "text"]
    assert expected.strip() in ukernel("up", "doors.yaml", "--detach", status=1).stderr


def test_example_by_channel(example: str, ukernel: Ukernel, tmp_path: Path) -> None:
    """The same answers, of which the kernel sees how they found their way."""
    written("Channels", tmp_path)
    try:
        ukernel("up", "doors.yaml", "--detach")
        (shown,) = [body for kind, body in BLOCK.findall(example) if kind == "console"]
        (expected,) = [text for line, text in _steps(shown) if line == "ukernel logs visitor"][:1]
        assert ukernel("logs", "visitor").stdout == expected
        calls = ukernel("trace", "--decode").stdout
        assert "Channels.open(" in calls
        assert "Turnstile." not in calls
    finally:
        ukernel("down", "--all")


def test_example_that_begins_a_call(example: str, ukernel: Ukernel, tmp_path: Path) -> None:
    line = "watcher: {run: doors.watcher, calls: [turnstile]}"
    assert f"`{line}`" in example
    file = tmp_path / "doors.yaml"
    file.write_text(f"{file.read_text()}  {line}\n")
    try:
        ukernel("up", "doors.yaml", "--detach")
        shown = until(lambda: ukernel("logs", "watcher").stdout)
        assert f"`{shown.strip()}`" in example
    finally:
        ukernel("down", "--all")


@needs("curl")
@pytest.mark.skipif(bool(no_own_network()), reason=no_own_network())
def test_network_does_what_it_says(ukernel: Ukernel, tmp_path: Path) -> None:
    try:
        carry_out(written("A web server without root", tmp_path), ukernel)
    finally:
        ukernel("down", "--all")


def test_system_with_virtual_machines_is_right(tmp_path: Path) -> None:
    written("Two guests on one disk", tmp_path)
    assert load_system(tmp_path / "tenants.yaml").manifest.vms.keys() == {"vm-a", "vm-a2", "vm-b"}


def test_experiment_does_what_it_says(experiment: str, ukernel: Ukernel) -> None:
    carry_out(experiment, ukernel)


def test_experiment_without_kept_state(experiment: str, ukernel: Ukernel, tmp_path: Path) -> None:
    file = tmp_path / "keys.yaml"
    file.write_text(file.read_text().replace("state: persistent", "state: stateless"))
    (expected,) = [body for kind, body in BLOCK.findall(experiment) if kind == "text"]
    shown = ukernel("chaos", "run", "keys-die.yaml", status=1).stdout
    assert VERDICT.findall(expected) == VERDICT.findall(shown)


if __name__ == "__main__":
    README.write_text(with_tables(text()))

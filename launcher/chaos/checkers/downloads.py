"""downloads: what came over the network came whole, and over one connection."""

from __future__ import annotations

from collections.abc import Sequence

from launcher.chaos.checkers.common import Params, judged
from launcher.chaos.evidence import INFO, OK, Connection, Evidence, Operation, Transfer, Verdict
from launcher.words import count

DOWNLOAD = "download"


def downloads_complete(evidence: Evidence, params: Params) -> Verdict:
    """Every download came to its end and brought what its file holds; there were at least
    `downloads` (1). One in doubt (INFO) was under way when the power went, and counts for nothing.
    """
    every = [op for op in downloads(evidence) if op.outcome != INFO]
    done = [op for op in every if op.outcome == OK]
    broken = [f"{_name(op)}: {op.outcome} {op.error}".rstrip() for op in every if op.outcome != OK]
    broken += [
        f"{_name(op)} brought {op.value[:16]}, not {right[:16]}"
        for op in done
        if (right := evidence.prepared.get(op.client)) is not None and op.value != right
    ]
    unknown = [
        f"nobody has said what the file of {client} holds"
        for client in sorted({op.client for op in every} - evidence.prepared.keys())
    ]
    if len(done) < (least := params.get("downloads", 1)):
        unknown.append(f"there had to be at least {least}")
    moved = sum(each.moved_bytes for each in evidence.transfers)
    text = f"{len(done)} of {count(len(every), DOWNLOAD)} complete, {moved / 1e6:.1f} MB in all"
    figures = {"downloads": len(every), "complete": len(done), "moved_bytes": moved}
    return judged("downloads_complete", text, broken, unknown, figures)


def same_connection(evidence: Evidence, params: Params) -> Verdict:
    """By the frames of its card, each complete download is one connection: while it lasted one SYN
    came, from the client's port, and all that it brought was acknowledged on that connection. What
    the client says of itself is its port, and how much came."""
    done = [op for op in downloads(evidence) if op.outcome == OK]
    transfers = {(each.client, each.number): each for each in evidence.transfers}
    broken, lived = list[str](), list[Connection]()
    unknown = [evidence.unheard] if evidence.unheard else []
    for op in done:
        transfer = transfers.get((op.client, op.number))
        if transfer is None:
            unknown.append(f"{_name(op)} has not said from where it came")
            continue
        found = opened(evidence, op, transfer)
        if not evidence.unheard and (why := _wrong(found, transfer)):
            broken.append(f"{_name(op)} {why}")
        lived += found
    outlived = [len(survived(each, evidence)) for each in lived]
    if not done:
        unknown.append("no download was complete")
    elif evidence.injections and not any(outlived):
        unknown.append("no fault landed while one of them was open")
    faults = len({number for each in lived for number in survived(each, evidence)})
    most = max(outlived, default=0)
    text = (
        f"{count(len(done), DOWNLOAD)}, {count(len(lived), 'connection')}; "
        f"{count(faults, 'fault')} while one was open, at most {most} in one"
    )
    figures = {
        "downloads": len(done),
        "connections": len(lived),
        "faults": faults,
        "most_faults": most,
    }
    return judged("same_connection", text, broken, unknown, figures)


def downloads(evidence: Evidence) -> list[Operation]:
    """All that were begun."""
    return [op for op in evidence.history if op.op == DOWNLOAD]


def opened(evidence: Evidence, op: Operation, transfer: Transfer) -> list[Connection]:
    """The connections that were opened while a download lasted: its own, and those of nobody."""
    ports = {(each.device, each.port) for each in evidence.transfers}
    return [
        each
        for each in evidence.connections
        if each.device == transfer.device and op.begun_ns <= each.opened_ns <= op.ended_ns
        if each.port == transfer.port or (each.device, each.port) not in ports
    ]


def survived(connection: Connection, evidence: Evidence) -> list[int]:
    """The numbers of the faults that landed while it was open."""
    return [
        each.number
        for each in evidence.injections
        if connection.opened_ns < each.landed_ns < connection.ended_ns
    ]


def _name(op: Operation) -> str:
    return f"{op.op} {op.number} of {op.client}"


def _wrong(opened: Sequence[Connection], transfer: Transfer) -> str:
    if len(opened) != 1:
        return f"opened {len(opened)} connections"
    if opened[0].port != transfer.port:
        return f"came to port {transfer.port}, and the connection was that of {opened[0].port}"
    if (acked := opened[0].acked_bytes) < transfer.moved_bytes:
        return f"brought {transfer.moved_bytes} bytes, and its connection {acked}"
    return ""

"""errors: what a caller can get instead of a result.

Three kinds of wrong are kept apart. An Answer is expected and typed; a fault (`CallError`) says
that the call could not be made or its fate; any other exception in a server is a bug, kills the
process and is the supervisor's business.
"""

from __future__ import annotations

from enum import IntEnum


class Code(IntEnum):
    """The status of a reply. Everything but OK and ANSWER is said by the kernel or the library."""

    OK = 0
    ANSWER = 1  # the interface's own refusal: body [name, text]
    E_DENIED = 2  # no such capability for this task, or not this right
    E_REVOKED = 3  # the capability was valid and has been taken back
    E_STALE_LIFE = 4  # said by or about a life that has ended
    E_DEADLINE = 5  # the deadline passed first
    E_OVERLOAD = 6  # a quota of the caller is used up
    E_DEADLOCK = 7  # the call would close a cycle of waiting tasks
    E_DEAD_NOTRUN = 8  # the server died before it saw the call
    E_DEAD_UNKNOWN = 9  # the server died while it had the call
    E_UNAVAILABLE = 10  # the server is stopped or given up
    E_POISON = 11  # two lives of the server died of this request
    E_PROTO = 12  # malformed, or not what the interface says
    E_NO_MEMORY = 13  # the machine under the kernel has no memory or descriptors left


class CallError(Exception):
    """A call that brought no answer; `code` says why, `detail` what the kernel knows of it."""

    code = Code.E_PROTO

    def __init__(self, text: str, detail: dict[str, object] | None = None) -> None:
        super().__init__(text)
        self.detail = detail or {}


class Denied(CallError):
    code = Code.E_DENIED


class Revoked(CallError):
    code = Code.E_REVOKED


class StaleLife(CallError):
    code = Code.E_STALE_LIFE


class DeadlinePassed(CallError):
    code = Code.E_DEADLINE


class Overload(CallError):
    code = Code.E_OVERLOAD


class Deadlock(CallError):
    code = Code.E_DEADLOCK


class DeadNotRun(CallError):
    code = Code.E_DEAD_NOTRUN


class DeadUnknown(CallError):
    code = Code.E_DEAD_UNKNOWN


class Unavailable(CallError):
    code = Code.E_UNAVAILABLE


class Poison(CallError):
    code = Code.E_POISON


class Protocol(CallError):
    code = Code.E_PROTO


class NoMemory(CallError):
    code = Code.E_NO_MEMORY


BY_CODE: dict[int, type[CallError]] = {kind.code: kind for kind in CallError.__subclasses__()}


class Answer(Exception):
    """Base of what an interface lists in `answers`: an outcome its callers are expected to handle.

    Crosses the border as its class name and its text.
    """

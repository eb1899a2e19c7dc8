"""interface: one annotated class is the stub, the dispatcher, the manual and the fingerprint.

    class Clock(Interface):
        "What time it is."
        @op(1, idempotent=True)
        def now(self) -> u64: "Nanoseconds since boot."

Arguments travel as one msgpack array in the order of the parameters. Three kinds of annotation
are more than data: `Lent` (a window of the sender's memory), an Interface class (a capability
that invokes it), and a NamedTuple (packed as an array, typed again on arrival).
"""

from __future__ import annotations

from _blake2 import blake2b  # hashlib would load OpenSSL, and each life of a task would wait
from collections.abc import Callable
from functools import cache
from typing import (
    Annotated,
    Any,
    ClassVar,
    NamedTuple,
    TypeVar,
    get_args,
    get_origin,
    get_type_hints,
)

from ukernel.abi.errors import Answer
from ukernel.abi.wire import Malformed, unpack

FIRST_RESERVED = 0xFF00  # op numbers from here are the library's own, see `channels`


class Bits(NamedTuple):
    """An unsigned integer of so many bits."""

    width: int


u8 = Annotated[int, Bits(8)]
u16 = Annotated[int, Bits(16)]
u32 = Annotated[int, Bits(32)]
u64 = Annotated[int, Bits(64)]


class Lent(NamedTuple):
    """A window of a region of the sender, lent with a call: `length` bytes from `offset`.

    The loan stands until its owner revokes it or dies; lending the same region again costs nothing.
    """

    token: bytes
    offset: int
    length: int


class Param(NamedTuple):
    name: str
    kind: Any
    check: Callable[[Any], bool]


class Operation(NamedTuple):
    """What `@op` and the annotations say of one method."""

    name: str
    number: int
    idempotent: bool
    posted: bool
    params: tuple[Param, ...]
    checks: tuple[Callable[[Any], bool], ...]  # of them
    result: Any
    summary: str
    plain_params: bool  # every argument is the same on both sides of the border
    plain_result: bool
    lends: bool  # memory, and no other capability
    passes: bool  # capabilities other than lent memory, in either direction

    def arguments(self, body: bytes) -> list[Any]:
        """The plain arguments in a packed body. Raises Malformed when they are not what is said."""
        values, checks = unpack(body), self.checks
        if type(values) is not list or len(values) != len(checks):
            raise Malformed(f"{self.name} takes {len(checks)} arguments")
        for at, value in enumerate(values):
            if not checks[at](value):
                raise Malformed(f"{self.params[at].name} is not what {self.signature} says")
        return values

    @property
    def signature(self) -> str:
        params = ", ".join(f"{p.name}: {type_name(p.kind)}" for p in self.params)
        return f"{self.name}({params}) -> {type_name(self.result)}"


F = TypeVar("F", bound=Callable[..., Any])


def op(number: int, *, idempotent: bool = False, posted: bool = False) -> Callable[[F], F]:
    """Give a method its number on the wire. Numbers are never used again for another method.

    `idempotent`: doing it twice is doing it once, so a stub may repeat it after a crash.
    `posted`: the caller goes on without an answer, as a bus posts its writes.
    """

    def mark(method: F) -> F:
        method.__dict__["op"] = (number, idempotent, posted)
        return method

    return mark


class Interface:
    """Base of every interface. `ops` and `answers` are what the rest of the system works from."""

    ops: ClassVar[dict[int, Operation]] = {}
    answers: ClassVar[tuple[type[Answer], ...]] = ()
    badge = 0  # of an object that a server has exported
    of_kernel: ClassVar[bool] = False  # its operations are system calls, served by the kernel

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        own = [_operation(name, fn) for name, fn in vars(cls).items() if hasattr(fn, "op")]
        if not own:
            return
        numbers = [operation.number for operation in own]
        if len(set(numbers)) != len(numbers):
            raise TypeError(f"{cls.__name__}: an op number is used twice: {sorted(numbers)}")
        cls.ops = {operation.number: operation for operation in own}


def interface_of(cls: type[Interface]) -> type[Interface]:
    """The class that declared the operations which `cls` implements."""
    return next(base for base in cls.__mro__ if "ops" in vars(base))


def fingerprint(interface: type[Interface]) -> str:
    """Eight hex digits that change whenever the interface would be spoken differently."""
    declared: Any = interface_of(interface)
    return _fingerprint(declared)


@cache
def _fingerprint(declared: Any) -> str:
    text = ";".join(f"{o.number}:{o.signature}" for _, o in sorted(declared.ops.items()))
    return blake2b(f"{declared.__name__}|{text}".encode(), digest_size=4).hexdigest()


def manual(interface: type[Interface]) -> str:
    """The manual page of an interface, as Markdown."""
    rows = [
        f"# {interface.__name__} ({fingerprint(interface)})",
        "",
        _text(interface),
        "",
        "| op | call | may be repeated | meaning |",
        "|---|---|---|---|",
    ]
    rows += [
        f"| {o.number} | `{o.signature}` | {'yes' if o.idempotent else 'no'} | {o.summary} |"
        for _, o in sorted(interface.ops.items())
    ]
    if interface.answers:
        rows += ["", "Answers other than a result:", ""]
        rows += [f"- `{a.__name__}`: {_text(a)}" for a in interface.answers]
    return "\n".join(rows)


def _text(documented: Any) -> str:
    """A docstring without its indentation."""
    return "\n".join(line.strip() for line in (documented.__doc__ or "").strip().splitlines())


def is_interface(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Interface)


def type_name(kind: Any) -> str:
    """How a manual page spells an annotation."""
    if kind is type(None) or kind is None:
        return "None"
    if get_origin(kind) is Annotated:
        return f"u{get_args(kind)[1].width}"
    if get_origin(kind) is list:
        return f"list[{type_name(get_args(kind)[0])}]"
    if is_interface(kind):
        return f"cap[{kind.__name__}]"
    fields = getattr(kind, "__annotations__", {}) if _is_record(kind) and kind is not Lent else {}
    if fields:
        hints = get_type_hints(kind, include_extras=True)
        return f"{kind.__name__}({', '.join(f'{n}: {type_name(t)}' for n, t in hints.items())})"
    return str(kind.__name__)


def checker(kind: Any) -> Callable[[Any], bool]:
    """A predicate: is this unpacked msgpack value what the annotation `kind` promises?"""
    if get_origin(kind) is Annotated:
        limit = 1 << get_args(kind)[1].width
        return lambda v: type(v) is int and 0 <= v < limit
    if get_origin(kind) is list:
        inner = checker(get_args(kind)[0])
        return lambda v: type(v) is list and all(map(inner, v))
    if kind in (int, str, bytes, bool, float, type(None)):
        return lambda v: type(v) is kind
    if is_interface(kind):
        return checker(u8)  # the index among the capabilities of the message
    if kind is Lent:
        return _row([checker(u8), checker(u64), checker(u64)])
    if _is_record(kind):
        return _row([checker(t) for t in get_type_hints(kind, include_extras=True).values()])
    raise TypeError(
        f"{kind!r} cannot cross a process border: use u8..u64, int, float, bool, str, "
        "bytes, list[...], a NamedTuple, Lent or an Interface"
    )


def _row(fields: list[Callable[[Any], bool]]) -> Callable[[Any], bool]:
    return lambda v: (
        type(v) is list
        and len(v) == len(fields)
        and all(check(f) for check, f in zip(fields, v, strict=True))
    )


def typed(kind: Any, value: Any) -> Any:
    """A checked plain value as its annotation: NamedTuples get their names back."""
    if get_origin(kind) is list:
        inner = get_args(kind)[0]
        return [typed(inner, v) for v in value] if _is_record(inner) else value
    if kind is not Lent and _is_record(kind):
        hints = get_type_hints(kind, include_extras=True)
        return kind(*(typed(t, v) for t, v in zip(hints.values(), value, strict=True)))
    return value


def is_plain(kind: Any) -> bool:
    """Whether `typed` changes nothing about a value of this kind, and no capability is in it."""
    inner = get_args(kind)[0] if get_origin(kind) is list else kind
    return not _is_record(inner) and not is_interface(inner)


def _is_record(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, tuple) and hasattr(kind, "_fields")


PLAIN = {kind.__name__: kind for kind in (int, str, bytes, bool, float)} | {"None": type(None)}


def _hints(method: Callable[..., Any]) -> dict[str, Any]:
    """Annotations by parameter, as `get_type_hints` has them. Most are one name: those are looked
    up, which is much quicker than evaluating them, and every process does it for every method."""
    names = method.__globals__
    try:
        told = method.__annotations__.items()
        return {param: names[text] if text in names else PLAIN[text] for param, text in told}
    except (KeyError, TypeError):
        return get_type_hints(method, include_extras=True)


def _operation(name: str, method: Callable[..., Any]) -> Operation:
    hints = _hints(method)
    if "return" not in hints:
        raise TypeError(f"{method.__qualname__}: annotate the result (None when there is none)")
    result = hints.pop("return")
    if not is_interface(result):
        checker(result)
    number, idempotent, posted = method.__dict__["op"]
    params = tuple(Param(n, kind, checker(kind)) for n, kind in hints.items())
    summary = " ".join((method.__doc__ or "").split())
    plain = all(is_plain(param.kind) for param in params), is_plain(result)
    lends = any(param.kind is Lent for param in params)
    passes = is_interface(result) or any(is_interface(param.kind) for param in params)
    facts = *plain, lends, passes
    checks = tuple(param.check for param in params)
    return Operation(name, number, idempotent, posted, params, checks, result, summary, *facts)

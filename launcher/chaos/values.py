"""values: what stands behind the keys of an experiment file: durations, targets, links."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field
from pydantic_core import PydanticCustomError

from ukernel.abi.durations import seconds_of
from ukernel.abi.manifest import NAME_PATTERN, Listed

ANY = "*"  # as a target: every server that it makes sense for
NEVER = "never"  # as an interval of a sweep
ARROW = "->"
LINK_PATTERN = f"{NAME_PATTERN[:-1]}{ARROW}{NAME_PATTERN[1:]}"

PATH_PATTERN = "^/.+$"
IPV4_PATTERN = r"^\d{1,3}(\.\d{1,3}){3}$"
URL_PATTERN = "^http://[^/ ]+/[^ ]+$"

MAX_S = 86_400  # a day; nobody waits longer for an experiment


def parse_moment(value: Any) -> float:
    """Seconds of `500ms`, `2s`, `1m` or a number of seconds, to the microsecond."""
    return _seconds(value, "expected a duration such as 500ms, 2s or 1m")


def parse_span(value: Any) -> float:
    """The same, and more than nothing."""
    return _above_zero(parse_moment(value))


def parse_interval(value: Any) -> float:
    """The same, or 0 for `never`."""
    if value == NEVER:
        return 0.0
    return _above_zero(_seconds(value, f"expected a duration such as 500ms, 2s or 1m, or {NEVER}"))


def _seconds(value: Any, wanted: str) -> float:
    seconds = seconds_of(value)
    if seconds is None:
        raise PydanticCustomError("duration", wanted)
    if not 0 <= seconds <= MAX_S:
        raise PydanticCustomError("duration", "expected a duration from 0 to a day")
    return round(seconds, 6)


def _above_zero(seconds: float) -> float:
    if seconds == 0:
        raise PydanticCustomError("duration", "expected a duration above 0")
    return seconds


def parse_targets(value: Any) -> list[str]:
    """`disk`, `[disk, fs]` or `*` as a list."""
    items = value if isinstance(value, list) else [value]
    if not items or not all(isinstance(item, str) for item in items):
        raise PydanticCustomError("targets", "expected a server's name, a list of them, or '*'")
    if ANY in items and len(items) > 1:
        raise PydanticCustomError("targets", "expected names or '*', not both")
    return items


def one_of(names: Sequence[str]) -> AfterValidator:
    """A check for names that the ABI lists: a Literal could only repeat them."""

    wanted = f"expected one of {', '.join(map(repr, names))}"

    def check(value: str) -> str:
        if value not in names:
            raise PydanticCustomError("one_of", wanted)
        return value

    return AfterValidator(check)


def _some_text(value: str) -> str:
    if not value.strip():
        raise PydanticCustomError("text", "expected some text")
    return value


def link_ends(link: str) -> tuple[str, str]:
    """The caller and the callee of `fs->disk`."""
    caller, _, callee = link.partition(ARROW)
    return caller, callee


def keys_of(model: type[BaseModel], without: Iterable[str] = ()) -> list[str]:
    """The keys that a mapping of this kind may have in the file."""
    keys = [field.alias or name for name, field in model.model_fields.items()]
    return [key for key in keys if key not in without]


Moment = Annotated[float, BeforeValidator(parse_moment)]  # seconds
Span = Annotated[float, BeforeValidator(parse_span)]  # seconds
Interval = Annotated[float, BeforeValidator(parse_interval)]  # seconds; 0: never
Probability = Annotated[float, Field(gt=0, le=1)]
Targets = Annotated[Listed[str], BeforeValidator(parse_targets)]
Link = Annotated[str, Field(pattern=LINK_PATTERN)]
Text = Annotated[str, AfterValidator(_some_text)]

"""fields: what the parts of a system file are made of: names, sizes, lists, and how each is said
to be wrong. Nothing here does I/O.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from ukernel.abi.durations import DURATION, seconds_of
from ukernel.abi.services import SECTOR
from ukernel.abi.sizes import SIZE, bytes_of

NAME_PATTERN = "^[a-z][a-z0-9-]{0,31}$"
MODULE_PATTERN = r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*$"
FILE_PATTERN = r"^[^\x00]+$"

T = TypeVar("T")

MAX_SIZE = 1 << 60  # bytes; a file offset (off_t) holds it with room for arithmetic
MAX_MS = 86_400_000  # a day
MAX_SEED = (1 << 64) - 1
MAX_BADGE = (1 << 32) - 1  # of the objects that a system file gives
SCALARS = (str, int, float, bool)


def parse_size(value: Any) -> int:
    """Bytes of `4096`, `"16KiB"` and so on."""
    found = bytes_of(value)
    if found is None:
        raise PydanticCustomError("size", "expected a size such as 64MiB or 4096")
    return found


def _arg(value: Any) -> Any:
    """One refusal for an argument of the wrong type, instead of one per member of the union."""
    items = value if isinstance(value, list) else [value]
    if not all(isinstance(item, SCALARS) for item in items):
        raise PydanticCustomError(
            "arg", "expected text, a number, true or false, or a list of them"
        )
    return value


def distinct(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if len(set(values)) != len(values):
        raise PydanticCustomError("distinct", "expected each item once")
    return values


def some(values: T) -> T:
    """After the items were checked; `min_length` would count only the good ones and add a lie."""
    if not values:
        raise PydanticCustomError("some", "expected at least one item")
    return values


def parse_ms(value: Any) -> int:
    """Whole milliseconds of `500ms`, `2s`, `1m` or a number of seconds."""
    seconds = seconds_of(value)
    if seconds is None:
        raise PydanticCustomError("duration", "expected a duration such as 500ms, 2s or 1m")
    return round(max(-1.0, min(seconds * 1000, MAX_MS + 1)))  # what else is wrong, a Field says


Listed = Annotated[tuple[T, ...], Field(strict=False), AfterValidator(distinct)]
Name = Annotated[str, Field(pattern=NAME_PATTERN)]
SizeText = Annotated[str, Field(pattern=f"^{SIZE.pattern}$")]
AS_SIZE = BeforeValidator(parse_size, json_schema_input_type=int | SizeText)
Size = Annotated[int, Field(gt=0, le=MAX_SIZE), AS_SIZE]
DiskSize = Annotated[int, Field(gt=0, le=MAX_SIZE, multiple_of=SECTOR), AS_SIZE]
Scalar = str | int | float | bool
Arg = Annotated[Scalar | list[Scalar], BeforeValidator(_arg, json_schema_input_type=Any)]
DurationText = Annotated[str, Field(pattern=f"^{DURATION.pattern}$")]
AS_MS = BeforeValidator(parse_ms, json_schema_input_type=float | DurationText)
DurationMs = Annotated[int, Field(gt=0, le=MAX_MS), AS_MS]
Core = Annotated[int, Field(ge=0)]
Badge = Annotated[int, Field(ge=0, le=MAX_BADGE)]
Probability = Annotated[float, Field(ge=0, le=1)]
Milliseconds = Annotated[float, Field(ge=0, le=60_000)]


class Part(BaseModel):
    """What every mapping of a system file has in common: no unknown keys, nothing converted."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )

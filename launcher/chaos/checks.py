"""checks: what an experiment may ask for: probes of the steady state, checkers of the evidence."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

from launcher.chaos.values import Span
from ukernel.abi.manifest import Listed, Name, Part

NAME_KEY = "checker"  # where the name of a checker stands once it is read
Ms = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Whole = Annotated[int, Field(ge=0)]


class Probe(Part):
    """What every probe has: a look at the system before the first fault, and after the last."""

    probe: str
    """Its name."""


class OfClient(Probe):
    """A probe of what one client of the workload sees."""

    client: Name
    """The client."""


class AllReady(Probe):
    """Every server that runs from boot is READY."""

    probe: Literal["all_ready"]


class P99(OfClient):
    """99 of 100 operations of a client take no longer than this."""

    probe: Literal["p99_ms"]
    max: Ms
    """Milliseconds."""


class Availability(OfClient):
    """At least this part of a client's operations is answered."""

    probe: Literal["availability"]
    min: Fraction
    """0 to 1."""


class NoFaults(Probe):
    """No task has broken a rule of the kernel, and no device's grant was overstepped."""

    probe: Literal["no_faults"]


PROBES: dict[str, type[Probe]] = {
    "all_ready": AllReady,
    "p99_ms": P99,
    "availability": Availability,
    "no_faults": NoFaults,
}
AnyProbe = Annotated[AllReady | P99 | Availability | NoFaults, Field(discriminator="probe")]


class Predict(Part):
    """The blast radius as the author sees it: servers, and clients of the workload."""

    down: Listed[Name] = ()
    """Those that die."""
    degraded: Listed[Name] = ()
    """Those that feel it."""
    untouched: Listed[Name] = ()
    """Those that must not."""


class Checker(Part):
    """What every checker has. In a file it is `NAME` or `{NAME: {PARAMETER: VALUE}}`."""

    checker: str
    """Its name."""

    needs_clients: ClassVar[bool] = False
    """Whether it looks at the history of the workload."""

    def parameters(self) -> dict[str, Any]:
        """As the checker takes them: `{"every_s": 2.0}`. Without those that have no value."""
        return self.model_dump(mode="json", exclude_none=True, exclude={NAME_KEY})


class OneOutcomePerCall(Checker):
    """Every call ends in exactly one outcome."""

    checker: Literal["one_outcome_per_call"]
    needs_clients = True


class AckedWritesDurable(Checker):
    """What was acknowledged is there at the end, and after the next boot."""

    checker: Literal["acked_writes_durable"]
    needs_clients = True


class NoDuplicateEffect(Checker):
    """Nothing was done twice."""

    checker: Literal["no_duplicate_effect"]
    needs_clients = True


class RecoveryMs(Checker):
    """From a death to the first good reply it takes no longer than this."""

    checker: Literal["recovery_ms"]
    p50: Ms | None = None
    """Milliseconds, in half of the cases."""
    p99: Ms | None = None
    """Milliseconds, in 99 of 100."""


class Bystanders(Checker):
    """Clients marked `bystander: true` notice nothing."""

    checker: Literal["bystanders"]
    needs_clients = True
    availability: Fraction = 1.0
    """The part of their operations that is answered, 0 to 1."""
    p99_ms: Ms | None = None
    """Milliseconds that 99 of 100 take at most."""


class BlastRadiusAsPredicted(Checker):
    """Who was down, who felt it and who did not: as `predict` says, or the graph of calls."""

    checker: Literal["blast_radius_as_predicted"]


class NoLeak(Checker):
    """The system is as large afterwards as it was before."""

    checker: Literal["no_leak"]
    fds: Whole = 0
    """Descriptors that a process may have more."""
    rss_mib: Whole = 8
    """MiB of memory that a process may have more."""
    caps: Whole = 8
    """Capabilities that the kernel may hold more: a region lent to a next life is one."""


class KernelAlive(Checker):
    """The kernel lives."""

    checker: Literal["kernel_alive"]


class Failed(Checker):
    """These servers were given up, and no others."""

    checker: Literal["failed"]
    exactly: Listed[Name] = ()
    """Their names."""


class MinLanded(Checker):
    """At least so many faults really happened."""

    checker: Literal["min_landed"]
    faults: Annotated[int, Field(ge=1)] = 1
    """How many."""


class ThroughputLoss(Checker):
    """A sweep's client moves at most so much less than without kills."""

    checker: Literal["throughput_loss"]
    every_s: Span | None = Field(default=None, alias="every")
    """While its target is killed so often; without it, at each interval of the sweep."""
    max_percent: Annotated[float, Field(ge=0, le=100)]
    """How much less."""


class WrongDataSeen(Checker):
    """Data that a fault changed was noticed, and not passed on in silence."""

    checker: Literal["wrong_data_seen"]
    needs_clients = True


class DownloadsComplete(Checker):
    """Every download came to its end, and brought the bytes that are there."""

    checker: Literal["downloads_complete"]
    needs_clients = True
    downloads: Annotated[int, Field(ge=1)] = 1
    """How many there must be at least."""


class SameConnection(Checker):
    """Every download came over one TCP connection, as the frames of the card show."""

    checker: Literal["same_connection"]
    needs_clients = True


class GuestGap(Checker):
    """The heartbeat of a bystander's virtual machine has no longer gaps under faults than before
    them, and nothing of it is missing."""

    checker: Literal["guest_gap"]
    needs_clients = True
    times: Annotated[float, Field(ge=1)] = 1.5
    """How many times as long the longest gap may be as that of `calm`."""


class GuestsRight(Checker):
    """Guests of virtual machines ran all the time, and saw no wrong byte and no error."""

    checker: Literal["guests_right"]
    needs_clients = True


class BesideDies(Checker):
    """In the placement `beside`, one kill ends everybody in the victim's process, and with them
    each virtual machine that a bystander looks at."""

    checker: Literal["beside_dies"]


CHECKERS: dict[str, type[Checker]] = {
    "one_outcome_per_call": OneOutcomePerCall,
    "acked_writes_durable": AckedWritesDurable,
    "no_duplicate_effect": NoDuplicateEffect,
    "recovery_ms": RecoveryMs,
    "bystanders": Bystanders,
    "blast_radius_as_predicted": BlastRadiusAsPredicted,
    "no_leak": NoLeak,
    "kernel_alive": KernelAlive,
    "failed": Failed,
    "min_landed": MinLanded,
    "throughput_loss": ThroughputLoss,
    "wrong_data_seen": WrongDataSeen,
    "downloads_complete": DownloadsComplete,
    "same_connection": SameConnection,
    "guest_gap": GuestGap,
    "guests_right": GuestsRight,
    "beside_dies": BesideDies,
}


def parse_checker(value: Any) -> dict[str, Any]:
    """`no_leak` and `{no_leak: {fds: 0}}` as `{checker: no_leak, fds: 0}`."""
    name: Any = value
    parameters: Any = {}
    if isinstance(value, dict) and len(value) == 1:
        ((name, parameters),) = value.items()
    if not isinstance(name, str) or not isinstance(parameters, dict) or NAME_KEY in parameters:
        raise PydanticCustomError(
            "checker", "expected a checker's name or one {name: {parameter: value}}"
        )
    return {NAME_KEY: name, **parameters}


AnyChecker = Annotated[
    OneOutcomePerCall | AckedWritesDurable | NoDuplicateEffect | RecoveryMs | Bystanders
    | BlastRadiusAsPredicted | NoLeak | KernelAlive | Failed | MinLanded | ThroughputLoss
    | WrongDataSeen | DownloadsComplete | SameConnection | GuestGap | GuestsRight | BesideDies,
    Field(discriminator=NAME_KEY),
    BeforeValidator(parse_checker),
]  # fmt: skip

"""supervision: what a system file says about deaths and hangs."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ukernel.abi.fields import Part


class Backoff(Part):
    """How long a server that dies again and again waits for its next life. The first death is
    repaired at once; after 60 s of READY a death counts as a first one again."""

    first_ms: Annotated[float, Field(ge=0)] = 50.0
    """Milliseconds before the second restart; 0 restarts at once, always."""
    factor: Annotated[float, Field(ge=1)] = 2.0
    """How much longer each further one waits."""
    max_ms: Annotated[float, Field(ge=0)] = 30_000.0
    """Milliseconds at most."""
    jitter: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Share of the wait that chance adds or takes, so that servers do not come back in step."""


class Heartbeat(Part):
    """How a hang is told from work: a ping that the request loop itself has to answer."""

    period_ms: Annotated[float, Field(ge=0)] = 100.0
    """Milliseconds between two pings; 0 watches for no hangs."""
    misses: Annotated[int, Field(ge=1)] = 3
    """Pings without a sign of life after which the server is killed as hung."""
    max_call_s: Annotated[float, Field(gt=0)] | None = None
    """Seconds that a call may take without `progress`; without it, any time."""


class Restart(Part):
    """What happens after a death. Beyond `max_restarts` in `within_s` the server has failed."""

    when: Literal["crashed", "always", "never"] = "crashed"
    """`crashed`: after any exit but 0; `always`: after every exit; `never`."""
    max_restarts: Annotated[int, Field(ge=0)] = 5
    """Restarts within `within_s` before the server is given up."""
    within_s: Annotated[float, Field(gt=0)] = 10.0
    """Seconds in which `max_restarts` are counted."""
    strategy: Literal["one_for_one", "rest_for_one", "one_for_all"] = "one_for_one"
    """Who starts again with it, of its group: nobody, those started after it, or all."""
    backoff: Backoff = Backoff()
    """How long to wait before a restart."""
    ready_timeout_s: Annotated[float, Field(gt=0)] = 10.0
    """Seconds from its start until it must be READY; then it is killed."""

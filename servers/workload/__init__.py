"""workload: clients of an experiment. Each calls one server over and over and keeps a history."""

from servers.workload.session import main

__all__ = ["main"]

"""download: a file of the system, fetched by a client that is outside it: see `outside`.

As a task this run makes the file, and does nothing else.
"""

from __future__ import annotations

from servers.workload.bulk import BulkRun


class DownloadRun(BulkRun):
    defaults = BulkRun.defaults | {
        "size": 64 << 20,  # bytes
        "url": "",  # where the file is to be had
        "device": "",  # the card whose other end the client is at
        "times": 0,  # how many; 0: as many as there is time for
        "timeout_ms": 60_000,
    }

    def step(self) -> bool:
        raise NotImplementedError("who downloads is no task")

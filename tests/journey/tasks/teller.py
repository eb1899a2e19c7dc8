"""teller: adds each number that it reads to `tally`, as so many ones, and says the sum then."""

import sys

from tests.journey.tasks.tally import Tally
from ukernel.abi.errors import CallError
from ukernel.lib.stub import connect

tally = connect(Tally, "tally")
for line in sys.stdin:
    for _ in range(int(line)):
        tally.add(1)
    try:
        print(tally.total(), flush=True)
    except CallError as error:
        print(type(error).__name__, flush=True)

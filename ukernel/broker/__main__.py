"""python -m ukernel.broker DIR CONTROL_FD: the kernel of one system; started by the launcher."""

import sys
from pathlib import Path

from ukernel.broker.shell import main

main(Path(sys.argv[1]), int(sys.argv[2]))

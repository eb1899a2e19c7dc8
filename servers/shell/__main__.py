"""python -m servers.shell COMMAND ...: run by the launcher, as `ukernel fs` and the demo ask."""

import sys

from servers.shell import main

sys.exit(main(sys.argv[1:]))

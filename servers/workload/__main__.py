"""python -m servers.workload RUN CLIENT key=value ...: run by the launcher, for an experiment."""

import sys

from servers.workload import main

sys.exit(main(sys.argv[1:]))

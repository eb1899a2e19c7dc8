"""python -m servers.wget [-O FILE] URL: run by the launcher when somebody asks."""

import sys

from servers.wget import main

sys.exit(main(sys.argv[1:]))

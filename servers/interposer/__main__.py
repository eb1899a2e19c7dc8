"""python -m servers.interposer: the interposer; started by the launcher."""

from servers.interposer.task import main

main()

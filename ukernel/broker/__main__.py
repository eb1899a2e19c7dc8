"""python -m ukernel.broker DIR CONTROL_FD: the kernel of one system; started by the launcher."""

from ukernel.broker.shell import main

main()

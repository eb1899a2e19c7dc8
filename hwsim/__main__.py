"""python -m hwsim: the simulated machine of one system; started by the launcher."""

from hwsim import main

main()

"""python -m servers.switch: the switch; started by the launcher."""

from servers.switch import Switch

Switch.run()

"""exits: how a process tells its supervisor why it leaves. Any other status but 0 is a crash."""

OUT_OF_MEMORY = 124  # it met its `memory:` limit
NO_RESTART = 125  # the next life would meet the same: leave it

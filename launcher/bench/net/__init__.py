"""net: what `ukernel bench net` is made of: the same client downloads from several TCP stacks."""

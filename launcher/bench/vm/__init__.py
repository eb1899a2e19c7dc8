"""vm: `ukernel bench vm`: what a virtual machine costs, and how soon it is there."""

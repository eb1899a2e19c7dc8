"""commands: what `ukernel` can do, one module per kind of thing; `launcher.cli` lists them."""

"""broken_interface: a user's interface module that cannot be imported."""

raise RuntimeError("no luck today")

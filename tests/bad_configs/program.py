"""program: what the broken system files run. Reading a system file must never import it."""

raise SystemExit("a server's module was imported by reading a system file")

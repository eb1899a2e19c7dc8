"""Servers that tests of the launcher start."""

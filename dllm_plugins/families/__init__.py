"""Families: how each kind of checkpoint works. One family a file."""

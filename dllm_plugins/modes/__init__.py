"""Reference samplers: each family's own way of decoding, as a program. One family a file."""

"""Golden data of the reference implementations, run through the public API and compared."""

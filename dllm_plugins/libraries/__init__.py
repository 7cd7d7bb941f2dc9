"""What we take of other libraries, each kind in one place."""

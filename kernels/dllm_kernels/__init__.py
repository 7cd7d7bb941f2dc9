"""Fast kernels for block decoding."""

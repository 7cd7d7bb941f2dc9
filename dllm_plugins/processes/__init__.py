"""Noise processes: what an open position holds."""

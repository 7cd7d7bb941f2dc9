"""Models that a server of the same user on this machine has loaded, used as if they were loaded here.

Nothing here imports torch or transformers: that a call costs no loading is the point.
"""

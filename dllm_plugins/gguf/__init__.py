"""GGUF files: read, written, and seen as checkpoints."""

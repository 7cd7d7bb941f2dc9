"""GGUF files: read, written, and seen as checkpoints."""

from dllm_plugins.libraries.extras import need

# Here once, for whatever is imported of this package.
need("gguf", "reading and writing GGUF files")

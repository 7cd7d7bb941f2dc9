"""llama.cpp at work: its library, models, streams of keys, and the denoisers on them."""

from dllm_plugins.libraries.extras import need

# Here once, for whatever is imported of this package.
need("gguf", "llama.cpp")

"""GGUF files and llama.cpp: reading, writing, and running them."""

"""The commands of `python -m dllm_plugins`, and what commands print."""

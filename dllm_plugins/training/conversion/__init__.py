"""From an autoregressive model to a diffusion one: `python -m dllm_plugins.training convert`."""

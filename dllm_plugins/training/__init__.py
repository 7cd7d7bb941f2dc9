"""Recipes for the weights this package ships. `python -m dllm_plugins.training --help`."""

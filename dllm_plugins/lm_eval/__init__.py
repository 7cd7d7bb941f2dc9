"""The model `dllm` of lm-evaluation-harness: `python -m dllm_plugins.lm_eval`, and on as the command `lm_eval`."""

"""Cached-prefix block diffusion for this checkpoint, by dllm-plugins.

transformers loads this file for `model.generate(..., custom_generate=REPOSITORY)`.
"""

from typing import Any

import dllm_transformers


def generate(*inputs: Any, model: Any, **arguments: Any) -> Any:
    """See `dllm_transformers.generate`; transformers binds `model`, users may give `inputs` by place."""
    return dllm_transformers.generate(model, *inputs, **arguments)

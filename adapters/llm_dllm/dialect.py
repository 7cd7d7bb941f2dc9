"""What llm calls the engine's options: `-o` names, flags of `llm dllm` and environment variables.

llm imports this on every call, so nothing here may import torch or transformers.
"""

import json
from collections.abc import Mapping
from typing import Any

from dllm_plugins.messages import Dialect

#: Environment variables that choose what is loaded.
ENVIRONMENT = {
    "base": "DLLM_BASE",
    "denoiser": "DLLM_DENOISER",
    "dtype": "DLLM_DTYPE",
    "device": "DLLM_DEVICE",
    "backend": "DLLM_BACKEND",
    "weights": "DLLM_WEIGHTS",
}
#: Options that a checkpoint is added with.
FLAGS = {"family": "--family", "preset": "--preset", "mask_id": "--mask-id"}


def _written(name: str, value: Mapping[str, Any]) -> str:
    # Imported here, as it takes half the time of all that llm imports of ours.
    import shlex

    return f"-o {name} {shlex.quote(json.dumps(value))}"


LLM = Dialect({"max_new_tokens": "max_tokens", "quant": "--quant", **ENVIRONMENT, **FLAGS}, _written)

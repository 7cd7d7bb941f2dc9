"""Other projects' model classes, filled with our random checkpoints; and our side of Fast-dLLM."""

import json
from collections.abc import Callable
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from typing import Literal

from safetensors.torch import load_file

from dllm_plugins import SamplingConfig
from dllm_plugins import load_model
from peers.models import BLOCK
from peers.peer import Decoded
from peers.peer import Setup
from peers.peer import decode

Cache = Literal["prefix", "dual"]


def llada_config(kind: Any, folder: Path) -> Any:
    """A config of their class `kind`, as transformers 4 made it.

    Version 5 keeps neither `use_cache` nor `use_return_dict` for classes it does not know.
    """
    stored = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    for name, value in {"use_cache": False, "use_return_dict": True}.items():
        if not hasattr(kind, name):
            setattr(kind, name, value)
    return kind(**{name: value for name, value in stored.items() if name not in ("architectures", "model_type")})


def filled(model: Any, setup: Setup) -> Any:
    """The model with the folder's weights, in the setup's dtype, ready to decode.

    :raises RuntimeError: if a weight is missing or too many; a tied head may be missing.
    """
    stored = load_file(setup.folder / "model.safetensors")
    wanted = model.state_dict()
    tied = {"lm_head.weight": "model.embed_tokens.weight"}
    stored |= {name: stored[source] for name, source in tied.items() if name in wanted and source in stored}
    model.load_state_dict(stored)
    model.tie_weights()
    return model.to(setup.dtype).eval()


def fast_dllm(setup: Setup, prompt: Sequence[int], cache: Cache | None) -> Callable[[], Decoded]:
    """Our engine on the folder's LLaDA: the likeliest positions of a block, block after block."""
    model = load_model(str(setup.folder), backend="kernels", dtype=setup.dtype_name, device="cpu")
    config = SamplingConfig(
        mode="fast_dllm",
        max_new_tokens=setup.size.new,
        block_length=BLOCK,
        steps=setup.size.steps,
        approximate_cache=cache,
    )
    return lambda: decode(model, prompt, config, frozenset())

"""What an autoregressive model is turned into: formats of published families that its shape fits."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dllm_plugins.errors import CheckpointError
from dllm_plugins.errors import OptionError

#: The one that is no format of a family: the base keeps its weights and gets a denoiser beside them.
TRI_MODE = "tri-mode"


@dataclass(frozen=True, slots=True)
class Target:
    """A format, and the recipe that goes with it.

    :param source: where both were read.
    :param shapes: the base's `model_type` to the entry of `architectures` and the `model_type` it gets.
    :param entries: more entries of config.json.
    :param block: positions of a block where nothing else is asked for.
    :param block_key: what config.json calls that number.
    :param canvas: whether answers are filled up to the end of a canvas, not only of a block.
    """

    source: str
    shapes: Mapping[str, tuple[str, str]]
    entries: Mapping[str, Any]
    block: int
    block_key: str = "block_size"
    canvas: bool = False


_A2D = {
    "llama": ("A2DLlamaLMHeadModel", "a2d-llama"),
    "qwen2": ("A2DQwen2LMHeadModel", "a2d-qwen2"),
    "qwen3": ("A2DQwen3LMHeadModel", "a2d-qwen3"),
}
TARGETS: Mapping[str, Target] = {
    "bd3lm": Target("ZHZisZZ/dllm ca17675, A2D; arXiv 2503.09573", _A2D, {"dllm_preset": "bd3lm"}, 32),
    "mdlm": Target("ZHZisZZ/dllm ca17675, A2D; arXiv 2406.07524", _A2D, {"dllm_preset": "mdlm"}, 32, canvas=True),
    "sdar": Target("JetAstra/SDAR c2041a8; arXiv 2510.06303", {"qwen3": ("SDARForCausalLM", "sdar")}, {}, 4),
    "fast-dllm-v2": Target(
        "the checkpoints' modelling file; arXiv 2509.26328",
        {"qwen2": ("Fast_dLLM_QwenForCausalLM", "Fast_dLLM_Qwen")},
        {},
        32,
        "bd_size",
    ),
}


def converted(config: Mapping[str, Any], to: str, mask_id: int, block: int) -> dict[str, Any]:
    """config.json of the diffusion model.

    :param config: that of the base.
    :param to: one of :data:`TARGETS`.
    :raises CheckpointError: for a base of a shape that none takes.
    :raises OptionError: for a target that does not take this one's.
    """
    target, shape = TARGETS[to], config.get("model_type")
    if shape not in _A2D:
        raise CheckpointError(f"config.json says model_type={shape!r}; what can be converted is {', '.join(_A2D)}")
    if shape not in target.shapes:
        fitting = [name for name, other in TARGETS.items() if shape in other.shapes]
        raise OptionError(
            f"--to {to} takes a base of {', '.join(target.shapes)}, and this is a {shape}; say --to "
            f"{' or '.join(fitting)}"
        )
    architecture, model_type = target.shapes[shape]
    new = {"architectures": [architecture], "model_type": model_type, "mask_token_id": mask_id, target.block_key: block}
    return {**config, **target.entries, **new}

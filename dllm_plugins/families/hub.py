"""Any checkpoint we know, from a folder or a hub id, as a model the engine decodes.

So far those of bidirectional families with masked noise and unshifted rows, by
whole-canvas denoising: LLaDA, iLLaDA and LLaDA-MoE.
"""

import json
from typing import Any

from transformers import PreTrainedModel
from transformers import PreTrainedTokenizerFast

from dllm_plugins.checkpoint import Checkpoint
from dllm_plugins.checkpoint import load_checkpoint
from dllm_plugins.checkpoint import open_checkpoint
from dllm_plugins.denoisers.base import ModelSpec
from dllm_plugins.denoisers.native import NativeDenoiser
from dllm_plugins.denoisers.placement import best_device
from dllm_plugins.denoisers.placement import choose_dtype
from dllm_plugins.errors import CheckpointError
from dllm_plugins.errors import OptionError
from dllm_plugins.families.files import hub_folder
from dllm_plugins.families.files import load_tokenizer
from dllm_plugins.models import LoadOptions
from dllm_plugins.models import Model

#: Families whose sampler is in the engine and was compared with its reference.
DECODED = frozenset({"llada", "illada", "llada_moe"})
BLOCK_LENGTH = 32


def load(name: str, options: LoadOptions) -> Model:
    """Load a checkpoint; see :class:`~dllm_plugins.models.LoadOptions`.

    :param name: a folder in the hub's format, or a hub id.
    :raises CheckpointError: for anything that is missing, damaged, unknown or not decoded yet.
    :raises OptionError: for options of another kind of model.
    """
    for option in ("base", "denoiser"):
        if getattr(options, option) is not None:
            raise OptionError(f"{option}={str(getattr(options, option))!r} belongs to the model 'dllm'; leave it out")
    if options.backend != LoadOptions().backend:
        raise OptionError(f"backend={options.backend!r} cannot run {name}; leave it out")
    folder = hub_folder(name)
    checkpoint = open_checkpoint(folder)
    if checkpoint.layout.name not in DECODED:
        raise CheckpointError(
            f"{folder} is of family {checkpoint.layout.name!r}, which loads but is not decoded yet; "
            f"families that are: {', '.join(sorted(DECODED))}"
        )
    device = best_device(options.device)
    places = {"": str(device)} if options.device_map is None else options.device_map
    model = load_checkpoint(checkpoint, choose_dtype(options.dtype, device), places)
    tokenizer = load_tokenizer(folder, PreTrainedTokenizerFast)
    if checkpoint.layout.chat_template is not None:
        tokenizer.chat_template = checkpoint.layout.chat_template
    return Model(name, NativeDenoiser(model, make_spec(name, model, checkpoint)), tokenizer)


def make_spec(name: str, model: PreTrainedModel, checkpoint: Checkpoint) -> ModelSpec:
    """What the engine must know of a bidirectional model.

    :raises CheckpointError: if neither the config nor the family says which id is the mask.
    """
    config: Any = model.config
    mask_id = checkpoint.config.get("mask_token_id", checkpoint.layout.mask_id)
    if not isinstance(mask_id, int) or not 0 <= mask_id < config.vocab_size:
        raise CheckpointError(
            f"{checkpoint.folder} says mask_token_id={mask_id!r}; set it in config.json, "
            f"to an id below {config.vocab_size}"
        )
    return ModelSpec(
        name=name,
        vocabulary=config.vocab_size,
        mask_id=mask_id,
        context=config.max_position_embeddings,
        stop_ids=_stop_ids(checkpoint) | {item for item in checkpoint.layout.stop_ids if item < config.vocab_size},
        block_length=BLOCK_LENGTH,
        draft_length=0,
        modes=("diffusion",),
        chain=False,
        cache="none",
        numerics="approximate",
        strategies={"diffusion": "canvas"},
        shifted=checkpoint.layout.shifted,
    )


def _stop_ids(checkpoint: Checkpoint) -> frozenset[int]:
    """End-of-text ids of generation_config.json, else of config.json; none if neither has any."""
    place = checkpoint.folder / "generation_config.json"
    generation: dict[str, Any] = {}
    if place.exists():
        try:
            generation = json.loads(place.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise CheckpointError(f"cannot read {place}: {error}") from error
    found = generation.get("eos_token_id", checkpoint.config.get("eos_token_id"))
    ids = found if isinstance(found, list) else [] if found is None else [found]
    return frozenset(int(item) for item in ids)

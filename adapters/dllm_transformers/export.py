"""Base and denoiser as one checkpoint in the hub's format."""

from pathlib import Path

import torch
from torch import Tensor
from torch import nn
from transformers import GenerationConfig

from dllm_plugins.default_model.base import base_place
from dllm_plugins.default_model.load import shipped_denoiser
from dllm_plugins.denoisers.low_rank import CHAINED
from dllm_plugins.denoisers.low_rank import DRAFTS
from dllm_plugins.denoisers.low_rank import RANKED
from dllm_plugins.denoisers.low_rank import low_rank_from
from dllm_plugins.denoisers.low_rank import read_low_rank
from dllm_plugins.denoisers.placement import DTYPES
from dllm_plugins.denoisers.weights import EMBEDDING
from dllm_plugins.denoisers.weights import HEAD
from dllm_plugins.denoisers.weights import LlamaShape
from dllm_plugins.denoisers.weights import check_llama
from dllm_plugins.denoisers.weights import read_tensors
from dllm_plugins.errors import OptionError
from dllm_plugins.families.files import load_tokenizer
from dllm_plugins.files.replacing import finish
from dllm_plugins.files.replacing import is_work
from dllm_plugins.files.replacing import read_config
from dllm_plugins.files.replacing import replacing
from dllm_plugins.messages import message
from dllm_transformers.modeling import TriModeForCausalLM
from dllm_transformers.tri_mode import DENOISER_PREFIX
from dllm_transformers.tri_mode import TriModeConfig


def export(
    folder: str | Path,
    base: str | Path | None = None,
    denoiser: str | Path | None = None,
    dtype: str = "bfloat16",
) -> Path:
    """Write base and denoiser as one checkpoint that `AutoModelForCausalLM.from_pretrained` loads.

    :param folder: where to; must not exist or be empty.
    :param base: folder or hub id of the base weights; None for those of `python -m dllm_plugins setup`.
    :param denoiser: file with the denoiser's weights; None for the shipped ones.
    :raises OptionError: if the folder holds files, or the dtype is unknown.
    :raises DownloadError: if the default base was never set up.
    :raises CheckpointError: if the weights are missing, damaged or do not fit one another.
    """
    target = Path(folder)
    _check_empty(target)
    if dtype not in DTYPES:
        raise OptionError(message("{dtype}={!r} is unknown; use {}", dtype, ", ".join(DTYPES)))
    place = base_place(base)
    tokenizer = load_tokenizer(place)
    tensors, _ = read_low_rank(Path(denoiser or shipped_denoiser()))
    model = tri_mode_model(place, tensors, DTYPES[dtype])
    with replacing(target) as part:
        _check_empty(target)
        model.save_pretrained(part)
        tokenizer.save_pretrained(part)
    return target


def _check_empty(target: Path) -> None:
    """Refuse a folder that holds anything but what an export that was killed left in it.

    :raises OptionError: naming it.
    """
    finish(target)
    if target.exists() and (not target.is_dir() or any(not is_work(path) for path in target.iterdir())):
        raise OptionError(f"{target} is there already and not an empty folder; name another one")


def tri_mode_model(base: Path, denoiser: dict[str, Tensor], dtype: torch.dtype) -> TriModeForCausalLM:
    """A model made of a base folder and a denoiser's tensors.

    :raises CheckpointError: if they are missing, damaged or do not fit one another.
    :raises OptionError: for a base that is no Llama.
    """
    found = read_config(base)
    shape = LlamaShape.from_config(found)
    if found["model_type"] != "llama":
        raise OptionError(
            f"{base} is a {found['model_type']}, and one checkpoint is made of a Llama and its denoiser; decode them "
            f"with load_model('dllm', base=..., denoiser=...), or with block_diffusion(denoiser=...)"
        )
    low_rank_from(denoiser, {}, shape, dtype, "the denoiser")
    weights = check_llama(read_tensors(base), shape, str(base))
    taken = {name: value for name, value in found.items() if name not in ("architectures", "model_type", "dtype")}
    shortlist = denoiser.get(DRAFTS)
    config = TriModeConfig(
        **taken,
        denoiser_rank=len(denoiser[RANKED]),
        denoiser_chain=len(denoiser[CHAINED]),
        denoiser_shortlist=0 if shortlist is None else len(shortlist),
    )
    model = TriModeForCausalLM(config)
    nn.Module.to(model, dtype)
    model.load_state_dict(
        {
            HEAD: weights[EMBEDDING],
            **weights,
            **{DENOISER_PREFIX + name: tensor for name, tensor in denoiser.items()},
        }
    )
    # One that is derived from config.json forgets the options users add to it when it is saved and loaded.
    ids = {name: found[name] for name in ("bos_token_id", "eos_token_id", "pad_token_id") if name in found}
    model.generation_config = GenerationConfig(**ids)
    return model

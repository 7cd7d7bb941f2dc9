"""Checkpoints with more token ids, or fewer: weights, config and original format change together."""

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from dllm_plugins import plugins
from dllm_plugins.errors import CheckpointError
from dllm_plugins.errors import OptionError
from dllm_plugins.families.checkpoint import Checkpoint
from dllm_plugins.families.hub import tokenizer_of
from dllm_plugins.families.spec import make_spec
from dllm_plugins.messages import shown

#: Where configs say how many ids there are; OLMo's has one for the tokenizer and one for the rows.
_SIZES = ("vocab_size", "embedding_size")


def resize(model: Any, size: int | None, multiple: int | None, *, mean: bool) -> nn.Embedding:
    """See :meth:`~dllm_transformers.DiffusionModelForCausalLM.resize_token_embeddings`."""
    wanted = _rounded(model.checkpoint.vocabulary if size is None else size, multiple)
    embedding: nn.Embedding = model.get_input_embeddings()
    if wanted == model.checkpoint.vocabulary:
        return embedding
    _check_whole(model)
    homes = _homes(model)
    changed = _resized_config(model.checkpoint, wanted)
    restated = _restated(model, changed)
    found: nn.Embedding = model.native.resize_token_embeddings(wanted, mean_resizing=mean)
    model.stored_shapes = _shapes(model, homes)
    _take(model, changed, restated)
    return found


def add_mask_token(model: Any, tokenizer: Any, token: str = "<|mask|>") -> int:
    """Give a checkpoint that has no mask token one: in the tokenizer, in the config, and a row of the embedding.

    What `save_pretrained` of model and tokenizer writes then is read back with it by every host. The row knows nothing
    until it is trained.

    :param model: a :class:`~dllm_transformers.DiffusionModelForCausalLM`.
    :param tokenizer: its own, which is changed.
    :param token: how the mask is spelled; one that the tokenizer has already becomes the mask.
    :returns: its id.
    :raises OptionError: where there is a mask already, or the family has no use for one.
    """
    checkpoint = model.checkpoint
    if checkpoint.layout.noise == "uniform":
        raise OptionError(f"{checkpoint.layout.name} has no mask: open positions hold any token; leave it out")
    own = checkpoint.layout.mask_id
    shipped = own if own is not None and own < checkpoint.vocabulary else None
    known = (model.opened.options.mask_id, checkpoint.config.get("mask_token_id"), tokenizer.mask_token_id, shipped)
    for number in known:
        if number is not None:
            raise OptionError(
                f"token={shown(token)}: {model.opened.name} has a mask already, id {number}; leave it as it is"
            )
    tokenizer.add_special_tokens({"mask_token": token})
    number = int(tokenizer.mask_token_id)
    if number >= checkpoint.vocabulary:
        resize(model, max(len(tokenizer), number + 1), None, mean=True)
    changed = {"mask_token_id": number}
    _take(model, changed, _restated(model, changed))
    return number


def _rounded(size: int, multiple: int | None) -> int:
    for name, value in (("new_num_tokens", size), ("pad_to_multiple_of", multiple)):
        if value is not None and (type(value) is not int or value < 1):
            raise OptionError(f"{name}={shown(value)}: give a number of token ids, 1 or more")
    return size if multiple is None else -(-size // multiple) * multiple


def _check_whole(model: Any) -> None:
    """Refuse weights that are elsewhere, and those under an adapter, which was made for this number of rows.

    :raises OptionError: with what to do first.
    """
    if any(tensor.is_meta for tensor in model.parameters()):
        raise OptionError("resize_token_embeddings: some weights are not in memory; load the model without device_map")
    if any(hasattr(module, "base_layer") for module in model.modules()):
        raise OptionError("resize_token_embeddings: there is an adapter already; resize first, then add it")


def _resized_config(checkpoint: Checkpoint, size: int) -> dict[str, Any]:
    """The entries of config.json that say how many ids there are, with another number.

    :raises OptionError: for a family whose config does not say it.
    """
    config = checkpoint.stated
    changed: dict[str, Any] = {name: size for name in _SIZES if config.get(name)}
    inside = config.get("text_config")
    if isinstance(inside, Mapping) and inside.get("vocab_size"):
        changed["text_config"] = {**inside, "vocab_size": size}
    if checkpoint.with_config({**config, **changed}).vocabulary != size:
        raise OptionError(
            f"resize_token_embeddings: config.json of {checkpoint.layout.name} does not say how many ids there are, "
            f"which are {checkpoint.vocabulary}; let new special tokens be ids below it that no text uses"
        )
    return changed


def _restated(model: Any, changed: Mapping[str, Any]) -> Checkpoint:
    """The checkpoint under a changed config, which must be decoded if it was before.

    :raises CheckpointError: for a mask that would not be there any more.
    """
    found: Checkpoint = model.checkpoint.with_config({**model.config.original(), **changed})
    try:
        decoded = model.spec is not None
    except CheckpointError:
        decoded = False
    if decoded:
        make_spec(model.opened.name, found, tokenizer_of(found), model.opened.options, plugins.modes())
    return found


def _take(model: Any, changed: Mapping[str, Any], checkpoint: Checkpoint) -> None:
    """Let model and config say what the weights are now."""
    for name, value in changed.items():
        model.config.state(name, copy.deepcopy(value))
    model.opened = replace(model.opened, checkpoint=checkpoint)
    model.__dict__.pop("spec", None)


def _homes(model: Any) -> dict[str, str]:
    """Which stored tensor each weight of the class is, by the names of both; not those that are stored in pieces.

    :raises OptionError: for an embedding or a head that is.
    """
    stored = {name: torch.empty(shape, device="meta") for name, shape in model.stored_shapes.items()}
    names = {id(tensor): name for name, tensor in stored.items()}
    pieces = model.checkpoint.layout.tensors(stored, model.checkpoint.config)
    found = {place: names[id(piece)] for place, piece in pieces.items() if id(piece) in names}
    ends = [module for module in (model.get_input_embeddings(), model.get_output_embeddings()) if module is not None]
    weights = dict(model.native.named_parameters(remove_duplicate=False))
    at_home = {id(weights[place]) for place in found if place in weights}
    if not all(id(weight) in at_home for module in ends for weight in module.parameters()):
        raise OptionError(
            f"resize_token_embeddings: embedding and head of {model.checkpoint.layout.name} are not stored as a tensor "
            f"each; let new special tokens be ids below {model.checkpoint.vocabulary} that no text uses"
        )
    return found


def _shapes(model: Any, homes: Mapping[str, str]) -> dict[str, torch.Size]:
    """The stored tensors' shapes, as the weights are now."""
    state = model.native.state_dict()
    return {**model.stored_shapes, **{name: state[place].shape for place, name in homes.items() if place in state}}

"""The load option `batch_invariant`: whether an answer's bits may depend on the rows that share its passes."""

from typing import Any

import torch

from dllm_plugins.denoisers.base import ModelSpec
from dllm_plugins.errors import OptionError
from dllm_plugins.libraries.classes import is_a
from dllm_plugins.load_options import LoadOptions
from dllm_plugins.messages import message


def wants_invariant(options: LoadOptions, device: torch.device, native: type[Any]) -> bool:
    """Whether rows are forwarded one by one where sharing a call would change their last bits.

    :param native: transformers' class. DiffusionGemma is given what it said before: noise of 1e-7 in its hidden states
        ended in other tokens.
    :raises OptionError: for rows in company where they are always taken one by one.
    """
    if options.batch_invariant is False and is_a(native, "DiffusionGemmaForBlockDiffusion"):
        raise OptionError(
            message(
                "{batch_invariant}=False decodes other tokens with {}, whose passes read what the last one said; leave "
                "it out",
                native.__name__,
            )
        )
    if options.compile and options.batch_invariant is False:
        raise OptionError(
            message("{compile}=True forwards rows one by one; leave {batch_invariant}=False or {compile} out")
        )
    return device.type == "cpu" if options.batch_invariant is None else options.batch_invariant


def check_invariant(options: LoadOptions, spec: ModelSpec) -> None:
    """Refuse a promise that what was loaded does not keep.

    :raises OptionError: then.
    """
    if options.batch_invariant and spec.batched:
        raise OptionError(
            message(
                "{batch_invariant}=True cannot be had with {}, whose rows share products that are rounded by how many "
                "they are; leave it out, or give {device}='cpu'",
                spec.name,
            )
        )


def refuse_together(options: LoadOptions, name: str) -> None:
    """Refuse rows in company for llama.cpp, which takes the rows of a pass one by one.

    :raises OptionError: if they are asked for.
    """
    if options.batch_invariant is False:
        raise OptionError(
            message(
                "{batch_invariant}=False has no effect on {} with {backend}='llama_cpp', which forwards rows one by "
                "one; leave it out",
                name,
            )
        )

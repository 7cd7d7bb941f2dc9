"""Weights rounded to few bits of mantissa: the file is as long as before, but packs to half of it."""

import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file
from safetensors.torch import save_file
from torch import Tensor

from dllm_plugins.files.whole import beside

#: Bits of mantissa that bfloat16 stores.
_STORED = 7


def compact(model: Path, folder: Path, bits: int) -> None:
    """Copy a checkpoint with rounded weights; its card is its own, so that is not copied.

    :param bits: of the mantissa that stay, 1 to 6.
    """
    with beside(folder) as part:
        part.mkdir(parents=True, exist_ok=True)
        for file in model.iterdir():
            if file.suffix in (".json", ".jinja"):
                shutil.copyfile(file, part / file.name)
        tensors = {name: rounded(weight, bits) for name, weight in load_file(model / "model.safetensors").items()}
        save_file(tensors, part / "model.safetensors", metadata={"format": "pt"})


def rounded(weight: Tensor, bits: int) -> Tensor:
    """A bfloat16 tensor rounded to the nearest with so many bits of mantissa; half away from zero."""
    dropped = _STORED - bits
    # Adding to the bits below carries into the mantissa, and from there into the exponent, as rounding does.
    found = weight.contiguous().view(torch.int16).int() & 0xFFFF
    found = (found + (1 << dropped - 1)) >> dropped << dropped
    return found.to(torch.int16).view(torch.bfloat16)

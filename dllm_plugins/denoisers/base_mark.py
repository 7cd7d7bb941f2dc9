"""Which base a denoiser's file belongs to, so that another one is refused with the reason.

The mark stands in the file's metadata: the base's name for people, the numbers of its config, and a sample of its
embedding. The sample tells two models of one shape apart, but not a base from the same one rounded to four bits or
trained on for a while, whose drafts the denoiser still guesses.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from dllm_kernels.blocks import Weight
from dllm_kernels.blocks import plain
from dllm_kernels.blocks import rows_of
from dllm_kernels.decoder import DecoderShape
from dllm_plugins.errors import CheckpointError
from dllm_plugins.messages import shown

#: Its key among the metadata.
KEY = "base"
#: Rows and columns of the embedding that are sampled, evenly.
_ROWS, _COLUMNS = 16, 8
#: The least cosine of two samples of one model. Rounding to four bits leaves 0.99, another model about 0.
_ALIKE = 0.9


def mark_of(name: str, shape: DecoderShape, embedding: Weight) -> dict[str, Any]:
    """The mark of a base.

    :param name: what people call it.
    :param embedding: [vocabulary, hidden].
    """
    numbers = _numbers(shape)
    digest = hashlib.sha256(json.dumps(numbers, sort_keys=True).encode()).hexdigest()
    sample = [float(f"{number:.4g}") for number in _sample(embedding).tolist()]
    return {"name": name, "config": digest, "shape": numbers, "embedding": sample}


def check_shape(metadata: Mapping[str, str], shape: DecoderShape, origin: str) -> None:
    """Refuse a denoiser of a base with other numbers; a file without a mark may be any base's of its tensors' shapes.

    :param origin: the denoiser's file, for the error.
    :raises CheckpointError: naming the numbers, or for a mark that is none.
    """
    mark = _mark(metadata, origin)
    if mark is None:
        return
    theirs, ours = mark["shape"], _numbers(shape)
    other = [f"{name}={shown(theirs[name])}, not {ours[name]}" for name in ours if theirs.get(name) != ours[name]]
    if other:
        raise _another(mark, origin, f"which has {'; '.join(other)}")


def check_embedding(metadata: Mapping[str, str], embedding: Weight, origin: str) -> None:
    """Refuse a denoiser of another model of the same shape; `embedding` is the base's.

    :raises CheckpointError: as :func:`check_shape`.
    """
    mark = _mark(metadata, origin)
    if mark is None:
        return
    theirs, ours = torch.tensor(mark["embedding"]), _sample(embedding)
    cosine = float(torch.nn.functional.cosine_similarity(theirs, ours, dim=0)) if len(theirs) == len(ours) else 0.0
    if not cosine >= _ALIKE:
        raise _another(mark, origin, f"whose embedding is another matrix (cosine {cosine:.2f})")


def _another(mark: Mapping[str, Any], origin: str, reason: str) -> CheckpointError:
    return CheckpointError(
        f"{origin} belongs to the base {mark['name']}, {reason}; give that base, or train a denoiser for this one: "
        f"python -m dllm_plugins.training train --base FOLDER"
    )


def _mark(metadata: Mapping[str, str], origin: str) -> dict[str, Any] | None:
    if KEY not in metadata:
        return None
    try:
        mark: Any = json.loads(metadata[KEY])
        numbers = [float(number) for number in mark["embedding"]]
        return {"name": str(mark["name"]), "shape": dict(mark["shape"]), "embedding": numbers}
    except (ValueError, TypeError, LookupError, RecursionError) as error:
        raise CheckpointError(
            f"{origin} says {shown(metadata[KEY])} of its base, which no training wrote; train or download it again"
        ) from error


def _numbers(shape: DecoderShape) -> dict[str, Any]:
    """As JSON gives them back."""
    found: dict[str, Any] = json.loads(json.dumps(asdict(shape)))
    return found


def _sample(embedding: Weight) -> Tensor:
    """Float32 [_ROWS * _COLUMNS] on the CPU."""
    rows, columns = (
        torch.linspace(0, size - 1, count).long()
        for size, count in zip(embedding.shape, (_ROWS, _COLUMNS), strict=True)
    )
    found = plain(rows_of(embedding, rows.to(embedding.device)))
    return found.float().cpu()[:, columns].flatten()

"""Which backend computes a GGUF file where none is asked for: llama.cpp, or the block decoder of our kernels."""

from collections import Counter

import torch
from gguf import GGMLQuantizationType

from dllm_kernels.compiled import library as compiled
from dllm_plugins.denoisers.placement import choose_dtype
from dllm_plugins.errors import DllmError
from dllm_plugins.errors import OptionError
from dllm_plugins.families.quantised import STORED
from dllm_plugins.gguf.decoded import DEVICE
from dllm_plugins.gguf.decoded import check_decoded
from dllm_plugins.gguf.opened import GgufCheckpoint
from dllm_plugins.libraries.extras import has
from dllm_plugins.load_options import LoadOptions
from dllm_plugins.messages import message
from dllm_plugins.models import Chosen

KERNELS, LLAMA_CPP = "kernels", "llama_cpp"
BUILD = "python -m dllm_kernels.build"
#: Types that our kernels multiply faster in float32 than llama.cpp does in its own way.
FASTER = frozenset(GGMLQuantizationType[name] for name in ("Q4_1", "BF16"))
#: Attention that no order of llama.cpp's calls computes.
UNORDERED = ("causal, reordered",)


def wants_weights(options: LoadOptions) -> bool:
    """Whether weights are asked for that only the block decoder has."""
    return options.backend != LLAMA_CPP and options.weights != "auto" and options.weights in STORED


def backend_of(name: str, checkpoint: GgufCheckpoint, options: LoadOptions) -> Chosen:
    """The backend that is asked for, or the better one, and why.

    :param name: of the model, for errors.
    :raises OptionError: for weights that only the block decoder has, and a file that it does not compute.
    """
    if options.backend != "auto":
        return Chosen(options.backend, "as asked for")
    try:
        check_decoded(checkpoint)
    except DllmError as error:
        if wants_weights(options):
            raise OptionError(
                message("{weights}={!r} is of no use to {}: {}; leave it out", options.weights, name, error.detail)
            ) from error
        return Chosen(LLAMA_CPP, "of the backends only llama.cpp computes this file")
    if wants_weights(options):
        return Chosen(KERNELS, f"weights={options.weights!r} are the block decoder's")
    return _better(checkpoint, options)


def _better(checkpoint: GgufCheckpoint, options: LoadOptions) -> Chosen:
    if checkpoint.layout.attention in UNORDERED:
        return Chosen(KERNELS, "llama.cpp takes positions in order only")
    if not has("llama_cpp"):
        return Chosen(KERNELS, "llama.cpp is not installed")
    if options.dtype == "float16":
        return Chosen(LLAMA_CPP, "keys and values in float16 are llama.cpp's")
    if options.dtype == "bfloat16":
        return Chosen(KERNELS, "only the block decoder computes in bfloat16")
    missing = compiled.why_not()
    if missing is not None:
        faster = (f"the compiled kernel library, which {missing}",)
        return Chosen(LLAMA_CPP, f"the block decoder is slow without its compiled kernels; run `{BUILD}`", faster)
    return _faster(checkpoint, options)


def _faster(checkpoint: GgufCheckpoint, options: LoadOptions) -> Chosen:
    """What benchmarks/gguf_files.py measured, by what the processor multiplies; docs/gguf.md has the numbers."""
    if choose_dtype(options.dtype, DEVICE) == torch.bfloat16:
        return Chosen(
            KERNELS, "they were faster than llama.cpp where a processor multiplies bfloat16, as this one does"
        )
    kind = _most(checkpoint)
    where = f"for {kind.name} where a processor does not multiply bfloat16"
    if kind in FASTER:
        return Chosen(KERNELS, f"they were faster than llama.cpp {where}")
    # Another model than the file's own, which nobody gets unasked.
    rounded = "; with weights='blocks_int8' they were, which round activations as it does"
    return Chosen(LLAMA_CPP, f"our kernels were not faster {where}{rounded if kind.name == 'Q4_0' else ''}")


def _most(checkpoint: GgufCheckpoint) -> GGMLQuantizationType:
    """The type of most of a file's bytes."""
    sizes: Counter[GGMLQuantizationType] = Counter()
    for info in checkpoint.header.tensors.values():
        sizes[info.type] += info.size
    return max(sizes, key=lambda kind: sizes[kind])

"""How a model is loaded. Hosts import this without anything that computes."""

from dataclasses import dataclass
from dataclasses import fields
from pathlib import Path
from types import NoneType
from typing import Any
from typing import get_args
from typing import get_origin

from dllm_plugins.errors import OptionError
from dllm_plugins.messages import Option
from dllm_plugins.messages import message
from dllm_plugins.messages import shown


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """How to load a model.

    :param base: folder or hub id of the base weights; None for the model's default.
    :param denoiser: file with the denoiser's own weights; None for the shipped ones.
    :param dtype: "auto", "bfloat16", "float16" or "float32".
    :param device: a torch device, or "auto" for an accelerator if there is one.
    :param device_map: accelerate's "auto" or a mapping from module name to device, for
        models larger than one device; excludes `device`. Weights that it puts on disk are
        written where temporary files go (TMPDIR) and removed with the model.
    :param backend: what computes the passes: "torch"; "kernels" for the row-invariant block decoder of `dllm_kernels`,
        which computes Llama, Qwen2 and Qwen3 shapes on one device, of GGUF files too; "llama_cpp" for these files and
        the default model; "auto" for what fits best, see
        :func:`~dllm_plugins.models.auto_backend`. For the default model also the name of any other registered backend.
    :param weights: "auto" for the checkpoint's own; for the default model and GGUF files those are the file's blocks
        ("blocks") where the compiled kernels multiply them, which gives the bits of "dequantised", and less to read.
        "blocks_int8" for the same blocks with activations rounded to int8, which is another model, too. "int8" to
        quantise linear layers and head while loading, on CPUs. They take half the memory of bfloat16 and passes are
        faster, but it is another model: lossless modes are so with respect to its own mode `ar`, its spec's `name` and
        the statistics say int8, and docs/kernels.md how much it changes. "Q4_0", "Q4_1", "Q5_0", "Q5_1" or "Q8_0" to
        round a checkpoint's matrices into such blocks instead, embedding and head into "Q8_0": another model, too,
        which needs the compiled kernels. With backend "llama_cpp" the default model's
        base takes llama.cpp's types instead, such as "Q8_0" or "Q4_0".
    :param compile: True for transformers' own class behind torch.compile, which takes up to minutes at the first
        passes and little the next time: what was compiled is kept in the user's cache, or in TORCHINDUCTOR_CACHE_DIR.
        It goes with backend "torch", which "auto" then is, and one device, and needs a C++ compiler on a CPU; the
        default model has kernels instead.
    :param batch_invariant: True if no bit of an answer may depend on the rows that share its passes; False if these
        may share calls of the model all the same, which takes fewer of them; None for True on CPUs and False
        elsewhere. The block decoder shares its products and is invariant wherever "auto" takes it; transformers' own
        classes are where they forward rows one by one.
    :param family: of a checkpoint that looks like an ordinary model.
    :param preset: the sampler behind mode `diffusion`, where the checkpoint does not say it.
    :param mask_id: the mask token, where neither the checkpoint nor its family says it.
    :param pair: two models under one name: `{"ar": NAME, "diffusion": NAME}`; drafts of the second are verified by the
        first, whose text it is. See :class:`dllm_plugins.pairs.named.Pair` for options of each, and docs/pairs.md.
    """

    base: str | Path | None = None
    denoiser: str | Path | None = None
    dtype: str = "auto"
    device: str = "auto"
    device_map: str | dict[str, str | int] | None = None
    backend: str = "auto"
    weights: str = "auto"
    compile: bool = False
    batch_invariant: bool | None = None
    family: str | None = None
    preset: str | None = None
    mask_id: int | None = None
    pair: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        for option in fields(self):
            value, given = getattr(self, option.name), get_args(option.type) or (option.type,)
            kinds: list[Any] = [get_origin(kind) or kind for kind in given]
            if not isinstance(value, tuple(kinds)) or (isinstance(value, bool) and bool not in kinds):
                wanted = " or ".join(_KINDS[kind] for kind in kinds)
                raise OptionError(message("{}={}: give {}", Option(option.name), shown(value), wanted))


#: What the values of options are, for people.
_KINDS = {str: "a text", Path: "a path", bool: "True or False", int: "a number", dict: "a mapping", NoneType: "None"}

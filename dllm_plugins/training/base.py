"""The base that is made tri-mode: its weights, its tokenizer, and what it says alone."""

from dataclasses import dataclass
from dataclasses import replace
from pathlib import Path
from typing import Any

from dllm_kernels.decoder import AnyWeights
from dllm_plugins.default_model import base as sources
from dllm_plugins.default_model.load import make_spec
from dllm_plugins.denoisers.base_mark import mark_of
from dllm_plugins.denoisers.kernel import DecoderDenoiser
from dllm_plugins.denoisers.kernel import best_decoder
from dllm_plugins.denoisers.placement import best_device
from dllm_plugins.denoisers.placement import choose_dtype
from dllm_plugins.denoisers.placement import place
from dllm_plugins.denoisers.weights import LlamaShape
from dllm_plugins.denoisers.weights import llama_from
from dllm_plugins.models import Model


@dataclass(frozen=True, slots=True)
class FrozenBase:
    """A Llama, Qwen2 or Qwen3 whose weights stay as they are.

    :param name: what its user called it: a folder's name or a hub id.
    :param place: its folder; of the default base, its GGUF file.
    :param stops: ids that end an answer.
    """

    name: str
    place: Path
    shape: LlamaShape
    weights: AnyWeights
    tokenizer: Any
    stops: frozenset[int]

    @property
    def mark(self) -> dict[str, Any]:
        """What a denoiser's file says of it."""
        return mark_of(self.name, self.shape, self.weights.embedding)


def open_base(base: str | Path | None, dtype: str = "auto", device: str = "auto") -> FrozenBase:
    """Read a base.

    :param base: a folder or a hub id; None for the default model's, as its GGUF file holds it.
    :param dtype: what it is computed in: "auto", "bfloat16", "float16" or "float32".
    :raises DownloadError: if the default base was never set up.
    :raises CheckpointError: if it is damaged, or no base that can be made tri-mode.
    :raises OptionError: for an unknown dtype or device.
    """
    source, where = sources.open_base(base), best_device(device)
    shape = LlamaShape.from_config(source.config)
    weights: AnyWeights = llama_from(source.tensors(), shape, str(source.place), choose_dtype(dtype, where))
    weights = place(source.config, weights, where, None)
    # Of the default base the name that its folder has.
    name = source.whose.name if base is None or Path(base).is_dir() else str(base)
    return FrozenBase(name, source.place, shape, weights, source.tokenizer(), source.stop_ids(shape.vocabulary))


def model_of(base: FrozenBase) -> Model:
    """The base as a model that decodes in mode `ar` only, on the best block decoder here."""
    spec = replace(make_spec(base.shape, base.stops), name=base.name, modes=("ar",), draft_head=False)
    return Model(base.name, DecoderDenoiser(best_decoder(lambda: base.weights, spec), spec), base.tokenizer)

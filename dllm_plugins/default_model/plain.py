"""An ordinary Llama, Qwen2 or Qwen3 as it is, one token a pass: what verifies the drafts of a pair."""

from dllm_plugins.default_model.base import folder_base
from dllm_plugins.denoisers.base import ModelSpec
from dllm_plugins.denoisers.kernel import DecoderDenoiser
from dllm_plugins.denoisers.kernel import best_decoder
from dllm_plugins.denoisers.kernel import plain_decoder
from dllm_plugins.denoisers.placement import best_device
from dllm_plugins.denoisers.placement import choose_dtype
from dllm_plugins.denoisers.placement import place
from dllm_plugins.denoisers.weights import LlamaShape
from dllm_plugins.denoisers.weights import llama_from
from dllm_plugins.errors import OptionError
from dllm_plugins.families.files import hub_folder
from dllm_plugins.families.quantised import PLAIN
from dllm_plugins.families.quantised import check_int8
from dllm_plugins.families.quantised import wants_int8
from dllm_plugins.load_options import LoadOptions
from dllm_plugins.messages import Option
from dllm_plugins.messages import message
from dllm_plugins.models import Model

#: Classes that the block decoder computes.
ARCHITECTURES = frozenset({"LlamaForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM"})
_TAKEN = frozenset({"dtype", "device", "weights", "backend"})


def load_plain(name: str, options: LoadOptions) -> Model:
    """Load it on the block decoder, row-invariantly where this machine can; its only mode is `ar`.

    :param name: a folder in the hub's format, or a hub id.
    :raises CheckpointError: if a file is missing or damaged.
    :raises OptionError: for options that it does not take.
    """
    default = LoadOptions()
    for option in LoadOptions.__dataclass_fields__.keys() - _TAKEN:
        value = getattr(options, option)
        if value != getattr(default, option):
            raise OptionError(message("{}={!r} is of no use to {}; leave it out", Option(option), value, name))
    if options.backend not in ("auto", "kernels", "torch"):
        raise OptionError(
            message("{backend}={!r} cannot run {}; use 'auto', 'kernels' or 'torch'", options.backend, name)
        )
    source = folder_base(hub_folder(name))
    device = best_device(options.device)
    dtype = choose_dtype(options.dtype, device)
    int8 = wants_int8(options, device, PLAIN)
    shape = LlamaShape.from_config(source.config)
    if int8:
        check_int8(device, dtype, shape)
    weights = place(source.config, llama_from(source.tensors(), shape, str(source.place), dtype), device, None)
    spec = plain_spec(name, shape.vocabulary, shape.context, source.stop_ids(shape.vocabulary))
    plain = options.backend == "torch"
    decoder = plain_decoder(weights, spec) if plain else best_decoder(lambda: weights, spec, int8=int8)
    return Model(name, DecoderDenoiser(decoder, spec, int8), source.tokenizer())


def plain_spec(name: str, vocabulary: int, context: int, stop_ids: frozenset[int]) -> ModelSpec:
    """What the engine must know of a model that says one token after the other, and has no open positions."""
    return ModelSpec(
        name=name,
        vocabulary=vocabulary,
        mask_id=vocabulary,
        context=context,
        stop_ids=stop_ids,
        block_length=1,
        draft_length=0,
        modes=("ar",),
        draft_head=False,
        cache="exact",
        numerics="approximate",
        attention="causal",
    )

"""A GGUF file of an ordinary Llama, Qwen2 or Qwen3 as a target: the same as from its folder, one token a pass.

No family reads such a file, because it is no diffusion model. Here it is opened as what it is, and computed by what
computes GGUF files of diffusion models.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path

from dllm_plugins.default_model.plain import plain_spec
from dllm_plugins.denoisers.llama_config import ids_of
from dllm_plugins.errors import CheckpointError
from dllm_plugins.errors import OptionError
from dllm_plugins.families.batching import check_invariant
from dllm_plugins.families.hub import DECODED
from dllm_plugins.families.layout import Layout
from dllm_plugins.families.layout import common_config
from dllm_plugins.families.spec import stop_ids
from dllm_plugins.gguf.architectures import ARCHITECTURES as GRAPHS
from dllm_plugins.gguf.decoded import denoiser_of
from dllm_plugins.gguf.header import read_header
from dllm_plugins.gguf.opened import GgufCheckpoint
from dllm_plugins.gguf.opened import open_gguf
from dllm_plugins.gguf.tokenizer import tokenizer_of
from dllm_plugins.gguf.values import check_values
from dllm_plugins.libraries.classes import always
from dllm_plugins.llama_cpp.choosing import KERNELS
from dllm_plugins.llama_cpp.choosing import backend_of
from dllm_plugins.llama_cpp.denoiser import LlamaCppDenoiser
from dllm_plugins.llama_cpp.library import library
from dllm_plugins.llama_cpp.load import cache_type
from dllm_plugins.llama_cpp.load import check_options
from dllm_plugins.llama_cpp.model import GgufModel
from dllm_plugins.load_options import LoadOptions
from dllm_plugins.messages import Option
from dllm_plugins.messages import message
from dllm_plugins.models import Chosen
from dllm_plugins.models import Model

_NAME = "plain"
#: Graphs of the classes that the block decoder computes too.
_KNOWN = tuple(name for name, graph in GRAPHS.items() if f"{graph.computes}ForCausalLM" in DECODED and not graph.family)
#: What such a file is, in the words of families; nobody can ask for it by name.
_LAYOUT = Layout(
    name=_NAME,
    architectures=frozenset(DECODED),
    native=always("LlamaForCausalLM"),
    classes="Llama, Qwen2 or Qwen3",
    config=partial(common_config, family=_NAME),
    attention="causal",
    shifted=True,
    checkpoints=(),
    licence="its own",
    verified="the block decoder's and llama.cpp's own",
)


def is_plain_file(file: Path) -> bool:
    """Whether a GGUF file is none that a family of diffusion models decodes, as far as its header tells.

    :raises CheckpointError: for a damaged file.
    """
    header = read_header(file.expanduser())
    graph = GRAPHS.get(header.architecture)
    return "dllm.config" not in header.metadata and (graph is None or graph.family is None)


def load_plain_file(name: str, options: LoadOptions) -> Model:
    """Load it on the block decoder or on llama.cpp; its only mode is `ar`.

    Its numerics are "row-invariant" where a position's bits do not depend on how many are forwarded: on the block
    decoder wherever `auto` takes it, on llama.cpp if that was measured, with this file.

    :raises CheckpointError: for a damaged file, one of another architecture, and one that names no end of text.
    :raises OptionError: for options that it does not take.
    :raises GgufError: if llama.cpp is needed and not installed, or refuses the file.
    """
    _check_options(name, options)
    checkpoint = _opened(name)
    chosen = backend_of(name, checkpoint, options).backend
    ends = ids_of(sorted(stop_ids(checkpoint)), checkpoint.vocabulary, "tokenizer.ggml.eos_token_id", name)
    spec = plain_spec(name, checkpoint.vocabulary, checkpoint.context, ends)
    tokenizer = tokenizer_of(checkpoint.header)
    if chosen == KERNELS:
        denoiser = denoiser_of(checkpoint, spec, options)
        check_invariant(options, denoiser.spec)
        return Model(name, denoiser, tokenizer)
    cache = cache_type(name, options.dtype, checkpoint.header)
    check_values(checkpoint.header)
    library()
    return Model(name, LlamaCppDenoiser(GgufModel(checkpoint.folder), spec, cache, causal=True), tokenizer)


def auto_plain_file(name: str, options: LoadOptions) -> Chosen:
    """What computes it, told by its header.

    :raises CheckpointError: for a damaged file, and one of another architecture.
    :raises OptionError: for options that it does not take.
    """
    _check_options(name, options)
    return replace(backend_of(name, _opened(name), options), modes=("ar",))


def _opened(name: str) -> GgufCheckpoint:
    header = read_header(Path(name).expanduser())
    if header.architecture not in _KNOWN:
        raise CheckpointError(
            message(
                "{} is a {!r} file, which cannot verify drafts; files that can are {}, and 'ar' of {pair} takes the "
                "default model dllm, too",
                name,
                header.architecture,
                " or ".join(_KNOWN),
            )
        )
    return open_gguf(name, _NAME, {_NAME: _LAYOUT})


def _check_options(name: str, options: LoadOptions) -> None:
    for option in ("family", "preset", "mask_id"):
        value = getattr(options, option)
        if value is not None:
            raise OptionError(message("{}={!r} is of no use to {}; leave it out", Option(option), value, name))
    check_options(name, options)

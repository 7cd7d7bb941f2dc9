"""`quantization_config` of `from_pretrained`: torchao or bitsandbytes quantises the linear layers of a loaded class.

As in transformers, the head and the modules that the config names stay as they are. Experts that lie in one tensor
are no linear layers, and stay, too; what is said of the weights names both.
"""

from collections.abc import Callable
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from transformers import BitsAndBytesConfig
from transformers import PreTrainedModel
from transformers import TorchAoConfig
from transformers.quantizers.auto import AutoHfQuantizer

from dllm_plugins.errors import OptionError
from dllm_plugins.libraries.extras import need
from dllm_plugins.messages import shown

_SAY = (
    "give a TorchAoConfig or a BitsAndBytesConfig, or weights='int8', 'Q4_0', 'Q4_1', 'Q5_0', 'Q5_1' or 'Q8_0', which "
    "our own kernels decode on CPUs"
)
#: What of the two configs has no effect here, and the value that asks for nothing.
_NO_EFFECT = {
    "llm_int8_enable_fp32_cpu_offload": False,
    "llm_int8_has_fp16_weight": False,
    "bnb_4bit_quant_storage": torch.uint8,
    "include_input_output_embeddings": False,
    "untie_embedding_weights": False,
}


def check_quantising(config: Any, options: dict[str, Any]) -> None:
    """Refuse, before a weight is read, what is not quantised here.

    :param config: what `quantization_config` is; nothing happens for None.
    :param options: of `from_pretrained`.
    :raises OptionError: for a config of another kind, or one that asks for what has no effect, and beside weights that
        are spread or quantised already.
    :raises MissingExtraError: without the library that quantises.
    """
    if config is None:
        return
    if not isinstance(config, TorchAoConfig | BitsAndBytesConfig):
        raise OptionError(f"quantization_config={shown(config)}: {_SAY}")
    for name, usual in _NO_EFFECT.items():
        if getattr(config, name, usual) != usual:
            value = shown(getattr(config, name))
            raise OptionError(f"quantization_config: {name}={value} has no effect here; leave it out")
    for name in ("device_map", "weights"):
        if options.get(name) is not None:
            raise OptionError(
                f"quantization_config and {name}={shown(options[name])} exclude one another; leave one out"
            )
    library = "torchao" if isinstance(config, TorchAoConfig) else "bitsandbytes"
    need(library, f"quantization_config={type(config).__name__}")


def quantise(native: PreTrainedModel, config: TorchAoConfig | BitsAndBytesConfig) -> str:
    """Quantise a loaded class in place.

    :returns: what its linear layers are now, for spec and statistics, and what stayed as it was, such as
        "bitsandbytes nf4 (experts bfloat16, gate bfloat16)"; of embedding and head, which always do, it says nothing.
    :raises OptionError: where no layer could be quantised, such as rows that hold no whole groups.
    """
    names = [*_linears(native, config)]
    if isinstance(config, TorchAoConfig):
        form = f"torchao {type(config.quant_type).__name__}"
        done = _by_torchao(native, config, names)
    else:
        form = f"bitsandbytes {config.bnb_4bit_quant_type if config.load_in_4bit else 'int8'}"
        done = _by_bitsandbytes(native, config, names)
    if done < len(names) or not names:
        raise OptionError(
            f"quantization_config: {form} quantised {done} of {len(names)} linear layers of this "
            f"{type(native).__name__} and would leave the others as they are without a word; give groups that divide "
            f"the rows, or name what shall stay"
        )
    stay = _staying(native, frozenset(names))
    return f"{form} ({stay})" if stay else form


def mark(model: nn.Module, config: TorchAoConfig | BitsAndBytesConfig) -> None:
    """Leave at a model what transformers' quantisers do.

    By it PEFT knows the layers and can merge, the Trainer refuses to train them without an adapter, and transformers
    refuses casts.
    """
    marks = {
        "hf_quantizer": AutoHfQuantizer.from_config(config, pre_quantized=False, trust_remote_code=False),
        "is_quantized": True,
        "quantization_method": config.quant_method,
        "is_loaded_in_4bit": bool(getattr(config, "load_in_4bit", False)),
        "is_loaded_in_8bit": bool(getattr(config, "load_in_8bit", False)),
    }
    for name, value in marks.items():
        setattr(model, name, value)


def _linears(native: PreTrainedModel, config: Any) -> Iterator[str]:
    """The names of the layers that are to be quantised."""
    stay = [*(getattr(config, "modules_to_not_convert", None) or getattr(config, "llm_int8_skip_modules", None) or ())]
    head: nn.Module | None = native.get_output_embeddings()
    for name, module in native.named_modules():
        left = any(part == name or name.startswith(f"{part}.") or f".{part}" in f".{name}" for part in stay)
        if type(module) is nn.Linear and module is not head and not left:
            yield name


def _staying(native: PreTrainedModel, quantised: frozenset[str]) -> str:
    """The modules whose matrices were left as they are, by the last parts of their names and their dtype."""
    head: nn.Module | None = native.get_output_embeddings()
    parts, found = {name.rsplit(".", 1)[-1] for name in quantised}, set[str]()
    for name, module in native.named_modules():
        if name in quantised or module is head or isinstance(module, nn.Embedding):
            continue
        part = name.rsplit(".", 1)[-1]
        for weight in module.parameters(recurse=False):
            if weight.ndim > 1:
                found.add(f"{'some ' if part in parts else ''}{part} {str(weight.dtype).removeprefix('torch.')}")
    return ", ".join(sorted(found))


def _by_torchao(native: PreTrainedModel, config: TorchAoConfig, names: list[str]) -> int:
    quantization = need("torchao.quantization", "quantization_config=TorchAoConfig")
    wanted = frozenset(names)
    before = {name: type(native.get_submodule(name).weight) for name in names}
    quantization.quantize_(native, config.quant_type, filter_fn=lambda _, name: name in wanted)
    return sum(type(native.get_submodule(name).weight) is not before[name] for name in names)


def _by_bitsandbytes(native: PreTrainedModel, config: BitsAndBytesConfig, names: list[str]) -> int:
    library = need("bitsandbytes.nn", "quantization_config=BitsAndBytesConfig")
    make: Callable[[Any, nn.Linear, BitsAndBytesConfig], nn.Module] = _four_bits if config.load_in_4bit else _eight_bits
    for name in names:
        layer: Any = native.get_submodule(name)
        made = make(library, layer, config)
        if layer.bias is not None:
            made.bias = layer.bias
        # It quantises its weight where it is moved to.
        native.set_submodule(name, made.to(layer.weight.device))
    return len(names)


def _four_bits(library: Any, layer: nn.Linear, config: BitsAndBytesConfig) -> nn.Module:
    kind: dict[str, Any] = {
        "quant_type": config.bnb_4bit_quant_type,
        "compress_statistics": config.bnb_4bit_use_double_quant,
    }
    dtype, bias = config.bnb_4bit_compute_dtype, layer.bias is not None
    made: Any = library.Linear4bit(layer.in_features, layer.out_features, bias, compute_dtype=dtype, **kind)
    made.weight = library.Params4bit(layer.weight.data, requires_grad=False, **kind)
    return made  # type: ignore[no-any-return]


def _eight_bits(library: Any, layer: nn.Linear, config: BitsAndBytesConfig) -> nn.Module:
    kind: dict[str, Any] = {"has_fp16_weights": False}
    threshold, bias = config.llm_int8_threshold, layer.bias is not None
    made: Any = library.Linear8bitLt(layer.in_features, layer.out_features, bias, threshold=threshold, **kind)
    made.weight = library.Int8Params(layer.weight.data, requires_grad=False, **kind)
    return made  # type: ignore[no-any-return]

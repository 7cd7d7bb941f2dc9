"""The base model's GGUF file as a folder in the hub's format: weights dequantised to bfloat16, tokenizer, config.

What it writes is what transformers makes of the file, bit for bit (tests/default_model/test_unpack.py), without the
libraries that transformers needs for it.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dllm_kernels.blocks import plain
from dllm_plugins.default_model.stored import read_stored
from dllm_plugins.files.progress import Progress
from dllm_plugins.files.progress import quiet

#: Kinds of tokens that no text is cut into: control tokens.
_CONTROL = 3


def unpack(file: Path, folder: Path, progress: Progress = quiet) -> None:
    """Write the folder.

    :param file: the GGUF file, checked.
    :param folder: made here.
    """
    from safetensors.torch import save_file

    progress("convert", 0, 3)
    folder.mkdir()
    stored = read_stored(file, words=True)
    metadata = stored.metadata
    _write_tokenizer(metadata, folder)
    progress("convert", 1, 3)
    tensors = {name: plain(weight).contiguous() for name, weight in stored.tensors.items()}
    progress("convert", 2, 3)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    for name, settings in (("config.json", _config(metadata)), ("generation_config.json", _ends(metadata))):
        (folder / name).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    progress("convert", 3, 3)


def _ends(metadata: Mapping[str, Any]) -> dict[str, int]:
    names = {"bos": "bos", "eos": "eos", "pad": "padding"}
    return {f"{name}_token_id": metadata[f"tokenizer.ggml.{key}_token_id"] for name, key in names.items()}


def _config(metadata: Mapping[str, Any]) -> dict[str, Any]:
    llama = {key.removeprefix("llama."): value for key, value in metadata.items() if key.startswith("llama.")}
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "dtype": "bfloat16",
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": True,
        "vocab_size": llama["vocab_size"],
        "hidden_size": llama["embedding_length"],
        "intermediate_size": llama["feed_forward_length"],
        "num_hidden_layers": llama["block_count"],
        "num_attention_heads": llama["attention.head_count"],
        "num_key_value_heads": llama["attention.head_count_kv"],
        "head_dim": llama["rope.dimension_count"],
        "max_position_embeddings": llama["context_length"],
        "rms_norm_eps": llama["attention.layer_norm_rms_epsilon"],
        "rope_parameters": {"rope_theta": llama["rope.freq_base"], "rope_type": "default"},
        **_ends(metadata),
    }


def _write_tokenizer(metadata: Mapping[str, Any], folder: Path) -> None:
    """As transformers reads it: without the rule that digits are words of their own, which the denoiser never saw."""
    from tokenizers import AddedToken
    from tokenizers import Tokenizer
    from tokenizers import decoders
    from tokenizers import models
    from tokenizers import pre_tokenizers
    from tokenizers import processors

    tokens, kinds = (metadata[f"tokenizer.ggml.{key}"] for key in ("tokens", "token_type"))
    pairs = [tuple(merge.split(" ")) for merge in metadata["tokenizer.ggml.merges"]]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    found = Tokenizer(models.BPE(vocabulary, pairs, continuing_subword_prefix="", end_of_word_suffix=""))
    found.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    found.decoder = decoders.ByteLevel()
    found.post_processor = processors.TemplateProcessing(single="$A", pair="$A $B:1", special_tokens=[])
    control = [token for token, kind in zip(tokens, kinds, strict=True) if kind == _CONTROL]
    found.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in control])
    found.save(str(folder / "tokenizer.json"))
    names = {"bos": "bos", "eos": "eos", "pad": "padding", "unk": "unknown"}
    settings = {f"{name}_token": tokens[metadata[f"tokenizer.ggml.{key}_token_id"]] for name, key in names.items()}
    settings |= {"tokenizer_class": "PreTrainedTokenizerFast"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    (folder / "chat_template.jinja").write_text(metadata["tokenizer.chat_template"], encoding="utf-8")

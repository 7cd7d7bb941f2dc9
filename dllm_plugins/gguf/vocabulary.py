"""A tokenizer as a GGUF file's keys: llama.cpp's own vocabulary, and tokenizer.json as it is.

llama.cpp's programs read the first, :func:`dllm_plugins.gguf.tokenizer.tokenizer_of` the second.
A kind of tokenizer that llama.cpp has no like of is written as tokenizer.json only; the file
loads all the same.
"""

import json
from collections.abc import Mapping
from typing import Any

from gguf import TokenType

from dllm_plugins.errors import CheckpointError
from dllm_plugins.families.files import TokenIds
from dllm_plugins.gguf.architectures import Metadata
from dllm_plugins.gguf.splitting import named as splitting_of

#: Special tokens, by transformers' names and llama.cpp's.
SPECIAL = {
    "bos_token": "bos_token_id",
    "eos_token": "eos_token_id",
    "unk_token": "unknown_token_id",
    "sep_token": "seperator_token_id",
    "pad_token": "padding_token_id",
    "mask_token": "mask_token_id",
}
#: What else tokenizer_config.json says that tokenizer.json does not, and that changes texts.
SETTINGS = ("clean_up_tokenization_spaces", "padding_side", "truncation_side", "model_max_length")
JSON_KEY, SETTINGS_KEY, TEMPLATE_KEY = "tokenizer.huggingface.json", "dllm.tokenizer", "tokenizer.chat_template"


def vocabulary(tokenizer: Any, size: int, mask: int | None) -> Metadata:
    """The keys of a folder's tokenizer.

    :param tokenizer: of transformers, or the stand-in of a folder that has none.
    :param size: rows of the embedding.
    :param mask: the mask token's id, kept whether the tokenizer knows it or not.
    :raises CheckpointError: if the tokenizer has ids that the embedding has no rows for.
    """
    keys: Metadata = {"tokenizer.ggml.model": "none"}
    if not isinstance(tokenizer, TokenIds):
        keys |= _of(tokenizer, size)
    if mask is not None:
        keys["tokenizer.ggml.mask_token_id"] = mask
    return keys


def _of(tokenizer: Any, size: int) -> Metadata:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise CheckpointError(
            f"{type(tokenizer).__name__} cannot be written as tokenizer.json; save the tokenizer as one first"
        )
    spelled: str = backend.to_str()
    found = json.loads(spelled)
    ids: dict[str, int] = tokenizer.get_vocab()
    if max(ids.values(), default=0) >= size:
        raise CheckpointError(f"the tokenizer has ids up to {max(ids.values())}, the embedding only {size} rows")
    keys = _byte_level(found, ids, size) or _pieces(found, ids, size)
    for name, key in SPECIAL.items():
        number = getattr(tokenizer, f"{name}_id", None)
        if number is not None:
            keys[f"tokenizer.ggml.{key}"] = number
    keys |= _ends(tokenizer)
    templates = tokenizer.chat_template
    if isinstance(templates, Mapping):
        keys |= {TEMPLATE_KEY if name == "default" else f"{TEMPLATE_KEY}.{name}": templates[name] for name in templates}
    elif templates:
        keys[TEMPLATE_KEY] = templates
    return keys | {JSON_KEY: spelled, SETTINGS_KEY: json.dumps(_settings(tokenizer))}


def _settings(tokenizer: Any) -> dict[str, Any]:
    special = {
        name: str(getattr(tokenizer, name)) for name in (*SPECIAL, "cls_token") if getattr(tokenizer, name, None)
    }
    extra = [str(token) for token in getattr(tokenizer, "extra_special_tokens", None) or ()]
    rest = {name: getattr(tokenizer, name) for name in SETTINGS if getattr(tokenizer, name, None) is not None}
    return special | rest | ({"extra_special_tokens": extra} if extra else {})


def _ends(tokenizer: Any) -> Metadata:
    """Which special tokens it puts around a text, as seen around none."""
    around = tokenizer.encode("")
    begins = bool(around) and around[0] == tokenizer.bos_token_id
    ends = len(around) > begins and around[-1] == tokenizer.eos_token_id
    return {"tokenizer.ggml.add_bos_token": begins, "tokenizer.ggml.add_eos_token": ends}


def _byte_level(found: dict[str, Any], ids: dict[str, int], size: int) -> Metadata:
    """Byte pairs whose bytes are written as letters; empty if it is none."""
    model = found["model"]
    decoder = found.get("decoder") or {}
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model.get("merges", ())]
    if model["type"] != "BPE" or decoder.get("type") != "ByteLevel" or not merges:
        return {}
    tokens, types = _tokens(found, ids, size)
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": splitting_of(found.get("pre_tokenizer")) or "default",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.merges": merges,
    }


def _pieces(found: dict[str, Any], ids: dict[str, int], size: int) -> Metadata:
    """SentencePiece byte pairs as Llama 2 has them, where earlier tokens merge first; empty if it is none."""
    model = found["model"]
    spaced = "▁" in json.dumps(found.get("decoder"), ensure_ascii=False)
    if model["type"] != "BPE" or not model.get("byte_fallback") or not spaced:
        return {}
    tokens, types = _tokens(found, ids, size)
    for index, token in enumerate(tokens):
        if len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
            types[index] = int(TokenType.BYTE)
        elif token == model.get("unk_token"):
            types[index] = int(TokenType.UNKNOWN)
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": [-float(index) for index in range(size)],
        "tokenizer.ggml.token_type": types,
    }


def _tokens(found: dict[str, Any], ids: dict[str, int], size: int) -> tuple[list[str], list[int]]:
    """Every row's token and type; rows without a token get fillers that no text has."""
    names = {number: token for token, number in ids.items()}
    added = {item["id"]: bool(item["special"]) for item in found.get("added_tokens", ())}
    tokens, types = [], []
    for number in range(size):
        token = names.get(number)
        if token is None:
            kind = TokenType.UNUSED
            token = next(name for name in (f"[PAD{number}]", f"<|filler {number}|>") if name not in ids)
        elif number in added:
            kind = TokenType.CONTROL if added[number] else TokenType.USER_DEFINED
        else:
            kind = TokenType.NORMAL
        tokens.append(token)
        types.append(int(kind))
    return tokens, types

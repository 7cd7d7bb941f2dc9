"""The tokenizer of a GGUF file, as an object of transformers."""

import json
from typing import Any

from tokenizers import AddedToken
from tokenizers import Tokenizer
from tokenizers import decoders
from tokenizers import models
from tokenizers import normalizers
from tokenizers import processors
from transformers import PreTrainedTokenizerBase
from transformers import PreTrainedTokenizerFast

from dllm_plugins.errors import CheckpointError
from dllm_plugins.families.files import TokenIds
from dllm_plugins.files.reading import reading
from dllm_plugins.gguf.header import Header
from dllm_plugins.gguf.splitting import WHOLE_WORDS
from dllm_plugins.gguf.splitting import canonical
from dllm_plugins.gguf.splitting import splitter
from dllm_plugins.gguf.vocabulary import JSON_KEY
from dllm_plugins.gguf.vocabulary import SETTINGS_KEY
from dllm_plugins.gguf.vocabulary import SPECIAL
from dllm_plugins.gguf.vocabulary import TEMPLATE_KEY

_REMEDY = "convert the original checkpoint with `llm dllm gguf`, which keeps its tokenizer.json"
_CONTROL, _USER_DEFINED, _UNUSED = 3, 4, 5


def tokenizer_of(header: Header) -> PreTrainedTokenizerBase | TokenIds:
    """The file's tokenizer with its chat template; a stand-in if it has none.

    tokenizer.json is used where the file has it. Otherwise a byte-level vocabulary is built
    from llama.cpp's keys here, and a SentencePiece one by transformers.

    :raises CheckpointError: for a vocabulary that cannot be built, with what helps.
    """
    kind = header.metadata.get("tokenizer.ggml.model", "none")
    if JSON_KEY not in header.metadata and kind == "none":
        return TokenIds(header.path)
    with reading(f"the tokenizer of kind {kind!r} in {header.path}", _REMEDY):
        if JSON_KEY in header.metadata:
            found = _spelled(header)
        else:
            found = _byte_level(header) if kind == "gpt2" else _by_transformers(header)
        # What goes around every text is looked at by the first text only.
        found.encode("")
        return found


def _spelled(header: Header) -> PreTrainedTokenizerBase:
    backend = Tokenizer.from_str(header.metadata[JSON_KEY])
    settings = json.loads(header.metadata.get(SETTINGS_KEY) or "{}") or _special(header)
    return _dressed(header, backend, settings)


def _dressed(header: Header, backend: Tokenizer, settings: dict[str, Any]) -> PreTrainedTokenizerBase:
    found = PreTrainedTokenizerFast(tokenizer_object=backend, **settings)
    prefix = TEMPLATE_KEY + "."
    more = {key.removeprefix(prefix): text for key, text in header.metadata.items() if key.startswith(prefix)}
    template = header.metadata.get(TEMPLATE_KEY)
    found.chat_template = {"default": template, **more} if more else template
    return found


def _special(header: Header) -> dict[str, Any]:
    """Special tokens of the keys that name ids."""
    tokens = header.metadata.get("tokenizer.ggml.tokens") or []
    ids = {name: header.metadata.get(f"tokenizer.ggml.{key}") for name, key in SPECIAL.items()}
    return {
        name: AddedToken(tokens[number], normalized=False, special=True)
        for name, number in ids.items()
        if isinstance(number, int) and 0 <= number < len(tokens)
    }


def _byte_level(header: Header) -> PreTrainedTokenizerBase:
    """Built from tokens, merges and the way words are cut."""
    metadata = header.metadata
    pre = metadata.get("tokenizer.ggml.pre", "default")
    name = canonical("gpt-2" if pre == "default" else pre)
    tokens, merges = metadata.get("tokenizer.ggml.tokens"), metadata.get("tokenizer.ggml.merges")
    if name is None or not tokens or not merges:
        missing = f"the pre-tokenizer {pre!r}, which is not known here" if name is None else "no tokens or no merges"
        raise CheckpointError(f"{header.path} has {missing}; {_REMEDY}")
    types = metadata.get("tokenizer.ggml.token_type") or [1] * len(tokens)
    ids = {token: number for number, token in enumerate(tokens) if types[number] != _UNUSED}
    pairs = [tuple(merge.split(" ")) for merge in merges]
    backend = Tokenizer(models.BPE(vocab=ids, merges=pairs, ignore_merges=name in WHOLE_WORDS))
    if name in ("qwen2", "qwen35"):
        backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = splitter(name)
    backend.decoder = decoders.ByteLevel()
    for kind, add in ((_CONTROL, backend.add_special_tokens), (_USER_DEFINED, backend.add_tokens)):
        add([AddedToken(tokens[at], normalized=False) for at, found in enumerate(types) if found == kind])
    _add_ends(backend, header, name)
    return _dressed(header, backend, _special(header))


def _add_ends(backend: Tokenizer, header: Header, name: str) -> None:
    """The tokens that llama.cpp puts around a text."""
    metadata = header.metadata
    begin = metadata.get("tokenizer.ggml.add_bos_token", name == "llama-bpe")
    wanted = {
        "bos_token_id": bool(begin),
        "eos_token_id": bool(metadata.get("tokenizer.ggml.add_eos_token", False)),
    }
    ids = {key: metadata.get(f"tokenizer.ggml.{key}") for key, on in wanted.items() if on}
    tokens = metadata["tokenizer.ggml.tokens"]
    around = {key: (tokens[number], number) for key, number in ids.items() if number is not None}
    if not around:
        return
    before = [around["bos_token_id"][0]] if "bos_token_id" in around else []
    after = [around["eos_token_id"][0]] if "eos_token_id" in around else []
    backend.post_processor = processors.TemplateProcessing(
        single=[*before, "$A", *after], pair=[*before, "$A", "$B", *after], special_tokens=list(around.values())
    )


def _by_transformers(header: Header) -> PreTrainedTokenizerBase:
    found: PreTrainedTokenizerBase = PreTrainedTokenizerFast.from_pretrained(
        header.path.parent, gguf_file=header.path.name, local_files_only=True, trust_remote_code=False
    )
    mask = _special(header).get("mask_token")
    if mask is not None:
        found.add_special_tokens({"mask_token": mask})
    return found

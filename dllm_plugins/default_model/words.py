"""The base's tokenizer, out of its GGUF file.

As transformers reads it: without the rule that digits are words of their own, which the denoiser never saw.
"""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from tokenizers import AddedToken
from tokenizers import Tokenizer
from tokenizers import decoders
from tokenizers import models
from tokenizers import pre_tokenizers
from tokenizers import processors

from dllm_plugins.default_model.stored import StoredBase
from dllm_plugins.default_model.stored import read_stored
from dllm_plugins.files.reading import raised_by_library
from dllm_plugins.files.whole import made_once
from dllm_plugins.text.tokenizer import LightTokenizer

#: Kinds of tokens that no text is cut into: control tokens.
_CONTROL = 3
#: Special tokens by transformers' names and by the file's.
_SPECIAL = {"bos": "bos", "eos": "eos", "pad": "padding", "unk": "unknown"}
#: Goes up when tokenizer.json is written differently.
_REVISION = 1


def tokenizer_of(stored: StoredBase, file: Path) -> LightTokenizer:
    """The tokenizer with its chat template.

    It is kept as tokenizer.json beside the file, which is read in half the time; where that cannot be written or
    read, the tokenizer is made of the file's lists anew.

    :param stored: what the file says; `file` is where it is.
    """
    found = _kept(file) or backend_of(read_stored(file, words=True).metadata)
    special = {name: found.id_to_token(number) or "" for name, number in _special_ids(stored.metadata).items()}
    return LightTokenizer(found, special, template_of(stored.metadata))


def keep(file: Path) -> Path:
    """Write tokenizer.json beside the file, if it is not there.

    :raises OSError: if the folder cannot be written.
    """
    state = file.stat()

    def make(part: Path) -> None:
        part.write_text(backend_of(read_stored(file, words=True).metadata).to_str(), encoding="utf-8")

    return made_once(file.parent, f"{file.stem}-tokenizer", f"{_REVISION}-{state.st_mtime_ns}.json", make)


def _kept(file: Path) -> Tokenizer | None:
    with suppress(OSError):
        place = keep(file)
        try:
            return Tokenizer.from_file(str(place))
        except BaseException as error:
            if not raised_by_library(error):
                raise
            # What was damaged is written anew by the next process.
            place.unlink(missing_ok=True)
    return None


def backend_of(metadata: Mapping[str, Any]) -> Tokenizer:
    """What reads and writes.

    :param metadata: the file's lists of words included.
    """
    tokens, kinds = (metadata[f"tokenizer.ggml.{key}"] for key in ("tokens", "token_type"))
    pairs = [tuple(merge.split(" ")) for merge in metadata["tokenizer.ggml.merges"]]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    found = Tokenizer(models.BPE(vocabulary, pairs, continuing_subword_prefix="", end_of_word_suffix=""))
    found.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    found.decoder = decoders.ByteLevel()
    found.post_processor = processors.TemplateProcessing(single="$A", pair="$A $B:1", special_tokens=[])
    control = [token for token, kind in zip(tokens, kinds, strict=True) if kind == _CONTROL]
    found.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in control])
    return found


def special_of(metadata: Mapping[str, Any]) -> dict[str, str]:
    """Special tokens by transformers' names, such as `eos_token`.

    :param metadata: the file's lists of words included.
    """
    tokens = metadata["tokenizer.ggml.tokens"]
    return {name: tokens[number] for name, number in _special_ids(metadata).items()}


def _special_ids(metadata: Mapping[str, Any]) -> dict[str, int]:
    return {f"{name}_token": metadata[f"tokenizer.ggml.{key}_token_id"] for name, key in _SPECIAL.items()}


def template_of(metadata: Mapping[str, Any]) -> str:
    """The chat template."""
    return str(metadata["tokenizer.chat_template"])

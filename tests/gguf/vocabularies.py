"""Small tokenizers of the kinds there are, and what llama.cpp makes of them."""

import ctypes
from dataclasses import replace
from pathlib import Path
from typing import Any

from tokenizers import AddedToken
from tokenizers import Tokenizer
from tokenizers import decoders
from tokenizers import models
from tokenizers import normalizers
from tokenizers import pre_tokenizers
from tokenizers import processors
from tokenizers import trainers
from transformers import PreTrainedTokenizerFast

from dllm_plugins.gguf.header import Header
from dllm_plugins.gguf.header import read_header
from dllm_plugins.gguf.splitting import splitter
from dllm_plugins.gguf.tokenizer import tokenizer_of as found_tokenizer
from dllm_plugins.llama_cpp.convert import convert
from dllm_plugins.llama_cpp.library import library

from .checkpoints import make

ROWS = 700
CORPUS = [
    "The quick brown fox jumps over the lazy dog. It's 1234567 times they'll do it, isn't it?",
    "def main(args):\n    if args is None:\n\n        return 42  # nothing\n\treturn {'a': [1, 2, 3]}\r\n",
    "Größe, naïve café — déjà vu… Привет, мир! 你好，世界。 こんにちは 🙂👍🏽",
] * 3
TEXTS = [
    *CORPUS[:3],
    "HTTPServer DON'T WE'RE i'LL  x   y\n\n\n z\t\t0.5e-10 100000",
    "a<|mask|>b<|mask|><|mask|> <|end|>\n<note>c</note> <note>",
    " ",
    "\n",
    "ﬀ ½ ① ⅷ \u00a0x\u2003y",
]
TEMPLATE = "{% for m in messages %}<|start|>{{ m.role }}\n{{ m.content }}<|end|>{% endfor %}"
SPECIAL = ["<|end|>", "<|start|>", "<|mask|>"]


def tokenizer_of(header: Header) -> Any:
    """Ours; its stand-in has less than a tokenizer."""
    return found_tokenizer(header)


def byte_level(pre: str, *, begin: bool = False) -> PreTrainedTokenizerFast:
    """A small one with this way of cutting words, trained on the texts above."""
    backend = Tokenizer(models.BPE(ignore_merges=pre in ("llama-bpe", "tekken")))
    backend.pre_tokenizer = splitter(pre)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=560, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(CORPUS, trainer)
    backend.add_tokens([AddedToken("<note>", normalized=False, special=False)])
    if begin:
        number = backend.token_to_id("<|start|>")
        backend.post_processor = processors.TemplateProcessing(
            single="<|start|> $A", pair="<|start|> $A $B", special_tokens=[("<|start|>", number)]
        )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<|start|>",
        eos_token="<|end|>",
        pad_token="<|end|>",
        mask_token="<|mask|>",
    )
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def pieces() -> PreTrainedTokenizerFast:
    """As Llama 2 has it: pieces with a mark for spaces, bytes for what has no piece."""
    found = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    words = ("▁", "t", "h", "e", "n", "o", "a", "i", "▁t", "he", "▁the", "in", "on", "▁a", "▁the" + "n")
    found += words
    ids = {piece: number for number, piece in enumerate(found)}
    merges = [("▁", "t"), ("h", "e"), ("▁t", "he"), ("i", "n"), ("o", "n"), ("▁", "a"), ("▁the", "n")]
    backend = Tokenizer(models.BPE(vocab=ids, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", bos_token="<s>", eos_token="</s>")


def converted(tokenizer: PreTrainedTokenizerFast, folder: Path, mask_id: int | None = None) -> Header:
    """The header of a checkpoint with this tokenizer, whose mask it takes unless another is said."""
    mask = 699 if tokenizer.mask_token_id is None else tokenizer.mask_token_id
    place = make(folder / "folder", "sdar", vocab_size=ROWS, mask_token_id=mask)
    tokenizer.save_pretrained(place)
    return read_header(convert(place, folder / "out.gguf", mask_id=mask_id))


def without_json(header: Header) -> Header:
    """As if somebody else had converted it."""
    ours = ("tokenizer.huggingface.json", "dllm.")
    return replace(header, metadata={key: item for key, item in header.metadata.items() if not key.startswith(ours)})


def by_llama_cpp(path: Path, text: str) -> list[int]:
    """Ids as llama.cpp's own tokenizer gives them."""
    lib: Any = library()
    params = lib.llama_model_default_params()
    params.vocab_only = True
    model = lib.llama_model_load_from_file(str(path).encode(), params)
    raw = text.encode()
    room = (ctypes.c_int32 * (len(raw) + 8))()
    try:
        count = lib.llama_tokenize(lib.llama_model_get_vocab(model), raw, len(raw), room, len(room), True, True)
        return list(room[:count])
    finally:
        lib.llama_model_free(model)

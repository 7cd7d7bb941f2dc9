"""Tokenizers go into a GGUF file and come out of it, as themselves and as llama.cpp's own."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer
from tokenizers import models
from transformers import PreTrainedTokenizerFast

pytest.importorskip("llama_cpp", reason="pip install 'dllm-plugins[gguf]'")

from gguf import GGUFWriter

from dllm_plugins.default_model.base_model import base_folder
from dllm_plugins.default_model.base_model import gguf_path
from dllm_plugins.default_model.base_model import is_ready
from dllm_plugins.errors import CheckpointError
from dllm_plugins.families.files import TokenIds
from dllm_plugins.families.files import load_tokenizer
from dllm_plugins.gguf.header import read_header
from dllm_plugins.gguf.splitting import SPLITS
from dllm_plugins.gguf.splitting import canonical
from dllm_plugins.gguf.splitting import named
from dllm_plugins.gguf.splitting import splitter
from dllm_plugins.llama_cpp.convert import convert

from .checkpoints import make
from .passes import llama_logits
from .vocabularies import ROWS
from .vocabularies import TEMPLATE
from .vocabularies import TEXTS
from .vocabularies import by_llama_cpp
from .vocabularies import byte_level
from .vocabularies import converted
from .vocabularies import pieces
from .vocabularies import tokenizer_of
from .vocabularies import without_json


@pytest.mark.parametrize("pre", SPLITS)
def test_byte_level_tokenizers_come_back(pre: str, tmp_path: Path) -> None:
    """Ours with tokenizer.json, and another's with llama.cpp's keys alone."""
    tokenizer = byte_level(pre, begin=pre == "llama-bpe")
    header = converted(tokenizer, tmp_path)
    assert header.metadata["tokenizer.ggml.pre"] == pre
    for found in (tokenizer_of(header), tokenizer_of(without_json(header))):
        for text in TEXTS:
            ids = tokenizer.encode(text)
            assert found.encode(text) == ids
            for skip in (False, True):
                kept = found.decode(ids, skip_special_tokens=skip)
                assert kept == tokenizer.decode(ids, skip_special_tokens=skip)
        chat = [{"role": "user", "content": "hi"}]
        assert found.apply_chat_template(chat, tokenize=False) == tokenizer.apply_chat_template(chat, tokenize=False)
        assert found.eos_token_id == tokenizer.eos_token_id
    assert tokenizer_of(header).special_tokens_map == tokenizer.special_tokens_map


@pytest.mark.parametrize("pre", ["gpt-2", "smollm", "qwen2", "llama-bpe", "seed-coder"])
def test_llama_cpp_cuts_the_same_words(pre: str, tmp_path: Path) -> None:
    """So that its own programs can run the file."""
    tokenizer = byte_level(pre, begin=pre == "llama-bpe")
    header = converted(tokenizer, tmp_path)
    for text in TEXTS[:5]:
        assert by_llama_cpp(header.path, text) == tokenizer.encode(text)


def test_the_mask_is_kept(tmp_path: Path) -> None:
    """As the tokenizer's token, and as the id that positions are opened with, which may be another."""
    tokenizer = byte_level("qwen2")
    header = converted(tokenizer, tmp_path, mask_id=699)
    assert header.metadata["tokenizer.ggml.mask_token_id"] == 699
    assert tokenizer_of(header).mask_token_id == tokenizer.mask_token_id == 2
    other = replace(header, metadata={**without_json(header).metadata, "tokenizer.ggml.mask_token_id": 2})
    assert tokenizer_of(other).mask_token == "<|mask|>"


def test_several_chat_templates_are_kept(tmp_path: Path) -> None:
    tokenizer = byte_level("qwen2")
    tokenizer.chat_template = {"default": TEMPLATE, "tool": "{{ messages }}"}
    assert tokenizer_of(converted(tokenizer, tmp_path)).chat_template == tokenizer.chat_template


def test_dreams_two_files_are_kept(tmp_path: Path) -> None:
    """Its tokenizer comes as vocab.json and merges.txt."""
    source = json.loads(byte_level("qwen2").backend_tokenizer.to_str())
    folder = make(tmp_path / "folder", "dream", vocab_size=ROWS, mask_token_id=699)
    (folder / "vocab.json").write_text(json.dumps(source["model"]["vocab"]))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(map(" ".join, source["model"]["merges"])))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "DreamTokenizer"}))
    header = read_header(convert(folder, tmp_path / "out.gguf"))
    assert header.metadata["tokenizer.ggml.pre"] == "qwen2"
    found, wanted = tokenizer_of(header), byte_level("qwen2")
    for text in TEXTS[:4]:
        assert found.encode(text) == wanted.encode(text)


def test_pieces_come_back(tmp_path: Path) -> None:
    tokenizer = pieces()
    header = converted(tokenizer, tmp_path)
    assert header.metadata["tokenizer.ggml.model"] == "llama"
    found = tokenizer_of(header)
    for text in ("then on the in a", "  then\nö", "the<s>on"):
        assert found.encode(text) == tokenizer.encode(text)
        assert found.decode(found.encode(text)) == tokenizer.decode(tokenizer.encode(text))
    assert by_llama_cpp(header.path, "then on the in a ö") == tokenizer.encode("then on the in a ö")


def test_other_kinds_are_kept_for_us_and_load_in_llama_cpp(tmp_path: Path) -> None:
    """llama.cpp is told there is no vocabulary, which is true of its own kinds."""
    backend = Tokenizer(models.WordLevel({"[UNK]": 0, "a": 1, "b": 2}, unk_token="[UNK]"))
    backend.pre_tokenizer = splitter("gpt-2")
    header = converted(PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]"), tmp_path)
    assert header.metadata["tokenizer.ggml.model"] == "none"
    assert tokenizer_of(header).encode("ab") == [0]
    assert tokenizer_of(header).encode("a") == [1]
    assert llama_logits(header.path, [1, 2], causal=True)[0].shape == (2, ROWS)


def test_a_folder_without_tokenizer_has_none_in_its_file(tmp_path: Path) -> None:
    header = read_header(convert(make(tmp_path / "folder", "dream"), tmp_path / "out.gguf"))
    found = tokenizer_of(header)
    assert isinstance(found, TokenIds)
    with pytest.raises(CheckpointError, match=r"out\.gguf has no tokenizer"):
        found.encode("a")


def test_ids_without_rows_are_refused(tmp_path: Path) -> None:
    folder = make(tmp_path / "folder", "dream")
    byte_level("qwen2").save_pretrained(folder)
    with pytest.raises(CheckpointError, match="only 233 rows"):
        convert(folder, tmp_path / "out.gguf", mask_id=232)


def test_unknown_vocabularies_are_refused_with_what_helps(tmp_path: Path) -> None:
    metadata = without_json(converted(byte_level("qwen2"), tmp_path)).metadata
    header = read_header(tmp_path / "out.gguf")
    for key, value, reason in (
        ("tokenizer.ggml.pre", "viking", "'viking', which is not known"),
        ("tokenizer.ggml.merges", [], "no tokens or no merges"),
    ):
        with pytest.raises(CheckpointError, match=f"{reason}.*llm dllm gguf"):
            tokenizer_of(replace(header, metadata={**metadata, key: value}))


def test_pieces_of_somebody_else_are_built_by_transformers(tmp_path: Path) -> None:
    """And kinds it cannot build are refused with what helps."""
    source = converted(pieces(), tmp_path)
    for kind in ("llama", "rwkv"):
        writer = GGUFWriter(tmp_path / f"{kind}.gguf", "llama")
        for key, (value, inner) in source.types.items():
            if key.startswith("tokenizer.ggml."):
                writer.add_key_value(key, source.metadata[key], value, inner)
        writer.kv_data[0]["tokenizer.ggml.model"].value = kind
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.close()
    found = tokenizer_of(read_header(tmp_path / "llama.gguf"))
    assert found.encode("then on the in a", add_special_tokens=False) == pieces().encode("then on the in a")
    with pytest.raises(CheckpointError, match=r"kind 'rwkv'.*llm dllm gguf"):
        tokenizer_of(read_header(tmp_path / "rwkv.gguf"))


def test_names_and_spellings_belong_together() -> None:
    for name in SPLITS:
        assert named(json.loads(splitter(name).__getstate__())) == name
        assert canonical(name) == name
    assert canonical("llada-moe") == "bailingmoe"
    assert canonical("viking") is None
    assert named(None) is None
    assert named({"type": "Split", "pattern": {"Regex": "x"}, "behavior": "Removed"}) is None


@pytest.mark.skipif(not is_ready(), reason="python -m dllm_plugins setup")
def test_smollm2_from_its_own_gguf_file() -> None:
    """A file somebody else wrote gives the ids of llama.cpp, and of the folder that transformers made of it.

    transformers leaves out that this vocabulary's digits are words of their own, which shows
    behind two spaces, and in digits other than 0 to 9.
    """
    found = tokenizer_of(read_header(gguf_path()))
    wanted: Any = load_tokenizer(base_folder())
    chat = [{"role": "user", "content": "What's 12345 + 678? It's for the größe of ２ files."}]
    for text in (*TEXTS[:4], Path(__file__).read_text(), wanted.apply_chat_template(chat, tokenize=False)):
        ids = found.encode(text)
        assert by_llama_cpp(gguf_path(), text) == ids
        assert found.decode(ids) == wanted.decode(ids)
        plain = re.sub(r"\s+(?=\d)", " ", re.sub(r"[½①ⅷ]", "", text))
        assert found.encode(plain) == wanted.encode(plain)
    assert [found.decode(token) for token in found.encode("x  2")] == ["x", "  ", "2"]
    assert found.chat_template == wanted.chat_template
    assert found.special_tokens_map == wanted.special_tokens_map

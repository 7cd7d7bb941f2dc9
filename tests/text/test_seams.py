"""Templates as token ids: the seams between fixed texts and gaps."""

from typing import Any

import pytest
from tokenizers import Tokenizer
from tokenizers import decoders
from tokenizers import models
from tokenizers import normalizers
from tokenizers import pre_tokenizers
from tokenizers import processors
from transformers import PreTrainedTokenizerFast

from dllm_plugins.errors import RequestError
from dllm_plugins.template import Gap
from dllm_plugins.template import Template
from dllm_plugins.text.chats import encode_text
from dllm_plugins.text.seams import around
from dllm_plugins.text.seams import parts_of

LETTERS = [chr(number) for number in range(32, 127)]
GAP = Gap(max_tokens=4)


def sentencepiece() -> PreTrainedTokenizerFast:
    """Puts a space before every text, as Llama's does, and `<s>` before that and `</s>` behind."""
    vocabulary = {
        name: number for number, name in enumerate(["<unk>", "<s>", "</s>", "▁", "▁re", "re", *LETTERS, "\n"])
    }
    backend = Tokenizer(models.BPE(vocabulary, [("▁", "re"), ("r", "e")], unk_token="<unk>"))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    backend.post_processor = processors.TemplateProcessing("<s> $A </s>", None, [("<s>", 1), ("</s>", 2)])
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def bytelevel() -> PreTrainedTokenizerFast:
    """Bytes, and two spaces that are one token."""
    names = ["<unk>", "</s>", "ĠĠ", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    backend = Tokenizer(
        models.BPE({name: number for number, name in enumerate(names)}, [("Ġ", "Ġ")], unk_token="<unk>")
    )
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>", unk_token="<unk>")


def pieces(tokenizer: Any, template: Template) -> list[Any]:
    return parts_of(tokenizer, template, lambda text, special: encode_text(tokenizer, text, frozenset({1}), special))


@pytest.mark.parametrize("tokenizer", [sentencepiece(), bytelevel()], ids=["sentencepiece", "bytes"])
@pytest.mark.parametrize("texts", [("say", "re-do it"), ("say ", " re"), ("def f():\n", "\n  return"), ("a  ", " b")])
def test_fixed_texts_read_as_they_were_given(tokenizer: Any, texts: tuple[str, str]) -> None:
    """Nothing is put between them and the gap, neither a space nor a mark of a beginning."""
    found = pieces(tokenizer, Template(texts[0], GAP, texts[1]))
    [gap] = [number for number, part in enumerate(found) if isinstance(part, Gap)]
    ids = [token for part in found if not isinstance(part, Gap) for token in part]
    assert tokenizer.decode(ids, skip_special_tokens=True) == "".join(texts)
    behind = [token for part in found[gap + 1 :] for token in part]
    before = tokenizer("x", add_special_tokens=False).input_ids
    assert tokenizer.decode([*before, *behind], skip_special_tokens=True) == f"x{texts[1]}"


def test_what_a_tokenizer_puts_around_texts_stands_around_the_whole() -> None:
    """Once, not around every piece; not behind a gap that ends it; and not behind a chat, whose template has it."""
    tokenizer = sentencepiece()
    assert around(lambda text, special: encode_text(tokenizer, text, frozenset({1}), special)) == ([1], [2])
    begin, _, gap, _, end = pieces(tokenizer, Template("a", GAP, "b"))
    assert (begin, gap, end) == ([1], GAP, [2])
    assert pieces(tokenizer, Template(GAP, "b"))[0] == [1]
    assert pieces(tokenizer, Template("a", GAP))[-1] == GAP
    chat = [{"role": "user", "content": "hi"}]
    assert 1 not in pieces(tokenizer, Template("a", GAP, "b", chat=chat))[0]


def test_control_tokens_that_a_text_spells_are_text() -> None:
    """Nothing in a fixed text ends a text."""
    tokenizer = bytelevel()
    before, _, behind = pieces(tokenizer, Template("</s>", GAP, "x</s>"))
    assert tokenizer.eos_token_id not in (*before, *behind)
    assert tokenizer.decode(behind) == "x</s>"


def test_a_text_that_reads_otherwise_is_refused_where_it_counts() -> None:
    """What is walked through an automaton is what stands in the text."""
    tokenizer = sentencepiece()

    def read(text: str, special: bool) -> list[int]:
        return encode_text(tokenizer, text, frozenset({1}), special)

    for fine in (Template("say", GAP, "re-do it"), Template(GAP, " re", chat=[{}])):
        assert parts_of(tokenizer, fine, read, exact=True) == parts_of(tokenizer, fine, read)
    lost = Template("say", GAP, "re\u4e2d")
    assert parts_of(tokenizer, lost, read)
    with pytest.raises(RequestError, match="the tokenizer reads the fixed text 're\u4e2d' back as 're'"):
        parts_of(tokenizer, lost, read, exact=True)

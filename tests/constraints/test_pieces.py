"""The bytes of tokens, for tokenizers that spell them in other ways, and answers in such tokens."""

import re

import pytest
from tokenizers import AddedToken
from tokenizers import Tokenizer
from tokenizers import decoders
from tokenizers import models
from tokenizers import normalizers
from tokenizers import pre_tokenizers
from transformers import PreTrainedTokenizerFast

from dllm_plugins import Model
from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins.constraints.values import Regex
from dllm_plugins.denoisers.kernel import KernelDenoiser
from dllm_plugins.errors import OptionError
from dllm_plugins.text.pieces import pieces_of
from tests.modes.tiny_models import random_network
from tests.modes.tiny_models import spec

#: A space in front, spaces inside, an accent in one piece and in two bytes.
TEXTS = ["▁", "▁a", "a", "b", "▁b", "ab", "é", "<0xC3>", "<0xA9>", *"cdefghijklmnopq", *"rst"]


def _sentencepiece(*, metaspace: bool) -> PreTrainedTokenizerFast:
    vocabulary = {text: number for number, text in enumerate(TEXTS)}
    backend = Tokenizer(models.BPE(vocabulary, [], unk_token="c", byte_fallback=True))
    if metaspace:
        backend.pre_tokenizer = pre_tokenizers.Metaspace()
        backend.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()])
    else:
        # As Llama 2's tokenizer.json has it.
        backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        backend.decoder = decoders.Sequence(steps)
    backend.add_tokens([AddedToken("q!", special=False)])
    backend.add_special_tokens(["<eos>", "<s>", "<d>", "<m>"])
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<eos>", mask_token="<m>")


@pytest.mark.parametrize("metaspace", [False, True])
def test_pieces_of_sentencepiece(metaspace: bool) -> None:
    """Spaces, single bytes, added tokens as they are written; control tokens have no text."""
    tokenizer = _sentencepiece(metaspace=metaspace)
    found = pieces_of(tokenizer, 40)
    assert found.strips
    assert found.texts[:9] == (b" ", b" a", b"a", b"b", b" b", b"ab", "é".encode(), b"\xc3", b"\xa9")
    assert found.texts[len(TEXTS) : len(TEXTS) + 2] == (b"q!" if metaspace else b" q!", None)
    assert found.texts[-1] is None


@pytest.mark.parametrize("metaspace", [False, True])
@pytest.mark.parametrize("pattern", ["(a|b){2,5}", " a b?", "é{1,3}", "a( b)*é", "q!(ab)+"])
def test_answers_in_its_tokens(metaspace: bool, pattern: str) -> None:
    """A space at the beginning that the tokenizer takes away is no part of the text, and half a character no answer."""
    tokenizer = _sentencepiece(metaspace=metaspace)
    stop = tokenizer.convert_tokens_to_ids("<eos>")
    for mode in ("ar", "blocks"):
        made = spec(mode, stop_ids=frozenset({stop}))
        engine = Model("tiny", KernelDenoiser(random_network(1), made), tokenizer).engine()
        config = SamplingConfig(mode=mode, max_new_tokens=14, temperature=1.2, constraint=Regex(pattern))
        for seed in range(6):
            [found] = engine.generate([Request([2, 3], config.with_options(seed=seed))])
            assert re.fullmatch(pattern, found.text), found.text


def test_pieces_that_depend_on_their_place_are_refused() -> None:
    """Words that a decoder joins as it likes."""
    backend = Tokenizer(models.WordLevel({"a": 0, "b": 1}, unk_token="a"))
    backend.decoder = decoders.WordPiece()
    with pytest.raises(OptionError, match="decoder WordPiece"):
        pieces_of(PreTrainedTokenizerFast(tokenizer_object=backend), 2)
    with pytest.raises(OptionError, match="decoder None"):
        pieces_of(object(), 2)

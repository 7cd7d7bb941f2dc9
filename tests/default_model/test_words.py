"""The default model's tokenizer, which needs no transformers, beside transformers' own."""

import random
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerBase
from transformers import PreTrainedTokenizerFast

from dllm_plugins.default_model import words
from dllm_plugins.default_model.base_model import gguf_path
from dllm_plugins.default_model.base_model import require_base
from dllm_plugins.default_model.stored import read_stored
from dllm_plugins.default_model.words import tokenizer_of
from dllm_plugins.text import chats
from dllm_plugins.text.answer import joined_tokens
from dllm_plugins.text.tokenizer import LightTokenizer

pytestmark = pytest.mark.slow

TEXTS = (
    "",
    " ",
    "  leading,  double  and trailing ",
    "\n\n\t\r\n",
    "Why is the sky blue? It's 12345678901 o'clock; don't you'LL we've.",
    "def f(x):\n    return x ** 2  # \u00e9\u0301 na\u00efve caf\u00e9",
    "\u65e5\u672c\u8a9e \u4e2d\u6587 \ud55c\uad6d\uc5b4 \u0639\u0631\u0628\u064a \u05e2\u05d1 \u0e44\u0e17\u0e22",
    "\U0001f600\U0001f468\u200d\U0001f469\u200d\U0001f467 \u2028\u00a0\u200b\ufeff\x00\x7f",
    "<|im_start|>user\nhi<|im_end|>\n<|endoftext|><|im_end|",
    "<repo_name><jupyter_code>x<fim_prefix> <empty_output>",
    "a" * 500,
)
CHATS = (
    [{"role": "user", "content": "hi"}],
    [{"role": "system", "content": "Be brief."}, {"role": "user", "content": " Why?\n"}],
    [
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "two \u4e8c"},
        {"role": "user", "content": "three"},
    ],
)


@pytest.fixture(scope="module")
def ours() -> LightTokenizer:
    """As the default model has it."""
    return tokenizer_of(read_stored(gguf_path()), gguf_path())


@pytest.fixture(scope="module")
def theirs() -> Any:
    """As transformers loads it."""
    found: Any = PreTrainedTokenizerFast.from_pretrained(require_base())
    return found


def drawn(size: int) -> str:
    """Characters from everywhere but halves of pairs."""
    draw = random.Random(size)
    ranges = (range(32, 127), range(0xD800), range(0xE000, 0x110000))
    return "".join(chr(draw.choice(draw.choice(ranges))) for _ in range(size))


def test_ids_and_text_are_those_of_transformers(ours: LightTokenizer, theirs: Any) -> None:
    """Of all kinds of text, with and without what goes around it; of ids that make no text, too."""
    for text in (*TEXTS, *map(drawn, range(1, 200))):
        for special in (False, True):
            ids = ours.encode(text, add_special_tokens=special)
            assert ids == theirs.encode(text, add_special_tokens=special)
        for skipped in (False, True):
            assert ours.decode(ids, skip_special_tokens=skipped) == theirs.decode(ids, skip_special_tokens=skipped)
    draw = random.Random(0)
    for size in range(100):
        ids = [draw.randrange(30 if size % 2 else len(theirs)) for _ in range(size)]
        assert ours.decode(ids, True) == theirs.decode(ids, True)
        assert ours.convert_ids_to_tokens(ids) == theirs.convert_ids_to_tokens(ids)


@pytest.mark.parametrize("chat", CHATS)
def test_chats_are_those_of_transformers(ours: LightTokenizer, theirs: Any, chat: list[dict[str, str]]) -> None:
    """The template's text, by which chats are read; and whatever only transformers can do with them."""
    wanted = theirs.apply_chat_template(chat, add_generation_prompt=True)["input_ids"]
    assert chats.encode_chat(ours, chat, frozenset((2, 49152)), "m") == wanted
    assert ours.apply_chat_template(chat, add_generation_prompt=True)["input_ids"] == wanted


def test_control_tokens_that_are_typed_stay_text(ours: LightTokenizer, theirs: Any) -> None:
    """By the same way for both."""
    typed = [{"role": "user", "content": "say <|im_end|> and <|endoftext|>"}]
    found = [chats.encode_chat(tokenizer, typed, frozenset((2,)), "m") for tokenizer in (ours, theirs)]
    assert found[0] == found[1]
    assert found[0].count(2) == chats.encode_chat(ours, CHATS[0], frozenset((2,)), "m").count(2)
    for special in (False, True):
        texts = [
            chats.encode_text(tokenizer, "<|im_start|>a", frozenset((2,)), special) for tokenizer in (ours, theirs)
        ]
        assert texts[0] == texts[1]


def test_what_it_says_of_itself(ours: LightTokenizer, theirs: Any) -> None:
    """Everything that readers of tokenizers ask for."""
    for name in ("special_tokens_map", "chat_template", "unk_token_id", "clean_up_tokenization_spaces"):
        assert getattr(ours, name) == getattr(theirs, name), name
    for name in ("mask_token_id", "eos_token_id", "eos_token", "pad_token_id", "vocab_size"):
        assert getattr(ours, name) == getattr(theirs, name), name
    assert len(ours) == len(theirs)
    assert set(ours.all_special_ids) == set(theirs.all_special_ids)
    assert {number: str(token) for number, token in ours.added_tokens_decoder.items()} == {
        number: str(token) for number, token in theirs.added_tokens_decoder.items()
    }
    assert ours.get_chat_template() == theirs.get_chat_template()
    assert joined_tokens(ours) == joined_tokens(theirs)


def test_transformers_own_is_at_hand(ours: LightTokenizer, theirs: Any) -> None:
    """For whatever else they can: batches, truncation, offsets. What neither has is an AttributeError."""
    assert isinstance(ours.in_transformers, PreTrainedTokenizerBase)
    assert ours(["a b", "c"], padding=True)["input_ids"] == theirs(["a b", "c"], padding=True)["input_ids"]
    assert ours.encode("a b c d", truncation=True, max_length=2) == theirs.encode("a b c d")[:2]
    assert ours.encode("a b c d") == theirs.encode("a b c d")
    assert ours.decode(5) == theirs.decode(5)
    with pytest.raises(AttributeError):
        ours.no_such_thing  # noqa: B018
    assert not hasattr(ours, "_private")


def test_a_kept_tokenizer_that_is_damaged_is_made_anew(
    tmp_path: Path, ours: LightTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And one that cannot be kept is made for this process alone."""
    file = tmp_path / "base.gguf"
    file.symlink_to(gguf_path())
    kept = words.keep(file)
    kept.write_text("{")
    stored = read_stored(file)
    assert tokenizer_of(stored, file).encode(TEXTS[4]) == ours.encode(TEXTS[4])
    assert not kept.exists()
    monkeypatch.setattr(words, "made_once", _refuse)
    assert tokenizer_of(stored, file).encode(TEXTS[4]) == ours.encode(TEXTS[4])
    assert list(tmp_path.iterdir()) == [file]


def _refuse(*_arguments: object) -> Path:
    raise OSError("read-only")

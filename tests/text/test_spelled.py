"""Control tokens that users spell: ordinary text in every chat and prompt, with tokenizers of any kind."""

from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from tokenizers import AddedToken
from tokenizers import Regex
from tokenizers import Tokenizer
from tokenizers import decoders
from tokenizers import models
from tokenizers import normalizers
from tokenizers import pre_tokenizers
from tokenizers import processors
from transformers import PreTrainedTokenizerBase
from transformers import PreTrainedTokenizerFast

from dllm_plugins import Model
from dllm_plugins.errors import RequestError
from dllm_plugins.families.layouts import LAYOUTS
from dllm_plugins.text.chats import encode_chat
from dllm_plugins.text.chats import encode_text

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<|turn|>{{ m.role }}\n{{ m.content | trim }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|turn|>assistant\n{% endif %}"
)
SPECIAL = ["<s>", "<|im_end|>", "<|mask|>", "[MASK]", "<|eot_id|>"]
#: Not marked as special: one that the template writes, one that a family masks with, and one that models think in.
PLAIN = ["<|turn|>", "<hole>", "<think>", "</think>"]
LETTERS = "abcdefghijklmnopqrstuvwxyzA_<>|[]/? \n.:"


def dressed(backend: Tokenizer, special: Sequence[str] = SPECIAL, **options: Any) -> PreTrainedTokenizerBase:
    """With the control tokens of these tests."""
    backend.add_special_tokens([AddedToken(name, normalized=False) for name in special])
    backend.add_tokens([AddedToken(name, normalized=False) for name in PLAIN])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, chat_template=TEMPLATE, bos_token="<s>", eos_token="<|im_end|>", **options
    )


def byte_pairs(special: Sequence[str] = SPECIAL) -> PreTrainedTokenizerBase:
    """As GPT-2, with a token that begins each text."""
    names = sorted(pre_tokenizers.ByteLevel.alphabet())
    ids = {name: place for place, name in enumerate([*names, "us", "Ċi", "<|", "im"])}
    merges = [("u", "s"), ("Ċ", "i"), ("<", "|"), ("i", "m")]
    backend = Tokenizer(models.BPE(ids, merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    found = dressed(backend, special)
    backend.post_processor = processors.TemplateProcessing("<s> $A", "<s> $A $B", [("<s>", backend.token_to_id("<s>"))])
    return found


def pieces() -> PreTrainedTokenizerBase:
    """As Llama 2: control tokens stand in the vocabulary itself, and a space comes first."""
    names = [
        "<unk>",
        *SPECIAL,
        *(letter.replace(" ", "▁") for letter in LETTERS),
        *(f"<0x{n:02X}>" for n in range(256)),
    ]
    backend = Tokenizer(
        models.BPE({name: n for n, name in enumerate(names)}, [], unk_token="<unk>", byte_fallback=True)
    )
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return dressed(backend, unk_token="<unk>")


def unigram() -> PreTrainedTokenizerBase:
    """As T5: control tokens are pieces that a text could be cut into."""
    names = [("<unk>", 0.0), *((name, 0.0) for name in SPECIAL), *((letter, -9.0) for letter in LETTERS)]
    backend = Tokenizer(models.Unigram(names, unk_id=0))
    backend.decoder = decoders.Fuse()
    return dressed(backend, unk_token="<unk>")


def words() -> PreTrainedTokenizerBase:
    """Whole words and marks, control tokens among them; what is unknown becomes one token."""
    names = ["<unk>", *SPECIAL, *PLAIN, "what", "is", "for", "user", "assistant", "system"]
    backend = Tokenizer(models.WordLevel({name: n for n, name in enumerate(names)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"\s+"), "removed")
    return dressed(backend, unk_token="<unk>")


KINDS = [byte_pairs, pieces, unigram, words]
ChatOf = Callable[[str], list[dict[str, str]]]
CHATS: list[ChatOf] = [
    lambda text: [{"role": "user", "content": text}],
    lambda text: [{"role": "system", "content": text}, {"role": "user", "content": "what"}],
    lambda text: [
        {"role": "user", "content": "what"},
        {"role": "assistant", "content": text},
        {"role": "user", "content": "is"},
    ],
]


def control_of(tokenizer: Any) -> frozenset[int]:
    """What a model's spec names."""
    return frozenset(tokenizer.convert_tokens_to_ids(["<|mask|>", "<hole>", "<|im_end|>"]))


def theirs(tokenizer: Any, chat: list[dict[str, str]]) -> list[int]:
    """What transformers gives."""
    found = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=True)
    return list(found["input_ids"])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("chat_of", CHATS)
def test_ordinary_chats_are_as_in_transformers(kind: Callable[[], PreTrainedTokenizerBase], chat_of: ChatOf) -> None:
    """The very ids, thoughts and marks of no meaning included."""
    tokenizer = kind()
    for text in ("what is for", "a < b |im_end| [x]", "  two\n\nlines ", "é 日本語 \U000f0000", "<think>what</think>"):
        assert encode_chat(tokenizer, chat_of(text), control_of(tokenizer), "m") == theirs(tokenizer, chat_of(text))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("chat_of", CHATS)
@pytest.mark.parametrize("token", [*SPECIAL, "<hole>"])
def test_a_spelled_token_is_text(kind: Callable[[], PreTrainedTokenizerBase], chat_of: ChatOf, token: str) -> None:
    """As many control tokens as the template writes, and the same text as before."""
    tokenizer: Any = kind()
    control = control_of(tokenizer)
    for text in (f"what is {token} for", token, f"{token}{token}\n", f"<|{token}|>"):
        ids = encode_chat(tokenizer, chat_of(text), control, "m")
        harmless = encode_chat(tokenizer, chat_of("what"), control, "m")
        watched = control | set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
        assert [found for found in ids if found in watched] == [found for found in harmless if found in watched]
        if tokenizer.unk_token_id is None or kind is pieces:
            expected = tokenizer.decode(theirs(tokenizer, chat_of(text)), skip_special_tokens=False)
            assert tokenizer.decode(ids, skip_special_tokens=False).replace(" ", "") == expected.replace(" ", "")


def test_what_stands_beside_is_tokenised_in_one() -> None:
    """A spelled token is read as by a tokenizer that has never heard of it, with what stands around it."""
    tokenizer: Any = byte_pairs()
    without: Any = byte_pairs(SPECIAL[:-1])
    for chat_of in CHATS:
        chat = chat_of("i<|eot_id|>us <|eot_id|> <|eot_id|>\n")
        ids = encode_chat(tokenizer, chat, frozenset(), "m")
        assert tokenizer.convert_ids_to_tokens(ids) == without.convert_ids_to_tokens(theirs(without, chat))


def test_turns_of_the_template_and_thoughts_of_the_model() -> None:
    """A token that the template writes is control though it is not special; what an assistant thought is kept."""
    tokenizer: Any = byte_pairs()
    turn, think = tokenizer.convert_tokens_to_ids(["<|turn|>", "<think>"])
    asked = encode_chat(tokenizer, [{"role": "user", "content": "<|turn|>assistant <think>"}], frozenset(), "m")
    assert (asked.count(turn), asked.count(think)) == (2, 1)
    history = [
        {"role": "user", "content": "is"},
        {"role": "assistant", "content": "<think>what</think> for <|im_end|>"},
        {"role": "user", "content": "is"},
    ]
    ids = encode_chat(tokenizer, history, frozenset(), "m")
    assert (ids.count(think), ids.count(tokenizer.eos_token_id)) == (1, 3)


@pytest.mark.parametrize("kind", KINDS)
def test_prompts_as_text(kind: Callable[[], PreTrainedTokenizerBase]) -> None:
    """With and without what the tokenizer puts around texts."""
    tokenizer: Any = kind()
    control = control_of(tokenizer)
    for special in (True, False):
        plain = encode_text(tokenizer, "what is for", control, special)
        assert plain == tokenizer.encode("what is for", add_special_tokens=special)
        ids = encode_text(tokenizer, "what <|mask|> is <s> [MASK]<hole>", control, special)
        watched = control | set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
        assert [found for found in ids if found in watched] == [found for found in plain if found in watched]


def test_a_name_in_other_letters() -> None:
    """Tokens that a tokenizer finds in normalised text are text too, however they are written."""
    backend = Tokenizer(models.WordLevel({"<unk>": 0, "a": 1, "<mask>": 2}, unk_token="<unk>"))
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.add_special_tokens([AddedToken("<mask>", normalized=True)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", mask_token="<mask>")
    assert 2 in tokenizer.encode("a <MASK> a")
    assert 2 not in encode_text(tokenizer, "a <MASK> a", frozenset({2}), True)


def test_templates_that_change_a_spelled_token() -> None:
    """Refused where it would not come out as it was typed."""
    tokenizer: Any = byte_pairs()
    tokenizer.chat_template = (
        "{{ bos_token }}{% for m in messages %}{{ m.content | tojson(ensure_ascii=True) }}{% endfor %}"
    )
    with pytest.raises(RequestError, match="the chat template changes that text; write the token another way"):
        encode_chat(tokenizer, [{"role": "user", "content": "<|im_end|>"}], frozenset(), "m")


@pytest.mark.parametrize("name", sorted(name for name, layout in LAYOUTS.items() if layout.chat_template))
def test_templates_of_families(name: str) -> None:
    """All families' own templates, with a chat and with a spelled token."""
    tokenizer: Any = byte_pairs()
    tokenizer.chat_template = LAYOUTS[name].chat_template
    chat = CHATS[2]("fine")
    assert encode_chat(tokenizer, chat, frozenset(), name) == theirs(tokenizer, chat)
    ids = encode_chat(tokenizer, CHATS[2]("<|mask|> <|eot_id|>"), frozenset(), name)
    names = tokenizer.convert_ids_to_tokens(ids)
    assert "<|mask|>" not in names
    assert names.count("<|eot_id|>") == tokenizer.convert_ids_to_tokens(theirs(tokenizer, chat)).count("<|eot_id|>")


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        ([{"role": "user<|im_end|>", "content": "x"}], "has the role 'user<|im_end|>'; use one of"),
        ([{"role": "user", "content": None}], "NoneType as its content"),
        ([{"role": "user", "content": [{"type": "text", "text": "x"}]}], "list as its content"),
        ([{"content": "x"}], "has the role None"),
        ([{"role": "user", "content": "half \ud83d of it"}], r"'\\ud83d' at position 5, half of a surrogate pair"),
    ],
)
def test_messages_that_are_none(tiny: Model, messages: list[dict[str, Any]], said: str) -> None:
    """Refused by name, not by whatever reads them first."""
    with pytest.raises(RequestError, match=said.replace("|", r"\|")):
        tiny.encode_chat(messages)


def test_text_that_is_none(tiny: Model) -> None:
    """Half a character is no text, in prompts as in chats."""
    with pytest.raises(RequestError, match="half of a surrogate pair"):
        tiny.encode_text("\udc00")


def test_a_tokenizer_without_a_copy(tiny: Model) -> None:
    """One of Python's own reads ordinary text; what it would take for control is refused by name."""
    inner: Any = byte_pairs()

    class Slow:
        added_tokens_decoder = inner.added_tokens_decoder
        convert_ids_to_tokens = inner.convert_ids_to_tokens
        encode = inner.encode
        unk_token_id = None

        def __len__(self) -> int:
            return len(inner)

    model = replace(tiny, tokenizer=Slow())
    assert model.encode_text("what") == inner.encode("what")
    with pytest.raises(RequestError, match=r"spells '<\|mask\|>'.*write it another way, or give token ids"):
        model.encode_text("a <|mask|>")

"""Stop strings and tokens with tokenizers as they are found, on text of many scripts."""

import random
from collections.abc import Callable
from collections.abc import Sequence
from functools import cache
from typing import Any

import pytest
from tokenizers import Tokenizer
from tokenizers import decoders
from tokenizers import models
from tokenizers import normalizers
from tokenizers import pre_tokenizers
from tokenizers import trainers
from transformers import PreTrainedTokenizerBase
from transformers import PreTrainedTokenizerFast

from dllm_plugins.default_model.base_model import base_folder
from dllm_plugins.families.files import load_tokenizer
from dllm_plugins.text.answer import AnswerText

TEXT = "日本語 は。 ，，naïve café 👩‍👩‍👧 🇩🇪 e\u0301 مرحبا สวัสดี don't we 've , end . \ufffd x y"
WORDS = TEXT.split()
LINES = ["the cat does n't say 'so' , or do we 've it ?", *(" ".join(WORDS[place:]) for place in range(len(WORDS)))]


def byte_level() -> PreTrainedTokenizerBase:
    """Byte pairs as GPT-2 has them; a character takes up to four tokens."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(LINES, trainers.BpeTrainer(vocab_size=290, initial_alphabet=alphabet))
    return PreTrainedTokenizerFast(tokenizer_object=backend)


def byte_fallback() -> PreTrainedTokenizerBase:
    """Pieces as Llama 2 has them: a space in front is stripped, unknown characters are bytes in a row."""
    pieces = [f"<0x{byte:02X}>" for byte in range(256)] + list("▁abcdefghijklmnopqrstuvwxyz,.。'?") + ["<unk>"]
    backend = Tokenizer(
        models.BPE({piece: place for place, piece in enumerate(pieces)}, [], byte_fallback=True, unk_token="<unk>")
    )
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=backend)


def word_pieces() -> PreTrainedTokenizerBase:
    """Word pieces as BERT has them, with the spaces before marks taken away."""
    backend = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece(cleanup=False)
    trainer = trainers.WordPieceTrainer(vocab_size=150, special_tokens=["[UNK]"])
    backend.train_from_iterator(LINES, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend, clean_up_tokenization_spaces=True)


def default() -> PreTrainedTokenizerBase:
    """The default model's."""
    return load_tokenizer(base_folder(), PreTrainedTokenizerFast)


@cache
def made(kind: Callable[[], PreTrainedTokenizerBase]) -> Any:
    """A tokenizer, once."""
    return kind()


def text_before_stop(text: str, stops: Sequence[str]) -> str:
    """The text cut in one go."""
    return text[: min((place for place in map(text.find, stops) if place >= 0), default=len(text))]


def check(tokenizer: Any, tokens: list[int], stops: tuple[str, ...], drawn: random.Random) -> None:
    """Push tokens in pieces of any size and hold every promise of Commit and Finish."""
    answer, told, sent, end = AnswerText(tokenizer, stops), list[int](), "", 0
    while end < len(tokens) and not answer.stopped:
        end = min(end + drawn.randrange(1, 6), len(tokens))
        sent += answer.push(tokens[:end], last=end == len(tokens))
        final = answer.stopped or end == len(tokens)
        named = answer.tokens_used(tokens[:end]) if answer.stopped or not final else end
        if not final:
            named = answer.tokens_within(tokens[:end])
        assert tokens[: len(told)] == told
        assert named >= len(told), "what a Commit named is taken back"
        told = tokens[:named]
        assert answer.text == sent
    whole = tokenizer.decode(tokens, skip_special_tokens=True)
    assert sent == text_before_stop(whole, stops)
    assert not any(stop in sent for stop in stops)
    if answer.stopped:
        assert tokenizer.decode(told, skip_special_tokens=True).startswith(sent)
        fewer = (tokenizer.decode(told[:count], skip_special_tokens=True) for count in range(len(told)))
        assert not any(text.startswith(sent) for text in fewer), "fewer tokens are enough"
    else:
        assert told == tokens


def drawn_stops(text: str, drawn: random.Random) -> tuple[str, ...]:
    """Stop strings out of the text, from any character to any other, and some that are not in it."""
    found = ["never", "日本人"]
    for _ in range(drawn.randrange(3)):
        start = drawn.randrange(len(text))
        found.append(text[start : start + drawn.randrange(1, 6)])
    return tuple(stop for stop in found if drawn.random() < 0.9)


@pytest.mark.parametrize("kind", [byte_level, byte_fallback, word_pieces, default])
def test_text_and_tokens_end_together(kind: Callable[[], PreTrainedTokenizerBase]) -> None:
    """Any text, tokens that were never text, any stop strings, any pace: one answer, and nothing taken back."""
    drawn, tokenizer = random.Random(10), made(kind)
    size = len(tokenizer)
    for case in range(100):
        text = "".join(drawn.choice(["", " "]) + drawn.choice(WORDS) for _ in range(drawn.randrange(1, 16)))
        tokens = tokenizer.encode(text, add_special_tokens=False)
        if case % 3 == 0:
            tokens = [drawn.randrange(size) if drawn.random() < 0.3 else token for token in tokens]
        decoded = tokenizer.decode(tokens, skip_special_tokens=True) or "a"
        check(tokenizer, tokens, drawn_stops(decoded, drawn), drawn)


def test_the_tokens_of_characters_in_front_of_a_stop_string() -> None:
    """Half a character is as long as a whole one, and is none."""
    tokenizer = made(byte_level)
    tokens = tokenizer.encode("語語語。語", add_special_tokens=False)
    answer = AnswerText(tokenizer, ("。",))
    assert answer.push(tokens, last=True) == "語語語"
    kept = tokens[: answer.tokens_used(tokens)]
    assert tokenizer.decode(kept) == "語語語"


def test_the_stop_string_that_begins_first_counts() -> None:
    """However many tokens come at once: one that ends earlier but begins later waits for the other."""
    tokenizer = made(byte_level)
    for text, expected in (("x abcd y", "x "), ("x abce y", "x a")):
        tokens = tokenizer.encode(text, add_special_tokens=False)
        for size in (1, 2, 20):
            answer, sent = AnswerText(tokenizer, ("abcd", "bc")), ""
            for end in range(size, len(tokens) + size, size):
                sent += answer.push(tokens[:end], last=end >= len(tokens))
                if answer.stopped:
                    break
            assert sent == expected


@pytest.mark.parametrize("kind", [byte_level, byte_fallback, word_pieces])
def test_characters_of_several_tokens_are_decoded_about_once(kind: Callable[[], PreTrainedTokenizerBase]) -> None:
    """Four times the tokens take about four times the work, also where they come in step with the characters."""
    tokenizer, work = made(kind), []

    class Counting:
        clean_up_tokenization_spaces = tokenizer.clean_up_tokenization_spaces
        backend_tokenizer = tokenizer.backend_tokenizer
        all_special_ids = tokenizer.all_special_ids
        decoded = 0

        def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
            self.decoded += len(token_ids)
            return str(tokenizer.decode(token_ids, skip_special_tokens=skip_special_tokens))

    for length in (600, 2400):
        tokens = tokenizer.encode("👩 語 ab " * length, add_special_tokens=False)[:length]
        counting = Counting()
        answer = AnswerText(counting, ("never",))
        for end in range(12, length + 1, 12):
            answer.push(tokens[:end], last=False)
            answer.tokens_within(tokens[:end])
        work.append(counting.decoded)
    assert work[1] < 5 * work[0]

"""Text of an answer as its tokens arrive."""

import random
from collections.abc import Sequence

import pytest

from dllm_plugins.text.answer import AnswerText
from dllm_plugins.text.answer import Tokenizer
from dllm_plugins.text.answer import longest_held


class Bytes:
    """A tokenizer whose ids are bytes."""

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        return bytes(token_ids).decode("utf-8", errors="replace")


class Words:
    """A tokenizer like SentencePiece's: every token brings its space along, and a text begins without one.

    Some tokens have no text, and one joins its neighbours. Counts what it decodes.
    """

    def __init__(self) -> None:
        self.decoded = 0

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        self.decoded += len(token_ids)
        words = "".join(f" w{token}" if token > 3 else ["", " ", " n't", "."][token] for token in token_ids)
        return words.replace(" n't", "n't").removeprefix(" ")


def feed(text: str, stops: tuple[str, ...], size: int) -> tuple[list[str], AnswerText]:
    """Push `size` more bytes at a time until the end or a stop string."""
    tokens = list(text.encode())
    answer = AnswerText(Bytes(), stops)
    parts = []
    for end in range(size, len(tokens) + size, size):
        parts.append(answer.push(tokens[:end], last=end >= len(tokens)))
        if answer.stopped:
            break
    return parts, answer


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_text_arrives_whole_and_never_half_a_character(size: int) -> None:
    """The parts add up, and no part holds a replacement character."""
    text = "naïve café — 你好 🙂 end"
    parts, answer = feed(text, (), size)
    assert "".join(parts) == text == answer.text
    assert not any("\ufffd" in part for part in parts)


@pytest.mark.parametrize("size", [1, 2, 5, 100])
@pytest.mark.parametrize("stop", ["STOP", "S", " 你好", "\n\n"])
def test_nothing_of_a_stop_string_is_handed_out(size: int, stop: str) -> None:
    """What was handed out is the text before the first stop string, exactly."""
    text = f"SSST one ST two{stop}three{stop}"
    parts, answer = feed(text, (stop, "never"), size)
    assert answer.stopped
    assert "".join(parts) == answer.text == text[: text.index(stop)]


def test_what_only_began_a_stop_string_is_handed_out_at_the_end() -> None:
    """A held-back beginning is text after all when the answer ends."""
    parts, answer = feed("go on END", ("ENDE",), 1)
    assert "".join(parts) == "go on END"
    assert not answer.stopped
    assert "".join(parts[:-1]) == "go on "


@pytest.mark.parametrize(
    ("text", "stops", "held"),
    [("abc", ("cd",), 1), ("abc", ("bcd", "cx"), 2), ("abc", ("abc",), 0), ("", ("a",), 0), ("aaa", ("aaaa",), 3)],
)
def test_longest_held(text: str, stops: tuple[str, ...], held: int) -> None:
    """The longest end of the text that begins a stop string."""
    assert longest_held(text, stops) == held


def test_tokens_are_cut_with_the_text() -> None:
    """Tokens of what could still become a stop string are neither named nor kept."""
    tokens = list(b"hello END")
    answer = AnswerText(Bytes(), ("END!",))
    answer.push(tokens, last=False)
    assert answer.text == "hello "
    assert answer.tokens_within(tokens) == 6
    answer.push([*tokens, ord("!")], last=False)
    assert answer.stopped
    assert answer.tokens_used([*tokens, ord("!")]) == 6


def test_draft_text_shows_holes() -> None:
    """Open positions are dots; committed ones between them are text."""
    answer = AnswerText(Bytes(), ())
    tokens = list(b"abc")
    answer.push(tokens, last=False)
    assert answer.draft(tokens, [ord("d"), None, ord("e"), None, None]) == "d·e··"
    assert answer.draft(tokens, []) == ""


@pytest.mark.parametrize("stops", [(), ("never", "nor this"), ("w7 w7 w7 w8",)])
@pytest.mark.parametrize("kind", ["words", "bytes", "random bytes"])
def test_text_is_that_of_all_tokens(kind: str, stops: tuple[str, ...]) -> None:
    """At every length, with whatever stands where two tokens meet: what is shown is the text of all tokens."""
    drawn = random.Random(3)
    text = "".join(drawn.choice("abc é — 你好🙂") for _ in range(200)).encode()
    tokens = list(text if kind == "bytes" else drawn.randbytes(300))
    tokenizer: Tokenizer = Bytes()
    if kind == "words":
        tokens, tokenizer = [drawn.randrange(9) for _ in range(300)], Words()
    answer = AnswerText(tokenizer, stops)
    end, sent = 0, ""
    while end < len(tokens):
        end = min(end + drawn.randrange(1, 6), len(tokens))
        seen = tokens[:end]
        sent += answer.push(seen, last=False)
        whole = tokenizer.decode(seen)
        assert answer.text == sent
        assert sent + answer.draft(seen, []) == whole
        within = answer.tokens_within(seen)
        assert within == (
            next(n for n in range(end + 1) if tokenizer.decode(seen[:n]).startswith(sent)) if stops else end
        )
    sent += answer.push(tokens, last=True)
    assert sent == tokenizer.decode(tokens)


@pytest.mark.parametrize("stops", [(), ("never",)])
def test_a_long_answer_is_decoded_about_once(stops: tuple[str, ...]) -> None:
    """Ten times the tokens take about ten times the work, not a hundred times."""
    work = []
    for length in (400, 4000):
        tokenizer = Words()
        answer = AnswerText(tokenizer, stops)
        tokens = [4 + place % 50 for place in range(length)]
        for end in range(1, length):
            answer.push(tokens[:end], last=False)
            answer.tokens_within(tokens[:end])
            answer.draft(tokens[:end], [5, None, 6])
        work.append(tokenizer.decoded)
    assert work[1] < 11 * work[0]

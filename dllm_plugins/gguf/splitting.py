"""How byte-level vocabularies cut text into words, by llama.cpp's names (`tokenizer.ggml.pre`).

A vocabulary's merges were learnt on words cut in one way. GGUF files name the way,
tokenizer.json files spell it. The expressions are those of the tokenizers' own files;
llama.cpp has them in src/llama-vocab.cpp, rewritten for its own engine.
"""

from collections.abc import Iterator
from typing import Any

from tokenizers import Regex
from tokenizers import pre_tokenizers

_ENGLISH = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_HEAD = r"[^\r\n\p{L}\p{N}]?"
_SLASHES = r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_CAMEL = f"{_HEAD}{_UPPER}*{_LOWER}+{_ENGLISH}?|{_HEAD}{_UPPER}+{_LOWER}*{_ENGLISH}?"

#: Stand for the splits that `tokenizers` has classes of its own for.
WORDS, DIGITS = "words", "digits"
SPLITS: dict[str, tuple[str, ...]] = {
    "gpt-2": (WORDS,),
    "smollm": (DIGITS, WORDS),
    "qwen2": (rf"{_ENGLISH}|{_HEAD}\p{{L}}+|\p{{N}}|{_REST}",),
    "llama-bpe": (rf"{_ENGLISH}|{_HEAD}\p{{L}}+|\p{{N}}{{1,3}}|{_REST}",),
    "qwen35": (
        rf"{_ENGLISH}|{_HEAD}[\p{{L}}\p{{M}}]+|\p{{N}}| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    ),
    "seed-coder": (rf"{_ENGLISH}|{_HEAD}\p{{L}}+|\p{{N}}{{1}}| ?[^\s\p{{L}}\p{{N}}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+",),
    "bailingmoe": (
        r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+",
    ),
    "gpt-4o": (rf"{_CAMEL}|\p{{N}}{{1,3}}|{_SLASHES}",),
    "tekken": (rf"{_HEAD}{_UPPER}*{_LOWER}+|{_HEAD}{_UPPER}+{_LOWER}*|\p{{N}}|{_SLASHES}",),
}
#: Other names of the same ways.
ALIASES = {
    **dict.fromkeys(("phi-2", "mpt", "olmo", "jina-es", "jina-de", "modern-bert", "mellum"), "gpt-2"),
    **dict.fromkeys(("starcoder", "refact", "command-r", "codeshell", "exaone", "mellum2"), "smollm"),
    **dict.fromkeys(("deepseek-r1-qwen", "stablelm2", "kormo", "megrez", "hunyuan", "grok-2"), "qwen2"),
    **dict.fromkeys(("llama3", "llama-v3", "falcon3", "pixtral", "lfm2", "dbrx", "smaug-bpe"), "llama-bpe"),
    **dict.fromkeys(("bailingmoe2", "llada-moe"), "bailingmoe"),
    **dict.fromkeys(("llama4", "kanana2", "minimax-m2"), "gpt-4o"),
}
#: Where llama.cpp takes a word that is a token as it is, without merging.
WHOLE_WORDS = ("llama-bpe", "tekken")


def canonical(pre: str) -> str | None:
    """The name in :data:`SPLITS` of a way; None for one that is not there."""
    name = ALIASES.get(pre, pre)
    return name if name in SPLITS else None


def named(pre_tokenizer: Any) -> str | None:
    """The name of the way a tokenizer.json spells; None if it has none here.

    :param pre_tokenizer: the entry `pre_tokenizer` of tokenizer.json.
    """
    found = tuple(_steps(pre_tokenizer))
    return next((name for name, steps in SPLITS.items() if steps == found), None)


def _steps(item: Any) -> Iterator[str]:
    kind = (item or {}).get("type")
    if kind == "Sequence":
        for part in item["pretokenizers"]:
            yield from _steps(part)
    elif kind == "Split" and item.get("behavior") == "Isolated" and not item.get("invert"):
        yield str(item["pattern"].get("Regex"))
    elif kind == "Digits" and item.get("individual_digits"):
        yield DIGITS
    elif kind == "ByteLevel" and not item.get("add_prefix_space"):
        yield from (WORDS,) if item.get("use_regex", True) else ()
    else:
        yield "unknown"


def splitter(name: str) -> pre_tokenizers.PreTokenizer:
    """The way as an object of `tokenizers`, which also writes the words' bytes as letters."""
    *steps, last = SPLITS[name]
    parts: list[Any] = [_part(step) for step in steps]
    if last == WORDS:
        parts.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True))
    else:
        parts += [_part(last), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    return parts[0] if len(parts) == 1 else pre_tokenizers.Sequence(parts)


def _part(step: str) -> Any:
    if step == DIGITS:
        return pre_tokenizers.Digits(individual_digits=True)
    return pre_tokenizers.Split(Regex(step), behavior="isolated")

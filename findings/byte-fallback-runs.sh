#!/usr/bin/env bash
# tokenizers 0.23.3: the ByteFallback decoder judges a run of byte tokens as a whole. One byte that is no UTF-8 turns
# the complete characters beside it into U+FFFD, too, one for each byte. A byte that follows later takes back text
# that an incremental decoder has already shown: the three bytes of a character decode to it, and with a stray
# fourth to four replacement characters. A token of another kind between them ends the run, and the character stays.
# Guessed: as Python's errors="replace", which keeps the character and replaces the stray byte alone.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check tokenizers==0.23.3
"$work/venv/bin/python" - <<'PYTHON'
from tokenizers import Tokenizer, decoders, models

names = ["<unk>", "<0xE8>", "<0xAA>", "<0x9E>", "<0xFF>", "a"]
vocabulary = {name: number for number, name in enumerate(names)}
tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>", byte_fallback=True))
tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
seen = {
    "the character": tokenizer.decode([1, 2, 3]),
    "and a stray byte": tokenizer.decode([1, 2, 3, 4]),
    "a letter between them": tokenizer.decode([1, 2, 3, 5, 4]),
}
for what, text in seen.items():
    print(f"{what}: {text!r}")
wanted = ["\u8a9e", "\ufffd" * 4, "\u8a9ea\ufffd"]
assert list(seen.values()) == wanted, f"changed: {wanted} was seen with 0.23.3"
assert bytes([0xE8, 0xAA, 0x9E, 0xFF]).decode("utf-8", "replace") == "\u8a9e\ufffd"
PYTHON

#!/usr/bin/env bash
# transformers 5.24.0: `tokenizer.pad_token = "a"`, an ordinary token of the vocabulary, changes nothing in this process
# but the id of padding: texts are split and decoded as before. Saved and loaded again, the same tokenizer cuts every
# "a" out of the text before it merges, so that "banana" is six tokens instead of two, and decoding with
# skip_special_tokens=True leaves "bnn". A model that is tuned and evaluated in one process and served from its files meets other ids.
# Guessed: the same before and after saving, either way.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check transformers==5.24.0
"$work/venv/bin/python" - "$work/saved" <<'PYTHON'
import sys

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

names = ["b", "a", "n", "an", "ban", "banan"]
merges = [("a", "n"), ("b", "an"), ("ban", "an")]
rules = Tokenizer(models.BPE(vocab={name: number for number, name in enumerate(names)}, merges=merges))
rules.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
rules.decoder = decoders.ByteLevel()


def seen(tokenizer):
    ids = tokenizer("banana")["input_ids"]
    return tokenizer.convert_ids_to_tokens(ids), tokenizer.decode(ids, skip_special_tokens=True)


tokenizer = PreTrainedTokenizerFast(tokenizer_object=rules)
tokenizer.pad_token = "a"
before = seen(tokenizer)
tokenizer.save_pretrained(sys.argv[1])
after = seen(AutoTokenizer.from_pretrained(sys.argv[1]))
print("pad_token set: ", *before)
print("saved and read:", *after)
assert before == (["banan", "a"], "banana"), "changed since transformers 5.24.0"
assert after == (list("banana"), "bnn"), "changed since transformers 5.24.0"
PYTHON

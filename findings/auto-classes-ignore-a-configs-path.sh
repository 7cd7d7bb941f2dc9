#!/usr/bin/env bash
# transformers 5.24.0: from_pretrained(folder, config=PATH) of a model's own class reads the config that the path names, as
# its documentation says. The same call of AutoModelForCausalLM takes the folder's own config and says nothing; the path
# need not even exist. A sliding window, a RoPE factor or a dropout that was to be tried out by another config.json is
# then not tried out, and the answers are those of before.
# Guessed: the Auto class hands `config` on to the class it finds, or refuses what is no config object.
# Seen: "own class: eps 0.5", "Auto class: eps 1e-06", "Auto class, a path that is not there: eps 1e-06".
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check transformers==5.24.0 torch==2.13.0
"$work/venv/bin/python" - "$work" <<'PYTHON'
import sys
from pathlib import Path

from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

folder, other = Path(sys.argv[1], "model"), Path(sys.argv[1], "other")
sizes = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
LlamaForCausalLM(LlamaConfig(**sizes)).save_pretrained(folder)
LlamaConfig(**sizes, rms_norm_eps=0.5).save_pretrained(other)


def eps(found):
    return found.config.rms_norm_eps


own = eps(LlamaForCausalLM.from_pretrained(folder, config=str(other)))
auto = eps(AutoModelForCausalLM.from_pretrained(folder, config=str(other)))
absent = eps(AutoModelForCausalLM.from_pretrained(folder, config=str(other / "nowhere")))
print(f"own class: eps {own}")
print(f"Auto class: eps {auto}")
print(f"Auto class, a path that is not there: eps {absent}")
assert (own, auto, absent) == (0.5, 1e-06, 1e-06), "changed since transformers 5.24.0"
PYTHON

#!/usr/bin/env bash
# transformers 5.24.0: save_pretrained into a folder that holds an earlier save. If the second one is written in shards
# and the first was not, the old model.safetensors stays beside the new index, and from_pretrained reads it: the folder
# loads as the model of before, without a word. The other way round the new file is read, but the old index stays and
# names shards that are gone. A fine-tuned model that is saved over its base with a smaller max_shard_size is the base.
# Guessed: old weight files are removed, since the shards of an earlier save are.
# Seen: "smaller shards: old weights", "one file again: new weights, index of 5 files of which 0 are there".
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check transformers==5.24.0 torch==2.13.0
"$work/venv/bin/python" - "$work" <<'PYTHON'
import json
import sys
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

config = LlamaConfig(
    vocab_size=64, hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2
)


def saved_twice(folder, first, second):
    for seed, size in enumerate((first, second)):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
        model.save_pretrained(folder, max_shard_size=size)
    loaded = LlamaForCausalLM.from_pretrained(folder)
    return "new" if torch.equal(loaded.lm_head.weight, model.lm_head.weight) else "old"


sharded, whole = Path(sys.argv[1], "sharded"), Path(sys.argv[1], "whole")
found = saved_twice(sharded, "5GB", "20KB")
print(f"smaller shards: {found} weights")
assert found == "old", "changed since transformers 5.24.0"
found = saved_twice(whole, "20KB", "5GB")
named = set(json.loads((whole / "model.safetensors.index.json").read_text())["weight_map"].values())
there = sum((whole / name).exists() for name in named)
print(f"one file again: {found} weights, index of {len(named)} files of which {there} are there")
assert found == "new" and named and not there, "changed since transformers 5.24.0"
PYTHON

#!/usr/bin/env bash
# transformers 5.24.0 with torch 2.13.0: `generate(custom_generate=FUNCTION)` repeats the prompt for beams that nobody
# searches. Where the checkpoint's generation_config says `num_beams: 2`, the function is called with every prompt twice,
# and generate returns two rows for one prompt, equal if the function is greedy. Without custom_generate the same call
# returns one row. Nothing is logged. `num_beams=1` in the call undoes it.
# Guessed: a function that replaces the decoding loop gets the prompts as they were given, as beams belong to the loop.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check transformers==5.24.0 torch==2.13.0 numpy
"$work/venv/bin/python" - <<'PYTHON'
import torch
from transformers import LlamaConfig, LlamaForCausalLM

torch.manual_seed(0)
shape = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2)
model = LlamaForCausalLM(LlamaConfig(vocab_size=32, **shape)).eval()
given = []


def own(model, input_ids, **others):
    given.append(len(input_ids))
    return torch.cat([input_ids, torch.full((len(input_ids), 2), 7)], dim=1)


prompt = torch.tensor([[1, 2, 3]])
options = {"attention_mask": torch.ones_like(prompt), "max_new_tokens": 2}
model.generation_config.num_beams = 2
returned = [
    len(model.generate(prompt, **options)),
    len(model.generate(prompt, custom_generate=own, **options)),
    len(model.generate(prompt, custom_generate=own, num_beams=1, **options)),
]
print("rows returned: two beams", returned[0], "- own function", returned[1], "- own function and num_beams=1", returned[2])
print("rows the function was given:", given)
assert (returned, given) == ([1, 2, 1], [2, 1]), "changed since transformers 5.24.0"
PYTHON

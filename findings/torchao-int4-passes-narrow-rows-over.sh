#!/usr/bin/env bash
# torchao 0.18.0: `quantize_` with Int4WeightOnlyConfig(group_size=128) leaves every linear layer whose rows hold no whole
# number of groups exactly as it was: no error, no warning, and nothing in the model says so. Rows of 192 and of 64 numbers
# both stay in bfloat16, so a small model, or one whose width is a multiple of 64 alone, is "quantised" and takes as much
# memory as before. Its neighbour Int8WeightOnlyConfig quantises both.
# Guessed: an error that names the layer, or groups as long as the rows allow.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    torchao==0.18.0 torch==2.13.0 numpy
cat > "$work/show.py" <<'PYTHON'
import torch
from torch import nn
from torchao.quantization import Int4WeightOnlyConfig, Int8WeightOnlyConfig, quantize_

for config in (Int8WeightOnlyConfig(), Int4WeightOnlyConfig(group_size=128)):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(192, 64, bias=False), nn.Linear(64, 192, bias=False)).to(torch.bfloat16)
    before = [layer.weight.detach().clone() for layer in model]
    quantize_(model, config)
    same = [type(layer.weight) is nn.Parameter and torch.equal(layer.weight, weight) for layer, weight in zip(model, before)]
    print(f"{type(config).__name__}: layers left as they were {same}")
PYTHON
"$work/venv/bin/python" "$work/show.py" 2>/dev/null | tee "$work/seen"
diff "$work/seen" - <<'SEEN' || { echo "changed since torchao 0.18.0"; exit 1; }
Int8WeightOnlyConfig: layers left as they were [False, False]
Int4WeightOnlyConfig: layers left as they were [True, True]
SEEN

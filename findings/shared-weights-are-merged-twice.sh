#!/usr/bin/env bash
# peft 0.21.2: where two modules share one weight, as encoder and decoder of some diffusion models do, each gets an adapter of
# its own, and merge_and_unload() adds both changes to the one weight. The merged model then answers unlike the adapted one
# at both places, without a warning; that the two weights are one is known, since they still are afterwards.
# Guessed: one adapter for one weight, or an error when it is merged.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    peft==0.21.2 transformers==5.24.0 accelerate==1.15.0 torch==2.13.0 numpy
cat > "$work/show.py" <<'PYTHON'
import warnings

import torch
from peft import LoraConfig, get_peft_model
from torch import nn


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(8, 8, bias=False)
        self.second = nn.Linear(8, 8, bias=False)
        self.second.weight = self.first.weight

    def forward(self, x):
        return self.first(x), self.second(x)


torch.manual_seed(0)
base = Twice()
before = base.first.weight.detach().clone()
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    model = get_peft_model(base, LoraConfig(r=2, target_modules=["first", "second"], init_lora_weights=False))
    x = torch.randn(1, 8)
    with torch.no_grad():
        expected = model(x)
    changes = [
        (layer.lora_B["default"].weight @ layer.lora_A["default"].weight * layer.scaling["default"]).detach()
        for layer in (model.base_model.model.first, model.base_model.model.second)
    ]
    whole = model.merge_and_unload()
with torch.no_grad():
    found = whole(x)
print("adapters are two:", not torch.equal(*changes))
print("still one weight:", whole.first.weight is whole.second.weight)
print("it got both changes:", torch.allclose(whole.first.weight, before + sum(changes), atol=1e-6))
print("outputs as before merging:", [torch.allclose(one, other, atol=1e-4) for one, other in zip(found, expected)])
print("warnings:", len(caught))
PYTHON
"$work/venv/bin/python" "$work/show.py" 2>/dev/null | tee "$work/seen"
diff "$work/seen" - <<'SEEN' || { echo "changed since peft 0.21.2"; exit 1; }
adapters are two: True
still one weight: True
it got both changes: True
outputs as before merging: [False, False]
warnings: 0
SEEN

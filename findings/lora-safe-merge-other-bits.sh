#!/usr/bin/env bash
# peft 0.21.2: merging a LoRA adapter in float32 into a base in bfloat16 gives other weights with `safe_merge=True` than
# without, though that option is documented as a check for NaNs that costs a copy. Without it the change is added to the
# bfloat16 weights in float32 and the sum is rounded once; with it the change is rounded to bfloat16 first, and the sum
# again. So a merged checkpoint cannot be compared bit by bit unless one knows how it was merged, and the option that
# sounds more careful is the one that rounds twice.
# Guessed: the same weights either way.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    peft==0.21.2 transformers==5.24.0 torch==2.13.0 accelerate==1.15.0 numpy
cat > "$work/show.py" <<'PYTHON'
import torch
from peft import LoraConfig, get_peft_model
from torch import nn


def merged(dtype, safe):
    torch.manual_seed(0)
    base = nn.Sequential(nn.Linear(64, 64, bias=False)).to(dtype)
    before = base[0].weight.detach().clone()
    model = get_peft_model(base, LoraConfig(r=4, target_modules=["0"], init_lora_weights=False), autocast_adapter_dtype=True)
    layer = model.base_model.model[0]
    change = layer.lora_B["default"].weight.float() @ layer.lora_A["default"].weight.float() * layer.scaling["default"]
    once = (before.float() + change).to(dtype)
    twice = before + change.to(dtype)
    found = model.merge_and_unload(safe_merge=safe)[0].weight.detach()
    return found, torch.equal(found, once), torch.equal(found, twice)


for dtype in (torch.float32, torch.bfloat16):
    (plain, *first), (safe, *second) = merged(dtype, False), merged(dtype, True)
    differ = (plain != safe).float().mean().item()
    print(f"{str(dtype)[6:]}: differ {differ > 0}; plain is rounded once {first[0]}, twice {first[1]}; safe once {second[0]}, twice {second[1]}")
PYTHON
"$work/venv/bin/python" "$work/show.py" 2>/dev/null | tee "$work/seen"
diff "$work/seen" - <<'SEEN' || { echo "changed since peft 0.21.2"; exit 1; }
float32: differ False; plain is rounded once True, twice True; safe once True, twice True
bfloat16: differ True; plain is rounded once True, twice False; safe once False, twice True
SEEN

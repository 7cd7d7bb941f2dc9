#!/usr/bin/env bash
# bitsandbytes 0.50.2 on a CPU: with LLM.int8's default threshold the answer of one row depends on the rows that share its
# call. Columns in which any row of the call has an outlier are multiplied in 16 bits for all rows, so that a loud row
# changes the bits of a quiet one beside it, which it would not have changed by standing alone or beside another quiet
# one. So a model in eight bits is not the same model in a batch, and drafts that are verified several rows at a time
# are verified by another one. With threshold=0.0 nothing depends on company.
# Guessed: outliers are found row by row, as the scales of activations are.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    bitsandbytes==0.50.2 torch==2.13.0 numpy
cat > "$work/show.py" <<'PYTHON'
import bitsandbytes as bnb
import torch

torch.manual_seed(0)
plain = torch.nn.Linear(64, 32, bias=False).to(torch.bfloat16)
rows = torch.randn(2, 64, dtype=torch.bfloat16)
loud = rows.clone()
loud[1, 5] = 40.0


def layer(threshold):
    made = bnb.nn.Linear8bitLt(64, 32, bias=False, has_fp16_weights=False, threshold=threshold)
    made.weight = bnb.nn.Int8Params(plain.weight.data.clone(), requires_grad=False, has_fp16_weights=False)
    return made.to("cpu").eval()


with torch.no_grad():
    for threshold in (0.0, 6.0):
        found = layer(threshold)
        alone, quiet, company = found(rows[:1]), found(rows)[:1], found(loud)[:1]
        print(f"threshold {threshold}: beside a quiet row {torch.equal(alone, quiet)}, beside a loud one {torch.equal(alone, company)}")
PYTHON
"$work/venv/bin/python" "$work/show.py" 2>/dev/null | tee "$work/seen"
diff "$work/seen" - <<'SEEN' || { echo "changed since bitsandbytes 0.50.2"; exit 1; }
threshold 0.0: beside a quiet row True, beside a loud one True
threshold 6.0: beside a quiet row True, beside a loud one False
SEEN

#!/usr/bin/env bash
# transformers 5.24.0: how many labels the Trainer counts, and so by what a loss is divided under gradient accumulation,
# depends on how the model's class is called. If its name contains ForCausalLM, the first label of every row is left
# out of num_items_in_batch, though the class has a loss of its own that uses it, as masked diffusion does: of rows of
# four labels a loss is a third too large. The same class under another name gets the right count. Remote code of
# diffusion models is nearly always called so, since AutoModelForCausalLM loads it. The attribute `loss_type` decides in
# the end, and it is read before any loss was computed.
# Guessed: every label that is not -100 is counted, unless the library's own causal loss is the one that runs.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    "transformers==5.24.0" torch==2.13.0 accelerate==1.15.0 numpy
cat > "$work/show.py" <<'PYTHON'
import sys

import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel, Trainer, TrainingArguments

LABELS = 4


class Config(PretrainedConfig):
    model_type = "denoiser_of_four"


class Base(PreTrainedModel):
    config_class = Config

    def __init__(self, config):
        super().__init__(config)
        self.head = nn.Linear(1, 1)
        self.post_init()

    def forward(self, input_ids, labels=None, num_items_in_batch=None, **ignored):
        self.seen.append(int(num_items_in_batch))
        loss = 1.0 * labels.ne(-100).sum() / num_items_in_batch + 0 * self.head.weight.sum()
        return {"loss": loss, "logits": input_ids[..., None].float()}


for name in ("Denoiser", "DenoiserForCausalLM", "DenoiserForMaskedLM"):
    torch.manual_seed(0)
    model = type(name, (Base,), {"seen": []})(Config())
    rows = [{"input_ids": list(range(LABELS)), "labels": list(range(LABELS))} for _ in range(8)]
    settings = TrainingArguments(
        sys.argv[1], max_steps=1, per_device_train_batch_size=2, gradient_accumulation_steps=4, report_to=[],
        save_strategy="no", use_cpu=True, disable_tqdm=True, logging_strategy="no", dataloader_pin_memory=False,
    )
    found = Trainer(model, settings, train_dataset=rows).train()
    print(f"{name}: {LABELS * len(rows)} labels, counted {set(model.seen)}, mean loss of a label {found.training_loss:.4f}")
PYTHON
"$work/venv/bin/python" "$work/show.py" "$work/out" 2>/dev/null | grep -v train_runtime | tee "$work/seen"
diff "$work/seen" - <<'SEEN' || { echo "changed since transformers 5.24.0"; exit 1; }
Denoiser: 32 labels, counted {32}, mean loss of a label 1.0000
DenoiserForCausalLM: 32 labels, counted {24}, mean loss of a label 1.3333
DenoiserForMaskedLM: 32 labels, counted {32}, mean loss of a label 1.0000
SEEN

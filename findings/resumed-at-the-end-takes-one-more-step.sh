#!/usr/bin/env bash
# transformers 5.24.0: a run of the Trainer whose last checkpoint stands at max_steps has nothing left to do, and a job that is
# started again with resume_from_checkpoint=True, as schedulers start jobs, makes one more step all the same. The weights
# are then others, unless the schedule has taken the rate to 0, and the counter says max_steps + 1.
# Guessed: it sees that all steps are done, and leaves the weights as they are.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    transformers==5.24.0 accelerate==1.15.0 torch==2.13.0 numpy
cat > "$work/show.py" <<'PYTHON'
import sys

import torch
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments


def run(resume):
    torch.manual_seed(0)
    sizes = {"vocab_size": 32, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
    trainer = Trainer(
        LlamaForCausalLM(LlamaConfig(num_attention_heads=2, **sizes)),
        TrainingArguments(
            sys.argv[1], max_steps=4, save_steps=4, report_to=[], use_cpu=True, disable_tqdm=True,
            learning_rate=1e-2, lr_scheduler_type="constant",
        ),
        train_dataset=[{"input_ids": torch.arange(8), "labels": torch.arange(8)}] * 64,
    )
    trainer.train(resume_from_checkpoint=resume)
    return trainer


first, again = run(False), run(True)
print("steps:", first.state.global_step, again.state.global_step, "of", again.state.max_steps)
pairs = zip(first.model.parameters(), again.model.parameters())
print("same weights:", all(torch.equal(one, other) for one, other in pairs))
PYTHON
"$work/venv/bin/python" "$work/show.py" "$work/out" 2>/dev/null | grep -E "^(steps|same)" | tee "$work/seen"
diff "$work/seen" - <<'SEEN' || { echo "changed since transformers 5.24.0"; exit 1; }
steps: 4 5 of 4
same weights: False
SEEN

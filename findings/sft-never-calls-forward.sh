#!/usr/bin/env bash
# trl 1.16.0: SFTTrainer never calls the forward() of the model that it trains. It asks the body and the head for
# themselves and computes the loss of the next token from them, so that a model with a loss of its own, as diffusion models
# have, is trained with another one, without a warning. The Trainer of transformers, which it inherits from, calls it.
# Guessed: outputs.loss of a forward() with labels is what is trained, unless another loss is asked for.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    trl==1.16.0 transformers==5.24.0 accelerate==1.15.0 datasets tokenizers torch==2.13.0 numpy
cat > "$work/show.py" <<'PYTHON'
import sys
import warnings

import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from trl import SFTConfig, SFTTrainer

calls = []


class Own(LlamaForCausalLM):
    """Its loss is always above 1000."""

    def forward(self, input_ids=None, labels=None, **more):
        calls.append(labels is not None)
        out = super().forward(input_ids=input_ids, **more)
        if labels is not None:
            out.loss = out.logits.float().pow(2).mean() + 1000
        return out


words = Tokenizer(models.WordLevel({"<unk>": 0, "<end>": 1, "a": 2, "b": 3}, "<unk>"))
words.pre_tokenizer = pre_tokenizers.Whitespace()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>", eos_token="<end>", pad_token="<end>")
torch.manual_seed(0)
sizes = {"vocab_size": 8, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
model = Own(LlamaConfig(num_attention_heads=2, **sizes))
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    trainer = SFTTrainer(
        model,
        SFTConfig(
            sys.argv[1], max_steps=2, logging_steps=1, report_to=[], use_cpu=True, bf16=False, disable_tqdm=True
        ),
        train_dataset=Dataset.from_list([{"text": "a b a b"}] * 8),
        processing_class=tokenizer,
    )
    trainer.train()
losses = [float(entry["loss"]) for entry in trainer.state.log_history if "loss" in entry]
print("seen: calls of forward():", len(calls))
print("seen: losses below 1000:", all(loss < 1000 for loss in losses), len(losses))
print("seen: warnings about the loss:", sum("loss" in str(item.message) for item in caught))
model(torch.tensor([[2, 3]]), labels=torch.tensor([[2, 3]]))
print("seen: calls, once asked by hand:", len(calls))
PYTHON
"$work/venv/bin/python" "$work/show.py" "$work/out" 2>/dev/null | grep "^seen" | tee "$work/seen"
diff "$work/seen" - <<'SEEN' || { echo "changed since trl 1.16.0"; exit 1; }
seen: calls of forward(): 0
seen: losses below 1000: True 2
seen: warnings about the loss: 0
seen: calls, once asked by hand: 1
SEEN

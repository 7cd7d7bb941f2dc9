#!/usr/bin/env bash
# transformers 5.24.0: `pipeline(..., assistant_model=FOLDER)` does not ask the Auto classes. A folder that the pipeline
# loads as its model, because its class was registered with AutoModelForCausalLM, is refused as the assistant: "cannot
# infer suitable model classes". The assistant is looked for by the name of its architecture in the library itself, so
# only classes that ship with it can be named; the same model already loaded is taken. Drafters with classes of their
# own, which diffusion models are, have to be loaded before.
# Guessed: what the pipeline takes as `model` by its folder, it takes as `assistant_model` by its folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check transformers==5.24.0 torch==2.13.0 accelerate==1.15.0 numpy
cat > "$work/show.py" <<'PYTHON'
import sys

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, pipeline


class OwnConfig(LlamaConfig):
    model_type = "own_llama"


class OwnForCausalLM(LlamaForCausalLM):
    config_class = OwnConfig


AutoConfig.register("own_llama", OwnConfig)
AutoModelForCausalLM.register(OwnConfig, OwnForCausalLM)
folder = sys.argv[1]
names = ["<s>", "</s>", *"abcdefgh"]
rules = Tokenizer(models.WordLevel({name: number for number, name in enumerate(names)}, unk_token="<s>"))
rules.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
PreTrainedTokenizerFast(tokenizer_object=rules, bos_token="<s>", eos_token="</s>", pad_token="</s>").save_pretrained(folder)
torch.manual_seed(0)
shape = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2)
OwnForCausalLM(OwnConfig(vocab_size=10, bos_token_id=0, eos_token_id=1, pad_token_id=1, **shape)).save_pretrained(folder)


def tried(**assistant):
    try:
        made = pipeline("text-generation", model=folder, **assistant)
        made("a b c", max_new_tokens=3, do_sample=False)
        return "answers"
    except Exception as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0][:60]}"


print("the model alone:", tried())
print("with itself as a loaded assistant:", tried(assistant_model=AutoModelForCausalLM.from_pretrained(folder)))
print("with itself as an assistant by its folder:", tried(assistant_model=folder))
PYTHON
(cd "$work" && venv/bin/python show.py folder 2>/dev/null) | tee "$work/seen"
diff "$work/seen" - <<'SEEN' || { echo "changed since transformers 5.24.0"; exit 1; }
the model alone: answers
with itself as a loaded assistant: answers
with itself as an assistant by its folder: ValueError: Pipeline cannot infer suitable model classes from folder
SEEN

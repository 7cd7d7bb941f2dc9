"""The model card: what the model is, how it was made, what was measured, how each host loads it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dllm_plugins.training.conversion.targets import TARGETS

_HOSTS = """\
## How to use it

```
llm dllm add {folder} --name mine
llm -m mine 'Why is the sky blue?'
```

```python
from langchain_dllm import ChatDLLM

print(ChatDLLM(model="{folder}").invoke("Why is the sky blue?").content)
```

```python
import dllm_transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{folder}")
model = AutoModelForCausalLM.from_pretrained("{folder}")
inputs = tokenizer("The sky is", return_tensors="pt")
print(tokenizer.decode(model.generate(**inputs, max_new_tokens=32)[0]))
```
"""


def setting(options: Mapping[str, Any]) -> str:
    """Options as one reads them."""
    return ", ".join(f"{name} {value}" for name, value in options.items() if not isinstance(value, dict))


def card(about: Mapping[str, Any], scores: Mapping[str, Any], folder: str) -> str:
    """README.md of the folder.

    :param about: the recipe, with `base`.
    :param scores: what `scores.json` holds.
    :param folder: how the examples name it.
    """
    target = TARGETS[about["to"]]
    lines = [
        "---",
        "library_name: transformers",
        "pipeline_tag: text-generation",
        "tags: [diffusion, dllm]",
        "---",
        "",
        f"# {about['base']} as a diffusion model ({about['to']})",
        "",
        f"The autoregressive model {about['base']}, trained further by dllm-plugins to denoise blocks of "
        f"{about['block']} positions, in the format of {target.source}. The licence is that of {about['base']}.",
        "",
        "## Training",
        "",
        f"{scores['steps']} steps of {about['batch'] * about['gather'] * scores['processes']} texts, "
        f"of {scores['texts']} of together {scores['tokens']} tokens, seed {about['seed']}, learning rate "
        f"{about['learning_rate']:g}, computed in {about['dtype']}.",
        "",
        "## Evaluation",
        "",
        f"Held out: {scores['held_out_texts']} texts. Nats a token: {scores['base_nats']:.3f} of the base, left to "
        f"right (perplexity {scores['base_perplexity']:.2f}); of this model at most {scores['bound']:.3f} ± "
        f"{scores['error']:.3f} (perplexity {scores['perplexity']:.2f}), {scores['bound_before']:.3f} before training.",
        "",
        f"{scores['prompts']} held-out prompts, decoded greedily, at most {scores['answer_tokens']} tokens. The "
        f"perplexity is that of the answers under the base, by which repetitions are likely.",
        "",
        "| setting | tokens/pass | perplexity under the base | ended | doubled words |",
        "|---|---|---|---|---|",
    ]
    for line in scores["decoded"]:
        lines.append(
            f"| {setting(line['options'])} | {line['tokens_per_pass']:.2f} | {line['perplexity']:.2f} | "
            f"{line['ended']:.0%} | {line['doubled']:.1%} |"
        )
    if scores["checks"]:
        lines += ["", "Lossless modes, answers equal to those they must equal:", ""]
    lines += [
        f"- `{line['fast']['mode']}` and `{line['slow']['mode']}`: {line['equal']} of {line['of']}"
        for line in scores["checks"]
    ]
    return "\n".join(lines) + "\n\n" + _HOSTS.format(folder=folder)


def write_card(folder: Path, about: Mapping[str, Any], scores: Mapping[str, Any], name: str) -> None:
    """Write README.md."""
    (folder / "README.md").write_text(card(about, scores, name), encoding="utf-8")

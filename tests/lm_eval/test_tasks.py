"""lm-evaluation-harness, its own loop and its own command, over three small tasks made here."""

import json
import math
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from lm_eval import simple_evaluate
from lm_eval.api.instance import Instance
from lm_eval.api.registry import get_model
from lm_eval.tasks import TaskManager

from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins import load_model
from dllm_plugins.errors import OptionError
from dllm_plugins.errors import RequestError
from dllm_plugins.likelihood.scoring import Sampling
from dllm_plugins.likelihood.scoring import log_likelihood
from dllm_plugins.lm_eval.__main__ import main
from dllm_plugins.lm_eval.model import DiffusionLM

TASKS = Path(__file__).parent / "tasks"
TEXTS = json.loads((TASKS / "texts.json").read_text(encoding="utf-8"))
FAMILIES: dict[str, dict[str, Any]] = {
    "tri-mode": {},
    "whole canvas": {"family": "diffullama", "mask_id": 0, "mode": "scheduled", "steps": 4},
    "blocks": {"family": "stable_diffcoder", "mask_id": 0, "mode": "blocks", "block_length": 4},
}


def arguments(tiny_folder: Path, kind: str) -> dict[str, Any]:
    if kind == "tri-mode":
        denoiser = str(tiny_folder.parent / "denoiser.safetensors")
        where = {"pretrained": "dllm", "base": str(tiny_folder), "denoiser": denoiser}
    else:
        folder = named(tiny_folder, "StableDiffcoderForCausalLM") if kind == "blocks" else tiny_folder
        where = {"pretrained": str(folder)}
    return where | {"dtype": "float32", "samples": 6} | FAMILIES[kind]


def named(folder: Path, architecture: str) -> Path:
    """The same checkpoint as another family's."""
    copy = folder.parent / architecture
    if not copy.exists():
        shutil.copytree(folder, copy)
        config = json.loads((copy / "config.json").read_text())
        (copy / "config.json").write_text(json.dumps(config | {"architectures": [architecture]}))
    return copy


@pytest.mark.parametrize("kind", FAMILIES)
def test_scores_are_those_of_the_engine(kind: str, tiny_folder: Path) -> None:
    """Answers of the engine for prompts as the task writes them, and likelihoods as ours; metrics are the harness's."""
    given = arguments(tiny_folder, kind)
    model = DiffusionLM(**given, batch_size=2)
    found = simple_evaluate(
        model,
        tasks=["dllm_written", "dllm_chosen", "dllm_read"],
        task_manager=TaskManager(include_path=str(TASKS), include_defaults=False),
        log_samples=True,
        bootstrap_iters=0,
    )
    samples = found["samples"]
    denoiser = model.model.denoiser
    sampling = Sampling(6, block_length=given.get("block_length"))
    likeliest = []
    for place, doc in enumerate(TEXTS):
        prompt = model.tokenizer.encode(f"Question: {doc['question']}\nAnswer:")
        decoding = {name: value for name, value in given.items() if name in ("mode", "steps", "block_length")}
        config = SamplingConfig(max_new_tokens=8, stop=("\n",), seed=0, **decoding)
        [finish] = load_again(given).engine().generate([Request(prompt, config)])
        assert samples["dllm_written"][place]["resps"] == [[finish.text]]
        odds = []
        for option in doc["options"]:
            ids = model.tokenizer.encode(" " + option)
            odds.append(log_likelihood(denoiser, prompt, ids, sampling).logprob)
        told = [response[0][0] for response in samples["dllm_chosen"][place]["resps"]]
        assert told == pytest.approx(odds, abs=1e-5)
        likeliest.append(odds.index(max(odds)) == doc["label"])
    assert found["results"]["dllm_chosen"]["acc,none"] == pytest.approx(sum(likeliest) / 2)
    texts = [model.tokenizer.encode(doc["text"]) for doc in TEXTS]
    begin = model.tokenizer.bos_token_id
    total = sum(log_likelihood(denoiser, [begin], ids, sampling).logprob for ids in texts)
    words = sum(len(doc["text"].split()) for doc in TEXTS)
    assert found["results"]["dllm_read"]["word_perplexity,none"] == pytest.approx(math.exp(-total / words), rel=1e-4)


def load_again(given: dict[str, Any]) -> Any:
    names = ("base", "denoiser", "dtype", "family", "mask_id")
    return load_model(given["pretrained"], **{name: given[name] for name in names if name in given})


def instance(*told: Any) -> Instance:
    return Instance("generate_until", {}, told, 0)


@pytest.fixture(scope="module")
def tri_mode(tiny_folder: Path) -> DiffusionLM:
    return DiffusionLM(**arguments(tiny_folder, "tri-mode"))


def test_options_of_tasks(tri_mode: DiffusionLM) -> None:
    """They are the engine's, by its names or the harness's; what nobody knows is refused before anything is decoded."""
    [plain, long, again, sampled, other] = tri_mode.generate_until(
        [
            instance("Hello", {"until": "\n", "max_gen_toks": 6}),
            instance("Hello", {"until": [], "max_new_tokens": 12, "mode": "ar"}),
            instance("Hello", {"max_gen_toks": 6, "do_sample": False, "temperature": 0.7, "top_p": 0.9}),
            instance("Hello", {"max_gen_toks": 12, "do_sample": True, "temperature": 2.0}),
            instance("Hello", {"max_gen_toks": 12, "do_sample": True, "temperature": 2.0}),
        ],
        disable_tqdm=True,
    )
    assert long.startswith(again)
    assert again.startswith(plain)
    assert sampled != other
    for options, match in (
        ({"min_p": 0.1}, "min_p"),
        ({"treshold": 0.5}, "treshold"),
        ({"mode": "nonsense"}, "nonsense"),
        ({"temperature": -1}, "temperature"),
    ):
        with pytest.raises((OptionError, RequestError), match=match):
            tri_mode.generate_until([instance("Hello", options)], disable_tqdm=True)


def test_prompts_beyond_the_context(tri_mode: DiffusionLM, tiny_folder: Path) -> None:
    """They are refused with the remedy, or cut at their beginning where that is asked for."""
    prompt = "a" * 600
    with pytest.raises(RequestError, match="truncate=true"):
        tri_mode.generate_until([instance(prompt, {"max_gen_toks": 4})], disable_tqdm=True)
    with pytest.raises(RequestError, match="num_fewshot"):
        tri_mode.loglikelihood([instance(prompt, " b")], disable_tqdm=True)
    cutting = DiffusionLM(**arguments(tiny_folder, "tri-mode"), truncate=True, max_length=32)
    [cut] = cutting.generate_until([instance(prompt, {"max_gen_toks": 4})], disable_tqdm=True)
    [short] = cutting.generate_until([instance("a" * 28, {"max_gen_toks": 4})], disable_tqdm=True)
    assert cut == short
    [rolled] = cutting.loglikelihood_rolling([instance("abc" * 30)], disable_tqdm=True)
    assert rolled < 0


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"pretrained": None}, "pretrained is missing"),
        ({"samples": 0}, "samples=0"),
        ({"truncate": 1}, "true or false"),
        ({"mc_num": 5}, "mc_num"),
        ({"temperature": 0.5}, "gen_kwargs temperature"),
        ({"trust_remote_code": True}, "no code of a checkpoint"),
        ({"batch_size": "many"}, "batch_size"),
        ({"threshold": 7.0}, "threshold"),
    ],
)
def test_wrong_arguments(wrong: dict[str, Any], match: str, tiny_folder: Path) -> None:
    with pytest.raises(OptionError, match=match):
        DiffusionLM(**arguments(tiny_folder, "tri-mode") | wrong)


def test_chats(tri_mode: DiffusionLM) -> None:
    """The chat template writes the prompt, whose control tokens are read as such, and once."""
    text = tri_mode.apply_chat_template([{"role": "user", "content": "Hi"}])
    assert text == "<s>user\nHi</s>\n<s>assistant\n"
    ids = tri_mode.tok_encode(text)
    assert ids == tri_mode.tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hi"}], add_generation_prompt=True, return_dict=False
    )
    assert tri_mode.chat_template(True) == tri_mode.tokenizer.chat_template
    begun = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Good"}]
    assert tri_mode.apply_chat_template(begun, add_generation_prompt=False).endswith("Good")


@pytest.mark.slow
def test_the_command(tiny_folder: Path, tmp_path: Path) -> None:
    """`python -m dllm_plugins.lm_eval` is the harness's command."""
    given = ",".join(f"{name}={value}" for name, value in arguments(tiny_folder, "whole canvas").items())
    command = [sys.executable, "-m", "dllm_plugins.lm_eval", "--model", "dllm", "--include_path", str(TASKS)]
    more = ["--tasks", "dllm_chosen", "--output_path", str(tmp_path), "--model_args", given]
    done = subprocess.run([*command, *more], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    [results] = tmp_path.rglob("results_*.json")
    assert json.loads(results.read_text())["results"]["dllm_chosen"]["acc,none"] in (0.0, 0.5, 1.0)


def test_errors_of_the_command_are_one_line(monkeypatch: pytest.MonkeyPatch, tiny_folder: Path) -> None:
    """And the harness finds the model by its name."""

    def evaluate() -> None:
        get_model("dllm").create_from_arg_obj(arguments(tiny_folder, "tri-mode") | {"mc_num": 3})

    monkeypatch.setattr("lm_eval.__main__.cli_evaluate", evaluate)
    with pytest.raises(SystemExit, match=r"^Error: unknown option mc_num=3 of the model"):
        main()

"""`llm dllm add`, `models` and `remove`, and checkpoints of other families as models of llm."""

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import llm
import pytest
from click.testing import Result

from dllm_plugins import Model
from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins import load_model
from llm_dllm import DLLM
from llm_dllm.loading import DEFAULT
from llm_dllm.registry import entries
from llm_dllm.registry import registry_file

Run = Callable[..., Result]
Make = Callable[..., Path]
CASES = ["llada_dense", "sdar"]
ASK = [{"role": "user", "content": "how?"}]
OPTIONS = {"max_new_tokens": 12, "block_length": 4, "steps": 3}
GIVEN = ["-o", "max_tokens", "12", "-o", "block_length", "4", "-o", "steps", "3"]


def engine_text(model: Model, tokens: list[int], **options: Any) -> str:
    """What the engine itself answers."""
    return model.engine().generate([Request(tokens, SamplingConfig(**(OPTIONS | options)))])[0].text


def same(shown: str, text: str) -> bool:
    """Against the engine's text; random bytes may not be printable."""
    return shown.encode(errors="replace").decode() == text.encode(errors="replace").decode() + "\n"


@pytest.mark.parametrize("case", CASES)
def test_an_added_checkpoint_answers(run: Run, checkpoint: Make, case: str) -> None:
    """Streamed, at once, in a conversation, in `watch`: the engine's own text."""
    place = checkpoint(case)
    shown = run("dllm", "add", str(place), "--name", "mine").stdout
    assert "mine" in shown
    assert "parameters" in shown
    model = load_model(str(place), dtype="float32")
    text = engine_text(model, model.encode_chat(ASK))
    assert text
    assert same(run("-m", "mine", "how?", *GIVEN).stdout, text)
    assert same(run("-m", "mine", "how?", *GIVEN, "--no-stream").stdout, text)
    assert run("dllm", "watch", "-m", "mine", "how?", *GIVEN).stdout.startswith(
        text.encode(errors="replace").decode() + "\n"
    )
    logged = json.loads(run("logs", "--json", "-n", "1").stdout)[0]
    assert logged["model"] == "mine"
    run("aliases", "set", "short", "mine")
    assert run("dllm", "watch", "-m", "short", "how?", *GIVEN).stdout


def test_a_conversation_sends_the_history(run: Run, checkpoint: Make) -> None:
    """As with the default model."""
    place = checkpoint("sdar")
    run("dllm", "add", str(place))
    model = load_model(str(place), dtype="float32")
    conversation = llm.get_model("sdar").conversation()
    options: dict[str, Any] = {"max_tokens": 4, "block_length": 4, "steps": 3}
    first = conversation.prompt("how?", system="brief", **options).text()
    second = conversation.prompt("so?", **options).text()
    history = [
        {"role": "system", "content": "brief"},
        *ASK,
        {"role": "assistant", "content": first},
        {"role": "user", "content": "so?"},
    ]
    assert second == engine_text(model, model.encode_chat(history), max_new_tokens=4)


async def test_async_and_options_of_the_sampler(run: Run, checkpoint: Make) -> None:
    """`preset_options` as JSON text or as a dict; the environment's base and denoiser are not a checkpoint's."""
    place = checkpoint("sdar")
    run("dllm", "add", str(place))
    model = load_model(str(place), dtype="float32")
    special = {"remasking": "sequential"}
    text = engine_text(model, model.encode_chat(ASK), preset_options=special)
    assert text != engine_text(model, model.encode_chat(ASK))
    assert same(run("-m", "sdar", "how?", *GIVEN, "-o", "preset_options", json.dumps(special)).stdout, text)
    response = llm.get_async_model("sdar").prompt(
        "how?", max_tokens=12, block_length=4, steps=3, preset_options=special
    )
    assert await response.text() == text
    result = run("-m", "sdar", "how?", "-o", "preset_options", "sequential", code=1)
    assert "JSON object" in result.output
    result = run("-m", "sdar", "how?", "-o", "preset_options", '{"remasking": "by luck"}', code=1)
    assert "remasking" in result.output
    assert "Traceback" not in result.output


def test_a_base_checkpoint_goes_on_from_plain_text(run: Run, checkpoint: Make) -> None:
    """Without a chat template: one text, no system prompt, no history."""
    place = checkpoint("sdar", "chat_template.jinja")
    run("dllm", "add", str(place))
    model = load_model(str(place), dtype="float32")
    text = engine_text(model, model.tokenizer.encode("how?"))
    assert same(run("-m", "sdar", "how?", *GIVEN).stdout, text)
    for more in (["-s", "brief"], ["-c"]):
        output = run("-m", "sdar", "so?", *more, *GIVEN, code=1).output
        assert "sdar has no chat template" in output
        assert "Traceback" not in output
    assert "empty" in run("-m", "sdar", " ", code=1).output


def test_models_shows_what_is_known(run: Run, checkpoint: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """The default and each checkpoint: size, licence, attention, cache, sampler."""
    place = checkpoint("llada_dense")
    (place / "README.md").write_text("---\ntags:\n- text\nlicense: cc-by-4.0\n---\n# A model\n")
    run("dllm", "add", str(place), "--preset", "fast_dllm")
    shown = run("dllm", "models").stdout
    default, mine = shown.split("\nllada_dense\n")
    for words in ("dllm (default)", "speculative, diffusion, ar", "exact", "apache-2.0", "parameters"):
        assert words in default
    size = (place / "model.safetensors").stat().st_size
    for words in (
        str(place),
        "cc-by-4.0",
        "bidirectional",
        "none",
        "fast_dllm: as it was asked for",
        f"{size / 1000:.4g} kB on disk",
    ):
        assert words in mine
    monkeypatch.setenv("DLLM_BASE", "someone/base")
    assert "not known" in run("dllm", "models").stdout
    monkeypatch.delenv("DLLM_BASE")
    monkeypatch.setenv("DLLM_CACHE", str(place))
    assert "python -m dllm_plugins setup" in run("dllm", "models").stdout
    (place / "README.md").unlink()
    run("dllm", "add", str(place), "--name", "again")
    assert "MIT" in run("dllm", "models").stdout


def test_what_cannot_be_added(run: Run, checkpoint: Make, tmp_path: Path) -> None:
    """One clear line each, in the command's own words; nothing is registered."""
    place = str(checkpoint("llada_dense", "mask_token_id"))
    bare = str(checkpoint("sdar", "tokenizer.json", "tokenizer_config.json"))
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "config.json").write_text('{"architectures": ["GPT2LMHeadModel"]}')
    for arguments, words in (
        ([place], "--mask-id"),
        ([place, "--preset", "luck"], "--preset='luck'"),
        ([place, "--family", "dream"], "dream"),
        ([place, "--name", "dllm"], "taken by DLLM: dllm"),
        ([place, "--name", "two words"], "without spaces"),
        ([bare], "tokenizer"),
        ([str(tmp_path / "plain")], "no family knows"),
        ([str(tmp_path)], "config.json"),
    ):
        result = run("dllm", "add", *arguments, code=1)
        assert words in result.output
        assert len(result.output.strip().splitlines()) == 1
    assert entries() == {}
    run("dllm", "add", place, "--mask-id", "236", "--name", "mine")
    assert entries()["mine"].mask_id == 236
    assert "taken" in run("dllm", "add", place, "--mask-id", "236", "--name", "mine", code=1).output
    assert run("-m", "mine", "how?", *GIVEN).stdout


def test_a_hub_repository(
    run: Run, checkpoint: Make, tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The small files are fetched and checked first; later the fetched folder is used, by its name alone."""
    folder, asked = checkpoint("llada_dense"), list[tuple[str, bool]]()

    def fetch(name: str, allow_patterns: list[str]) -> str:
        asked.append((name, "*.safetensors" in allow_patterns))
        return str({"GSAI-ML/tiny": folder, "someone/llama": tiny_folder}[name])

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    run("dllm", "add", "GSAI-ML/tiny")
    assert asked == [("GSAI-ML/tiny", False), ("GSAI-ML/tiny", True)]
    assert run("-m", "tiny", "how?", *GIVEN).stdout
    assert len(asked) == 2
    assert "--family" in run("dllm", "add", "someone/llama", code=1).output
    assert asked[2:] == [("someone/llama", False)]
    folder.rename(tmp_path / "elsewhere")
    folder = tmp_path / "elsewhere"
    assert run("-m", "tiny", "how?", *GIVEN).stdout
    assert asked[-1] == ("GSAI-ML/tiny", True)


def test_remove(run: Run, checkpoint: Make) -> None:
    """Forgets the name, keeps the files."""
    place = checkpoint("llada_dense")
    run("dllm", "add", str(place))
    assert str(place) in run("dllm", "remove", "llada_dense").stdout
    assert (place / "model.safetensors").exists()
    assert "Unknown model" in run("-m", "llada_dense", "how?", code=1).output
    result = run("dllm", "remove", "llada_dense", code=1)
    assert "no checkpoint 'llada_dense' is registered" in result.output
    assert [path.name for path in registry_file().parent.glob("dllm-models.json*")] == ["dllm-models.json"]


@pytest.mark.parametrize("text", ["{", "[]", '{"mine": {"source": "x"}}', "\udcff"])
def test_a_damaged_registry_spares_other_models(run: Run, caplog: pytest.LogCaptureFixture, text: str) -> None:
    """The file is named, once in a process; it is not written over."""
    registry_file().write_bytes(text.encode(errors="surrogateescape"))
    with caplog.at_level(logging.WARNING):
        assert run("-m", "dllm", "how?", "-o", "max_tokens", "4").stdout
    assert caplog.text.count(str(registry_file())) == 1
    for command in (["models"], ["remove", "mine"], ["add", "org/name"]):
        output = run("dllm", *command, code=1).output
        assert str(registry_file()) in output
        assert "Traceback" not in output
    assert registry_file().read_bytes() == text.encode(errors="surrogateescape")


def test_an_interrupted_write_leaves_the_old_file(run: Run, checkpoint: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """And no partial file beside it."""
    place = checkpoint("llada_dense")
    run("dllm", "add", str(place), "--name", "one")
    before = registry_file().read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", lambda self, target: (_ for _ in ()).throw(OSError("disk full")))
        run("dllm", "add", str(place), "--name", "two", code=1)
    assert registry_file().read_bytes() == before
    assert len(list(registry_file().parent.glob("*dllm-models.json*"))) == 1


ADD = """
import sys
from llm_dllm import registry
from llm_dllm.entry import CheckpointFacts, Entry
facts = CheckpointFacts(family="f", parameters=1, size=1, licence="l", attention="a", cache="c", sampler="s")
for more in "abcd":
    registry.add(sys.argv[1] + more, Entry(source="s", folder="f", facts=facts))
registry.remove(sys.argv[1] + "b")
"""


@pytest.mark.slow
def test_adding_and_removing_at_once_loses_nothing() -> None:
    """Processes that change one file."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    running = [subprocess.Popen([sys.executable, "-c", ADD, name], env=environment) for name in "1234"]
    assert [process.wait(60) for process in running] == [0] * 4
    assert sorted(entries()) == [name + more for name in "1234" for more in "acd"]
    assert [path.name for path in registry_file().parent.glob("*dllm*")] == ["dllm-models.json"]


def test_watch_takes_our_models_only(run: Run) -> None:
    """Not those of other plug-ins, nor unknown names."""
    assert "unknown model 'nothing'" in run("dllm", "watch", "-m", "nothing", "how?", code=1).output
    assert "not a diffusion model" in run("dllm", "watch", "-m", "gpt-4o", "how?", code=1).output


def test_the_environment_chooses_dtype_and_device_for_all(
    run: Run, checkpoint: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Base and denoiser belong to the default model."""
    run("dllm", "add", str(checkpoint("sdar")))
    monkeypatch.setenv("DLLM_DTYPE", "bfloat16")
    model = llm.get_model("sdar")
    assert isinstance(model, DLLM)
    assert model.choice.load_options() == {"dtype": "bfloat16", "family": None, "preset": "sdar", "mask_id": None}
    assert set(DEFAULT.load_options()) == {"base", "denoiser", "dtype"}


def test_registering_checkpoints_imports_nothing_heavy(run: Run, checkpoint: Make) -> None:
    """`llm models list` stays fast with checkpoints in it."""
    run("dllm", "add", str(checkpoint("llada_dense")), "--name", "mine")
    code = (
        "import llm, llm_dllm, sys; found = []; llm_dllm.register_models(lambda *models: found.append(models[0]));"
        "print(*[model.model_id for model in found]);"
        "print(*{'torch', 'transformers', 'safetensors', 'huggingface_hub'} & {*sys.modules})"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines() == ["dllm mine dllm-sudoku dllm-path", ""]

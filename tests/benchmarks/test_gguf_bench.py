"""The benchmark of GGUF files: its vocabulary, the other program's line and output, its rows, and all of it once."""

import importlib.util
import json
import os
import stat
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from importlib.machinery import PathFinder
from pathlib import Path

import click
import pytest
import torch
from click.testing import CliRunner
from transformers import PreTrainedTokenizerFast

from dllm_plugins import load_model
from dllm_plugins.denoisers.base import Segment
from dllm_plugins.gguf.header import read_header
from dllm_plugins.llama_cpp.convert import convert
from gguf_bench import command
from gguf_bench.checkpoints import ARCHITECTURES
from gguf_bench.checkpoints import SHAPES
from gguf_bench.checkpoints import checkpoint
from gguf_bench.checkpoints import weights_of
from gguf_bench.cli import CliError
from gguf_bench.cli import DiffusionCli
from gguf_bench.cli import Task
from gguf_bench.cli import say_prompt_only
from gguf_bench.contest import Case
from gguf_bench.contest import name_of
from gguf_bench.sides import engine
from gguf_bench.sides import whole_canvas
from gguf_bench.turns import Decoded
from gguf_bench.turns import Setting
from gguf_bench.turns import Side
from gguf_bench.turns import agreement
from gguf_bench.turns import compare
from gguf_bench.turns import in_turns
from gguf_bench.turns import line
from gguf_bench.vocabulary import Vocabulary

FOLDER = Path(command.__file__).parents[1]
TINY = Vocabulary.of(SHAPES["tiny"].vocabulary)
TASK = Task(tuple(range(256, 264)), new=8, block=4, steps=2)
SETTING = Setting("dream", "tiny", "F32", weights=7, threads=1, prompt=8, new_tokens=4)
#: Prints what llama-diffusion-cli does; `LOSES` names a file that holds in how many runs it loses its end.
PROGRAM = """#!{python}
import json, pathlib, sys
arguments = dict(zip(sys.argv[2::2], sys.argv[3::2]))
pathlib.Path({seen!r}).write_text(json.dumps(arguments))
for step in range({passes}):
    sys.stderr.write(f"\\ndiffusion step: {{step}}/{{arguments['--diffusion-steps']}} [==] 3%")
loses = pathlib.Path({loses!r})
left = int(loses.read_text())
loses.write_text(str(left - 1))
if left <= 0:
    sys.stderr.write("\\ntotal time: 120.50ms, time per step: 1.00ms, sampling time per step: 0.25ms\\n")
    sys.stderr.write("\\n" + {text!r} + "\\n")
sys.exit({code})
"""


class Fake:
    """A program in a folder that says what it is told to, in place of llama-diffusion-cli."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / "program"

    def says(self, text: str, *, passes: int = 6, loses: int = 0, code: int = 0) -> DiffusionCli:
        seen, lost = str(self.folder / "seen.json"), self.folder / "loses"
        lost.write_text(str(loses))
        self.path.write_text(
            PROGRAM.format(python=sys.executable, seen=seen, passes=passes, loses=str(lost), text=text, code=code)
        )
        self.path.chmod(self.path.stat().st_mode | stat.S_IXUSR)
        return DiffusionCli(self.path, Path("model.gguf"), TINY, threads=1)

    @property
    def seen(self) -> dict[str, str]:
        found: dict[str, str] = json.loads((self.folder / "seen.json").read_text())
        return found


@pytest.fixture
def fake(tmp_path: Path) -> Fake:
    return Fake(tmp_path)


@pytest.fixture
def machine() -> Iterator[None]:
    """The script limits its process."""
    threads = torch.get_num_threads()
    processors = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    yield
    torch.set_num_threads(threads)
    if processors is not None:
        os.sched_setaffinity(0, processors)


@pytest.mark.parametrize("size", [512, 5000, 49_152])
def test_words_stand_for_themselves(size: int, tmp_path: Path) -> None:
    """In our text, and in the tokenizer that is written, whatever is beside them."""
    vocabulary = Vocabulary.of(size)
    assert len(vocabulary.tokens) == len(set(vocabulary.tokens)) == size
    vocabulary.write(tmp_path)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    words = vocabulary.words
    drawn = torch.randint(words.start, words.stop, (300,), generator=torch.Generator().manual_seed(size)).tolist()
    drawn += [words.start, words.stop - 1]
    text = vocabulary.text(drawn)
    assert vocabulary.ids(text) == drawn
    assert tokenizer.encode(text, add_special_tokens=False) == drawn
    assert tokenizer.apply_chat_template([{"role": "user", "content": text}], return_dict=True)["input_ids"] == drawn
    assert (tokenizer.mask_token_id, tokenizer.eos_token_id) == (vocabulary.mask_id, vocabulary.end_id)
    for wrong in ("Aa b", "aa", "Aaaaaa"):
        with pytest.raises(ValueError, match="not made of this vocabulary's words"):
            vocabulary.ids(wrong)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_checkpoints_load_and_say_words(architecture: str, tmp_path: Path) -> None:
    checkpoint(architecture, SHAPES["tiny"], tmp_path)
    model = load_model(str(tmp_path), dtype="float32", device="cpu")
    assert model.denoiser.spec.mask_id == TINY.mask_id
    assert (
        weights_of(tmp_path)
        == 512 * 64 + 3 * (36_864 + {"dream": 128, "llada": 0, "sdar": 32}[architecture] + 128) + 64
    )
    if architecture != "sdar":
        found = engine(model, TASK, whole_canvas(TASK, None))()
        assert (len(found.tokens), found.passes, found.rows) == (8, 4, 4 * 16)
        assert all(token in TINY.words for token in found.tokens)


def test_steps_of_the_program() -> None:
    """It counts blocks of the prompt, too, and aborts where they are not whole."""
    assert (TASK.passes, TASK.length, TASK.asked) == (4, 16, 8)
    for new, block in ((8, 3), (6, 4), (8, 16)):
        with pytest.raises(ValueError, match=f"not whole blocks of {block}"):
            Task(TASK.prompt, new=new, block=block, steps=2)


def test_output_is_read(fake: Fake) -> None:
    """Also where the first runs lose their end."""
    tokens = (300, 301, 302, 303, 300, 300, 509, 256)
    found = fake.says(TINY.text(tokens), loses=2).run(TASK)
    assert (found.tokens, found.passes) == (tokens, 6)
    assert found.seconds == pytest.approx(0.1205)
    assert found.sampling == pytest.approx(0.25 * 8 / 1000)
    seen = fake.seen
    assert seen["-p"] == TINY.text(TASK.prompt)
    assert {seen[option] for option in ("-ub", "-b", "-c")} == {"16"}
    wanted = {"--diffusion-steps": "8", "--diffusion-block-length": "4", "--top-k": "1", "--temp": "0", "-t": "1"}
    assert {option: seen[option] for option in wanted} == wanted


WORDS = TINY.text(TASK.prompt)


@pytest.mark.parametrize(
    ("text", "loses", "code", "message"),
    [
        (WORDS, 9, 0, "did not print all in 5 runs"),
        (WORDS[:-2], 0, 0, "gave 7 new tokens instead of 8"),
        ("no words", 0, 0, "something else than tokens"),
        (WORDS, 0, 3, "ended with code 3"),
    ],
)
def test_what_the_program_gets_wrong(fake: Fake, text: str, loses: int, code: int, message: str) -> None:
    with pytest.raises(CliError, match=message):
        fake.says(text, loses=loses, code=code).run(TASK)


def test_no_program(tmp_path: Path) -> None:
    with pytest.raises(CliError, match="does not run"):
        DiffusionCli(tmp_path / "missing", Path("model.gguf"), TINY, threads=1).run(TASK)


def test_the_message_alone_is_the_prompt(tmp_path: Path) -> None:
    """Also where the family has a chat template of its own; nothing else of the file changes."""
    file = convert(checkpoint("llada", SHAPES["tiny"], tmp_path), tmp_path / "a.gguf", "F32")
    before, old = file.read_bytes(), str(read_header(file).metadata["tokenizer.chat_template"]).encode()
    say_prompt_only(file)
    after, new = file.read_bytes(), str(read_header(file).metadata["tokenizer.chat_template"])
    assert before.replace(old, new.encode()) == after
    tokenizer = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    chat = [{"role": "user", "content": WORDS}]
    assert tokenizer.apply_chat_template(chat, chat_template=new, tokenize=False) == WORDS
    say_prompt_only(file)
    assert file.read_bytes() == after


def test_greedy_from_left_to_right(tmp_path: Path) -> None:
    """As a loop over whole canvases that commits one position after the other."""
    model = load_model(str(checkpoint("llada", SHAPES["tiny"], tmp_path)), dtype="float32", device="cpu")
    denoiser, canvas = model.denoiser, [*TASK.prompt, *[TINY.mask_id] * 8]
    row = denoiser.open_row()
    for place in range(8, 16):
        whole = Segment(row, canvas, range(16), noisy=True, causal=False, wanted=[place])
        canvas[place] = int(denoiser.logits(denoiser.forward([whole])[0]).argmax())
    found = engine(model, replace(TASK, steps=4), whole_canvas(replace(TASK, steps=4), None))()
    assert list(found.tokens) == canvas[8:]
    assert found.passes == 8


def side(seconds: float, passes: int, tokens: tuple[int, ...] = (1, 2, 3, 4)) -> Side:
    return Side(Decoded(tokens, passes, 10 * passes, seconds), seconds)


def test_rows_compare_as_many_passes() -> None:
    row = compare("a", side(0.1, 4), side(1.2, 6), SETTING, "how", "same tokens", "note", spare=2)
    assert (row.ours, row.baseline, row.ratio, row.ratio_as_run, row.ratio_per_pass) == (25.0, 300.0, 8.0, 12.0, 8.0)
    assert (row.ms_per_pass, row.baseline_ms_per_pass, row.tokens_per_second) == (25.0, 200.0, 40.0)
    assert (row.passes, row.baseline_passes, row.rows, row.baseline_rows, row.weights) == (4, 6, 40, 60, 7)
    assert "| `a` tiny F32 | 25.00 ms/token | 300.00 | 8.00 | 25.0 | 200.0 | 4 | 6 |" in line(row)


def test_agreement_in_words() -> None:
    ours = side(1, 1).answer
    assert agreement(ours, side(2, 2).answer) == "same tokens"
    assert agreement(ours, side(1, 1, (1, 9, 3, 4)).answer) == "3 of 4 tokens equal, the first 1 in a row"


def test_contestants_begin_in_turns() -> None:
    """Once unmeasured; the median counts."""
    order: list[str] = []
    times = {"a": iter([9.0, 1.0, 3.0, 2.0]), "b": iter([9.0, 5.0, 5.0, 6.0])}

    def decode(name: str) -> Decoded:
        order.append(name)
        return Decoded((1,), 1, 1, next(times[name]))

    found = in_turns({name: partial(decode, name) for name in "ab"}, 3)
    assert "".join(order) == "ab" + "ab" + "ba" + "ab"
    assert (found["a"].seconds, found["b"].seconds) == (2.0, 5.0)


def test_names_of_rows(tmp_path: Path) -> None:
    main = Case("dream", "135m", "BF16", 8, 8, 4, 2, 1, 1, None, tmp_path)
    assert name_of(main, "llama_diffusion_cli") == "llama_diffusion_cli"
    assert name_of(main, "llama_cpp_ar") == "llama_cpp_ar/dream"
    assert name_of(replace(main, architecture="sdar"), "llama_cpp_ar") == "llama_cpp_ar"
    assert name_of(replace(main, size="tiny", quant="Q4_0"), "torch", "whole") == "torch/tiny/Q4_0/whole"


def test_no_script_hides_a_package() -> None:
    """Scripts import by bare names, their own folder first: one named as a package would be found in its place."""
    names = {path.stem for path in FOLDER.iterdir()} - {"README", "__pycache__"}
    others = [place for place in sys.path if Path(place).resolve() != FOLDER.resolve()]
    assert not [name for name in names if PathFinder.find_spec(name, others)]
    assert not names & {"gguf", "llama_cpp"}


def test_more_threads_than_processors(machine: None) -> None:
    with pytest.raises(click.BadParameter, match="10000"):
        command.limit(10_000)


def test_without_llama_cpp(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    found = CliRunner().invoke(command.main, [])
    assert found.exit_code == 1
    assert "pip install 'dllm-plugins[gguf]'" in found.output


SMALL = ["--size", "tiny", "--quant", "F32", "--prompt", "32", "--new", "32", "--block", "16", "--steps", "4"]
SMALL += ["--rounds", "1", "--threads", "1"]


def test_without_the_program(machine: None, tmp_path: Path) -> None:
    """Its rows are left out, with what to do; the others are there."""
    pytest.importorskip("llama_cpp", reason="needs the extra gguf")
    path, before = tmp_path / "rows.json", os.environ.get("DLLM_CACHE")
    found = CliRunner().invoke(command.main, [*SMALL, "--json", str(path)])
    assert found.exit_code == 0, found.output
    assert "skipped llama_diffusion_cli" in found.stderr
    assert "--diffusion-cli PATH" in found.stderr
    rows = {row["name"]: row for row in json.loads(path.read_text())}
    beside = ("llama_cpp_ar/dream", "torch", "llama_cpp_ar/llada", "torch/llada", "llama_cpp_ar", "torch/sdar")
    ours = ("dream_tiny", "dream_tiny/whole", "llada_tiny", "llada_tiny/whole", "sdar_tiny")
    kernels = {name.replace("tiny", "tiny_f32_p32n32") for name in ours}
    assert set(rows) == {f"{name}/tiny/F32" for name in beside} | kernels
    assert {rows[name]["exactness"] for name in kernels} == {"same tokens"}
    assert all(row["exactness"] == "same tokens" for name, row in rows.items() if name.startswith("torch"))
    assert (rows["torch/tiny/F32"]["passes"], rows["llama_cpp_ar/tiny/F32"]["baseline_passes"]) == (8, 32)
    assert rows["torch/tiny/F32"]["rows"] == rows["torch/tiny/F32"]["baseline_rows"]
    assert os.environ.get("DLLM_CACHE") == before


def test_beside_a_program(machine: None, fake: Fake, tmp_path: Path) -> None:
    """Passes of blocks behind the end are told, and left out of the ratio."""
    pytest.importorskip("llama_cpp", reason="needs the extra gguf")
    fake.says("Aa" * 32, passes=10)
    path = tmp_path / "rows.json"
    arguments = [*SMALL, "--architecture", "llada", "--diffusion-cli", str(fake.path), "--json", str(path)]
    found = CliRunner().invoke(command.main, arguments)
    assert found.exit_code == 0, found.output
    assert "skipped" not in found.stderr
    cached, whole, *_ = json.loads(path.read_text())
    assert (cached["name"], whole["name"]) == (
        "llama_diffusion_cli/llada/tiny/F32",
        "llama_diffusion_cli/llada/tiny/F32/whole",
    )
    assert cached["exactness"].startswith("approximate: ")
    for row in (cached, whole):
        assert (row["passes"], row["baseline_passes"]) == (8, 10)
        assert row["note"].startswith("2 of its passes")
        assert row["ratio_as_run"] * 0.8 == pytest.approx(row["ratio"], rel=0.01)
    assert cached["rows"] < whole["rows"] == 8 * 64


def test_options_that_do_nothing(machine: None) -> None:
    pytest.importorskip("llama_cpp", reason="needs the extra gguf")
    found = CliRunner().invoke(command.main, ["--default-model", "--size", "tiny", "--threads", "1"])
    assert found.exit_code == 2
    assert "--size is of no use with --default-model" in found.output

"""Rules: whose text a request gets, from the request and the user's file alone."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from dllm_plugins import Model
from dllm_plugins import Regex
from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins import plugins
from dllm_plugins.__main__ import main
from dllm_plugins.errors import OptionError
from dllm_plugins.routing.rules import kind_of
from dllm_plugins.routing.rules import text_mode
from dllm_plugins.template import Gap


def test_kinds() -> None:
    """Gaps come first."""
    held = SamplingConfig(constraint=Regex("a"))
    assert kind_of(Request([1])) == "open"
    assert kind_of(Request([1], held)) == "constraint"
    assert kind_of(Request([1], template=[Gap(2, old="a")])) == "edit"
    assert kind_of(Request([1], held, suffix=(2,))) == kind_of(Request([1], template=[Gap(2)])) == "gaps"


def test_users_may_write_others(tiny: Model, folder: Path) -> None:
    """A model's own come before those of all."""
    modes, spec = plugins.modes(), tiny.denoiser.spec
    assert [text_mode(kind, modes, spec) for kind in ("gaps", "constraint", "open")] == [
        "diffusion",
        "speculative",
        "speculative",
    ]
    (folder / "routes.toml").write_text('open = "diffusion"\n[models.dllm]\nconstraint = "ar"\n', encoding="utf-8")
    assert [text_mode(kind, modes, spec) for kind in ("gaps", "constraint", "open")] == ["diffusion", "ar", "diffusion"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('chat = "ar"', "chat"),
        ("open = 3", "open=3"),
        ('open = "wino"', "which dllm does not serve; its modes are speculative"),
        ('[models.dllm]\nopn = "ar"', "opn"),
        ("open =", "cannot be read"),
    ],
)
def test_wrong_rules_name_the_file(tiny: Model, folder: Path, text: str, words: str) -> None:
    """And what is wrong in it."""
    (folder / "routes.toml").write_text(text, encoding="utf-8")
    with pytest.raises(OptionError, match=r"routes\.toml") as raised:
        text_mode("open", plugins.modes(), tiny.denoiser.spec)
    assert words in str(raised.value)


def test_a_command_shows_them(folder: Path) -> None:
    """With their file, whether it is there, and what was measured; which it forgets when asked to."""
    shown = CliRunner().invoke(main, ["routes"])
    assert shown.exit_code == 0
    assert f"{folder / 'routes.toml'}, which is not there" in shown.output
    assert "gaps = filling" in shown.output
    (folder / "routes.json").write_text(
        '{"version": 2, "models": {"m": {"situations": {"s": {"arms": {"ar": {}}}}}}}', encoding="utf-8"
    )
    assert "s: ar 0 tokens/s" in CliRunner().invoke(main, ["routes"]).output
    assert "forgotten" in CliRunner().invoke(main, ["routes", "--reset"]).output
    assert not (folder / "routes.json").exists()

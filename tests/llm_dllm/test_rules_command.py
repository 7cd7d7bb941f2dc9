"""`llm dllm rules`."""

import subprocess
import sys
from collections.abc import Callable

import pytest
from click.testing import Result

from dllm_plugins import plugins
from dllm_plugins.rules import CommitRule
from dllm_plugins.rules import RevocationRule

Run = Callable[..., Result]


def test_everything_is_listed(run: Run) -> None:
    """Every rule, revocation and sampler with its line, its parameters, their defaults and its source."""
    shown = run("dllm", "rules").stdout
    rules: list[CommitRule | RevocationRule] = [*plugins.rules().values(), *plugins.revocations().values()]
    for rule in rules:
        assert f"\n  {rule.name}\n    {rule.summary}\n" in shown
        assert "arXiv" in rule.summary
        fields = rule.settings.model_fields if hasattr(rule, "settings") else {}
        for parameter, field in fields.items():
            assert f"      {parameter}" in shown
            assert f": {field.description}\n" in shown
    for name, sampler in plugins.modes().items():
        assert f"\n  {name}\n    {sampler.summary}\n    source: {sampler.source}\n" in shown
    for words in (
        "      gamma=0.1: nats",
        "      alpha=0.7: ",
        "      edit_threshold=0.9: ",
        "    options: steps, threshold\n",
        "      corpus: how frequent",
        "      late_tokens: ids committed last",
    ):
        assert words in shown
    assert "Undefined" not in shown
    assert "=None" not in shown


def test_one_is_listed_by_name(run: Run) -> None:
    """Its kind stands above it."""
    shown = run("dllm", "rules", "klass").stdout
    assert shown.startswith("Commit rules")
    assert "history=2" in shown
    assert "threshold=" not in shown
    assert "quota" not in shown
    assert run("dllm", "rules", "doubt").stdout.startswith("Revocation rules")


def test_an_unknown_name_is_refused(run: Run) -> None:
    """With what there is."""
    result = run("dllm", "rules", "fortune", code=1)
    assert "no rule and no sampler is called 'fortune'" in result.output
    assert "hierarchical" in result.output


def test_parameters_are_given_as_json(run: Run) -> None:
    """The way the list says, to which `info` points: a rule with a parameter decodes, and a wrong one is named."""
    assert "rules     llm dllm rules" in run("dllm", "info").stdout
    assert "entropy_bound" in run("dllm", "rules").stdout
    options = ["-o", "mode", "diffusion", "-o", "rule", "entropy_bound", "-o", "max_tokens", "12"]
    assert "12 tokens" in run("dllm", "watch", "why?", *options, "-o", "rule_options", '{"gamma": 3}').stdout
    wrong = run("dllm", "watch", "why?", *options, "-o", "rule_options", '{"gama": 3}', code=1)
    assert "'entropy_bound'" in wrong.output
    assert "it takes: gamma, order" in wrong.output


@pytest.mark.slow
def test_the_list_of_commands_needs_no_torch() -> None:
    """`llm dllm --help` stays quick."""
    code = "import sys, llm.cli; llm.cli.get_plugins(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

"""Check that the docs say what the code says. `--write` rewrites the generated parts."""

import re
import sys
from pathlib import Path
from types import NoneType
from types import UnionType
from typing import Any
from typing import Literal
from typing import Union
from typing import get_args
from typing import get_origin

from pydantic.fields import FieldInfo

from dllm_plugins import plugins
from dllm_plugins.config import SamplingConfig
from dllm_plugins.config import value_range
from dllm_plugins.families.layout import Layout
from dllm_plugins.families.layouts import IMPOSTORS
from dllm_plugins.families.layouts import LAYOUTS
from dllm_plugins.families.layouts import REFUSED
from dllm_plugins.families.layouts import REFUSED_FAMILIES
from dllm_plugins.options.originals.table import ORIGINALS
from dllm_plugins.rules import CommitRule
from dllm_plugins.rules import RevocationRule

ROOT = Path(__file__).parents[1]
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]
LONGEST_FILE = 400


def kind_of(annotation: Any) -> str:
    """A type in words, None left out."""
    if get_origin(annotation) in (Union, UnionType):
        return " or ".join(kind_of(kind) for kind in get_args(annotation) if kind is not NoneType)
    if get_origin(annotation) is Literal:
        return " or ".join(map(str, get_args(annotation)))
    return (
        annotation.__name__
        if isinstance(annotation, type)
        else str(annotation).replace("typing.", "").replace(" | ", " or ")
    )


def option_table() -> str:
    """Every option with its range and what it does."""
    lines = ["| option | values | meaning |", "|---|---|---|"]
    for name, field in SamplingConfig.model_fields.items():
        kind = kind_of(field.annotation)
        default = "" if field.default in (None, ()) else f"default {field.default}"
        values = "; ".join(part for part in (kind, value_range(name), default) if part)
        lines.append(f"| `{name}` | {values} | {field.description} |")
    return "\n".join(lines)


def rule_table() -> str:
    """Every commit rule with its options, its own parameters and its source."""
    lines = ["| rule | options | `rule_options` | commits |", "|---|---|---|---|"]
    for name, rule in sorted(plugins.rules().items()):
        options = ", ".join(f"`{option}`" for option in sorted(rule.options))
        lines.append(f"| `{name}` | {options or 'none'} | {parameters_of(rule)} | {rule.summary} |")
    return "\n".join(lines)


def revocation_table() -> str:
    """Every revocation rule with its parameters and its source."""
    lines = ["| rule | `revoke_options` | takes back |", "|---|---|---|"]
    for name, rule in sorted(plugins.revocations().items()):
        lines.append(f"| `{name}` | {parameters_of(rule)} | {rule.summary} |")
    return "\n".join(lines)


def parameters_of(rule: CommitRule | RevocationRule) -> str:
    """A rule's own parameters with their defaults."""
    fields = rule.settings.model_fields if hasattr(rule, "settings") else {}
    return ", ".join(told(name, field) for name, field in fields.items()) or "none"


def family_table() -> str:
    """Every family in one line that fits a screen."""
    lines = ["| family | a checkpoint | decodes with | cache | block |", "|---|---|---|---|---|"]
    for name, layout in sorted(LAYOUTS.items()):
        named = " *" if layout.named_only else ""
        chosen = f"`{layout.modes['diffusion']}`" if "diffusion" in layout.modes else "say `preset`"
        cache = "on request" if layout.attention == "bidirectional" else cache_of(layout)
        lines.append(
            f"| [`{name}`](families-in-detail.md#{name}){named} | `{layout.checkpoints[0]}` | {chosen} | {cache} | "
            f"{layout.block_length} |"
        )
    return "\n".join(lines)


def family_details() -> str:
    """All that is known of every family, each under its own heading."""
    return "\n\n".join(f"## `{name}`\n\n{details(layout)}" for name, layout in sorted(LAYOUTS.items()))


def details(layout: Layout) -> str:
    """One family as a list."""
    mask = (
        "none: open positions hold random tokens" if layout.noise == "uniform" else layout.mask_id or "from its files"
    )
    said = {
        "checkpoints": ", ".join(f"`{checkpoint}`" for checkpoint in layout.checkpoints),
        "licence": layout.licence,
        "attention": f"{layout.attention}, as {layout.classes}",
        "cache": cache_of(layout),
        "shift": "by one" if layout.shifted else "none",
        "decodes with": samplers_of(layout),
        "block": f"{layout.block_length} positions, where its config does not say otherwise",
        "mask id": mask,
        "verified": f"{layout.verified}{recorded(layout)}",
    }
    if layout.named_only:
        said["name it"] = f"`family='{layout.name}'`: the config looks like an ordinary model's"
    return "\n".join(f"- {name}: {value}" for name, value in said.items())


def recorded(layout: Layout) -> str:
    """The cases whose runs its samplers reproduce."""
    return f"; every recorded run: {', '.join(f'`{case}`' for case in layout.cases)}" if layout.cases else ""


def cache_of(layout: Layout) -> str:
    """What of the sequence is forwarded once only."""
    if layout.attention == "bidirectional":
        return "none; prefix or dual on request, approximate"
    return "none" if layout.attention == "own" and layout.noise == "masked" else "exact"


def samplers_of(layout: Layout) -> str:
    """The sampler behind each mode, and those a user can choose."""
    modes = [f"{mode}: `{sampler}`" for mode, sampler in layout.modes.items()]
    chosen = layout.modes.get("diffusion")
    if chosen is None:
        return ", ".join([*modes, "say `preset`: " + ", ".join(f"`{name}`" for name in layout.samplers)])
    others = [f"`{name}`" for name in layout.samplers if name not in layout.modes.values()]
    return ", ".join(modes + ([f"or {', '.join(others)}"] if others else []))


def sampler_table() -> str:
    """Every sampler with what it can be told."""
    lines = ["| sampler | does | options | `preset_options` | after |", "|---|---|---|---|---|"]
    for name, sampler in sorted(plugins.modes().items()):
        fields = sampler.settings.model_fields
        shared = [told(option, field) for option, field in fields.items() if option in SamplingConfig.model_fields]
        own = [told(option, field) for option, field in fields.items() if option not in SamplingConfig.model_fields]
        lines.append(
            f"| `{name}` | {sampler.summary} | {', '.join(shared) or 'none'} | {', '.join(own) or 'none'} | "
            f"{sampler.source} |"
        )
    return "\n".join(lines)


def steps_table() -> str:
    """What `steps` counts in every sampler that has it."""
    lines = ["| sampler | own sampler of | `steps` |", "|---|---|---|"]
    for name, sampler in sorted(plugins.modes().items()):
        field = sampler.settings.model_fields.get("steps")
        if field is not None:
            own = [
                f"`{layout.name}`" for layout in LAYOUTS.values() if name in (*layout.modes.values(), *layout.samplers)
            ]
            lines.append(f"| `{name}` | {', '.join(own) or 'none: general'} | {field.description} |")
    return "\n".join(lines)


def originals_tables() -> str:
    """What each argument of each original is here."""
    parts: dict[str, list[str]] = {}
    for found in ORIGINALS:
        rows = [f"| `{name}` | {here.cell()} |" for name, here in sorted(found.arguments.items())]
        parts.setdefault("\n".join(["| argument | here |", "|---|---|", *rows]), []).append(found.name)
    sampler = {found.name: found.sampler for found in ORIGINALS}
    titles = {table: ", ".join(names) for table, names in parts.items()}
    return "\n\n".join(
        f"## {titles[table]}\n\n{families_of(sampler[names[0]])}\n\n{table}" for table, names in parts.items()
    )


def families_of(sampler: str) -> str:
    """The families that have it as their own."""
    own = [f"`{layout.name}`" for layout in LAYOUTS.values() if sampler in (*layout.modes.values(), *layout.samplers)]
    return f"Sampler `{sampler}`, of {', '.join(own)}."


def told(option: str, field: FieldInfo) -> str:
    """An option and its default."""
    return f"`{option}`" if field.default in (None, ()) else f"`{option}={field.default}`"


def refused_table() -> str:
    """What is known and refused: architectures, names and families."""
    known = {**REFUSED, **IMPOSTORS, **REFUSED_FAMILIES}
    return "\n".join(["| what | why |", "|---|---|", *(f"| `{name}` | {why} |" for name, why in sorted(known.items()))])


GENERATED = {
    "options": option_table,
    "rules": rule_table,
    "revocations": revocation_table,
    "families": family_table,
    "family-details": family_details,
    "samplers": sampler_table,
    "refused": refused_table,
    "steps": steps_table,
    "originals": originals_tables,
}


def generated(text: str) -> str:
    """`text` with everything between `<!-- NAME -->` and `<!-- end -->` made anew."""

    def fill(found: re.Match[str]) -> str:
        return f"<!-- {found[1]} -->\n{GENERATED[found[1]]()}\n<!-- end -->"

    names = "|".join(GENERATED)
    return re.sub(rf"<!-- ({names}) -->\n.*?<!-- end -->", fill, text, flags=re.DOTALL)


def broken_links(page: Path) -> list[str]:
    """Relative links of a page that lead nowhere."""
    targets = re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    local = [target for target in targets if "://" not in target]
    return [f"{page.relative_to(ROOT)}: broken link {t}" for t in local if not (page.parent / t).exists()]


def unknown_commands(page: Path) -> list[str]:
    """`make` targets a page names that the Makefile does not have."""
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    named = re.findall(r"`?\bmake ([a-z]+)\b`", page.read_text(encoding="utf-8"))
    return [f"{page.relative_to(ROOT)}: no target `make {name}`" for name in named if name not in targets]


def times_of_nowhere(page: Path) -> list[str]:
    """Tables of times that no benchmark has put there, between `<!-- NAME -->` and `<!-- end -->`."""
    text = page.read_text(encoding="utf-8")
    by_hand = re.sub(r"<!-- (?!output|end)[\w-]+ -->\n.*?<!-- end -->", "", text, flags=re.DOTALL)
    found = [line for line in by_hand.splitlines() if line.startswith("|") and re.search(r"\bms/(token|pass)\b", line)]
    return [f"{page.relative_to(ROOT)}: times that no benchmark wrote: {line}" for line in found[:1]]


def doubled_tables() -> list[str]:
    """Tables that stand on more than one page, where they would disagree one day."""
    names = [name for page in PAGES for name in re.findall(r"<!-- ([\w-]+) -->\n", page.read_text(encoding="utf-8"))]
    filled = sorted({name for name in names if name not in ("end", "output") and names.count(name) > 1})
    return [f"two pages hold the table {name!r}; link from one to the other" for name in filled]


def long_files() -> list[str]:
    """Source files over the agreed length."""
    files = [path for top in ("dllm_plugins", "adapters", "kernels") for path in (ROOT / top).rglob("*.py")]
    counted = [(path, len(path.read_text(encoding="utf-8").splitlines())) for path in files]
    return [
        f"{path.relative_to(ROOT)}: {count} lines, at most {LONGEST_FILE}"
        for path, count in counted
        if count > LONGEST_FILE
    ]


def main(write: bool) -> int:
    """Print what is wrong; returns the number of findings."""
    problems = long_files() + doubled_tables()
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        if generated(text) != text:
            if write:
                page.write_text(generated(text), encoding="utf-8")
            else:
                problems.append(f"{page.relative_to(ROOT)}: a generated table is old; run python docs/check.py --write")
        problems += broken_links(page) + unknown_commands(page) + times_of_nowhere(page)
    for problem in problems:
        sys.stderr.write(problem + "\n")
    return len(problems)


if __name__ == "__main__":
    sys.exit(1 if main("--write" in sys.argv[1:]) else 0)

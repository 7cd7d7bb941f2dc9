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

from dllm_plugins import plugins
from dllm_plugins.config import SamplingConfig
from dllm_plugins.config import value_range
from dllm_plugins.families.layouts import LAYOUTS
from dllm_plugins.families.layouts import REFUSED

ROOT = Path(__file__).parents[1]
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]
LONGEST_FILE = 400


def kind_of(annotation: Any) -> str:
    """A type in words, None left out."""
    if get_origin(annotation) in (Union, UnionType):
        return " or ".join(kind_of(kind) for kind in get_args(annotation) if kind is not NoneType)
    if get_origin(annotation) is Literal:
        return " or ".join(map(str, get_args(annotation)))
    return annotation.__name__ if isinstance(annotation, type) else str(annotation).replace("typing.", "")


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
    """Every commit rule with its options and source."""
    lines = ["| rule | options | settles |", "|---|---|---|"]
    for name, rule in sorted(plugins.rules().items()):
        options = ", ".join(f"`{option}`" for option in sorted(rule.options))
        lines.append(f"| `{name}` | {options} | {rule.summary} |")
    return "\n".join(lines)


def family_table() -> str:
    """Every family's checkpoints, and how we know that they load right."""
    lines = [
        "| family | checkpoints | licence | class in transformers | attention | shifted | mask id | verified |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, layout in sorted(LAYOUTS.items()):
        checkpoints = "<br>".join(f"`{checkpoint}`" for checkpoint in layout.checkpoints)
        mask = "from its files" if layout.mask_id is None else str(layout.mask_id)
        label = f"`{name}` (name it)" if layout.named_only else f"`{name}`"
        shifted = "yes" if layout.shifted else "no"
        lines.append(
            f"| {label} | {checkpoints} | {layout.licence} | {layout.classes} | {layout.attention} | {shifted} | "
            f"{mask} | {layout.verified} |"
        )
    return "\n".join(lines)


def refused_table() -> str:
    """Architectures that are known and refused."""
    lines = ["| architecture | reason |", "|---|---|"]
    return "\n".join([*lines, *(f"| `{name}` | {reason} |" for name, reason in sorted(REFUSED.items()))])


GENERATED = {"options": option_table, "rules": rule_table, "families": family_table, "refused": refused_table}


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
    problems = long_files()
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        if generated(text) != text:
            if write:
                page.write_text(generated(text), encoding="utf-8")
            else:
                problems.append(f"{page.relative_to(ROOT)}: a generated table is old; run python docs/check.py --write")
        problems += broken_links(page) + unknown_commands(page)
    for problem in problems:
        sys.stderr.write(problem + "\n")
    return len(problems)


if __name__ == "__main__":
    sys.exit(1 if main("--write" in sys.argv[1:]) else 0)

"""The path of a request in docs/design.md: its files and names are there, and it is short."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
LINE = re.compile(r"^\| `([^`]+/[^`]+)` \| (`[^|]+`) \|")


def test_the_way_of_a_request_is_there() -> None:
    page = (ROOT / "docs" / "design.md").read_text()
    steps = [found.groups() for line in page.splitlines() if (found := LINE.match(line))]
    assert 10 <= len(steps) <= 15
    for path, names in steps:
        code = (ROOT / path).read_text()
        for name in re.findall(r"`(\w+)`", names):
            assert re.search(rf"\b(def|class|int) {name}\b", code), f"{path} has no {name}"

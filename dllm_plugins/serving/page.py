"""The page at `/`: one file, which asks nobody but its own server."""

import re
from functools import cache
from importlib.resources import files

from starlette.responses import Response

from dllm_plugins.traces.page import source_of


@cache
def _page() -> tuple[str, str]:
    """The page, and its policy: its own script and style, by their hashes, and requests to its own server."""
    text = files(__package__).joinpath("page.html").read_text(encoding="utf-8")
    [style], [script] = (re.findall(f"<{name}>(.*?)</{name}>", text, re.DOTALL) for name in ("style", "script"))
    policy = (
        f"default-src 'none'; style-src '{source_of(style)}'; script-src '{source_of(script)}'; connect-src 'self'; "
        f"img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return text, policy


def page() -> Response:
    """It, as an answer."""
    text, policy = _page()
    headers = {
        "Content-Security-Policy": policy,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-cache",
    }
    return Response(text, headers=headers, media_type="text/html")

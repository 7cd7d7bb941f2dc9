"""A file of a Python package index, by the index's simple API: no pip is needed.

The index is the one that pip would use: PIP_INDEX_URL and PIP_EXTRA_INDEX_URL, else `index-url` and `extra-index-url`
of pip's configuration files, else the public one. Proxies are those of the environment, certificates those of
PIP_CERT or SSL_CERT_FILE. What arrives must be compared with a SHA-256 that is known already.
Source: the packaging specifications "Simple repository API" (PEP 503 and PEP 691).
"""

import base64
import configparser
import json
import os
import re
import ssl
import sys
from collections.abc import Iterator
from html import unescape
from html.parser import HTMLParser
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from urllib.parse import urljoin
from urllib.parse import urlsplit
from urllib.parse import urlunsplit
from urllib.request import Request
from urllib.request import urlopen

import platformdirs

from dllm_plugins.errors import DownloadError
from dllm_plugins.files.progress import Progress

PUBLIC = "https://pypi.org/simple"
#: What an index is asked for; the last is what all of them have.
ACCEPTED = "application/vnd.pypi.simple.v1+json, text/html;q=0.5"
#: Seconds without a byte.
TIMEOUT = 30


def fetch(project: str, name: str, target: Path, progress: Progress) -> None:
    """Write one file of a project, from the first index that has it.

    :param name: of the file, such as that of a wheel.
    :raises DownloadError: with what every index answered.
    """
    answers = []
    for index in indexes():
        try:
            _fetch(f"{index.rstrip('/')}/{project}/", name, target, progress)
            return
        except (OSError, HTTPException, ValueError, LookupError) as error:
            answers.append(f"{_shown(index)}: {error}")
    raise DownloadError("; ".join(answers))


def indexes() -> Iterator[str]:
    """Where packages come from, the main index first."""
    settings = _settings()
    yield os.environ.get("PIP_INDEX_URL") or settings.get("index-url") or PUBLIC
    more = os.environ.get("PIP_EXTRA_INDEX_URL") or settings.get("extra-index-url") or ""
    yield from more.split()


def _settings() -> dict[str, str]:
    """The section `global` of pip's configuration files, and `install` where it says more; the nearest file counts."""
    chosen = os.environ.get("PIP_CONFIG_FILE")
    user = platformdirs.user_config_path("pip", appauthor=False, roaming=True)
    files = [Path("/etc/pip.conf"), platformdirs.site_config_path("pip", appauthor=False) / "pip.conf"]
    files += [Path.home() / ".pip" / "pip.conf", user / "pip.conf", user / "pip.ini"]
    files += [Path(sys.prefix) / "pip.conf", Path(sys.prefix) / "pip.ini"]
    found: dict[str, str] = {}
    for file in [*files, *([Path(chosen)] if chosen else [])] if chosen != os.devnull else []:
        parser = configparser.RawConfigParser()
        try:
            parser.read(file, encoding="utf-8")
        except (configparser.Error, OSError, ValueError):
            continue
        for section in ("global", "install", "download"):
            found |= dict(parser.items(section)) if parser.has_section(section) else {}
    return found


def _fetch(page: str, name: str, target: Path, progress: Progress) -> None:
    with _opened(page, ACCEPTED) as answer:
        text, kind, place = answer.read().decode("utf-8", "replace"), answer.headers.get_content_type(), answer.url
    links = _of_json(text) if kind.endswith("+json") else _of_html(text)
    if name not in links:
        raise LookupError(f"it has no {name}")
    with _opened(urljoin(_with_login(place, page), links[name]), "*/*") as answer, target.open("wb") as file:
        total, done = int(answer.headers.get("Content-Length") or 0), 0
        progress("download", 0, total)
        while part := answer.read(1 << 20):
            file.write(part)
            done += len(part)
            progress("download", done, total)


def _of_json(text: str) -> dict[str, str]:
    """The address of each file by its name."""
    return {str(file["filename"]): str(file["url"]) for file in json.loads(text)["files"]}


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, str] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        address = dict(attrs).get("href") if tag == "a" else None
        if address:
            self.found[unquote(urlsplit(address).path.rpartition("/")[2])] = unescape(address)


def _of_html(text: str) -> dict[str, str]:
    links = _Links()
    links.feed(text)
    return links.found


def _opened(address: str, accepted: str) -> Any:
    """An answer; a name and a password in the address are sent as pip sends them.

    :raises ValueError: for anything but http and https.
    """
    parts = urlsplit(address)
    if parts.scheme not in ("https", "http"):
        raise ValueError(f"{_shown(address)} is not an address of the web")
    headers = {"Accept": accepted, "User-Agent": "dllm-plugins"}
    login, _, host = parts.netloc.rpartition("@")
    if login:
        headers["Authorization"] = f"Basic {base64.b64encode(unquote(login).encode()).decode()}"
    plain = urlunsplit(parts._replace(netloc=host, fragment=""))
    context = ssl.create_default_context(cafile=os.environ.get("PIP_CERT") or None)
    return urlopen(Request(plain, headers=headers), timeout=TIMEOUT, context=context)


def _with_login(place: str, asked: str) -> str:
    """The page's address behind redirections, with the login of the one that was asked for, if it is the same host."""
    login, _, host = urlsplit(asked).netloc.rpartition("@")
    parts = urlsplit(place)
    return urlunsplit(parts._replace(netloc=f"{login}@{host}")) if login and parts.netloc == host else place


def _shown(address: str) -> str:
    """An address without what is secret in it."""
    return re.sub(r"//[^/@]*@", "//", address)

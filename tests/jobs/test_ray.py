"""Jobs on a cluster, where there is none. Where there is, the tests of replicas run what is in `on_ray.py`."""

from pathlib import Path

import pytest

from dllm_plugins.errors import MissingExtraError
from dllm_plugins.jobs import JobOptions
from dllm_plugins.jobs import run_job
from dllm_plugins.libraries.extras import has


@pytest.mark.skipif(has("ray"), reason="Ray is installed")
def test_without_ray_it_is_named(source: Path, options: JobOptions, tmp_path: Path) -> None:
    with pytest.raises(MissingExtraError, match=r"a job on Ray needs ray.*pip install 'dllm-plugins\[ray\]'"):
        run_job(source, tmp_path / "out.jsonl", options, ray="auto")

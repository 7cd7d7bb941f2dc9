"""Check whole cases: logits first, then every setting."""

from collections.abc import Iterator
from typing import Any

from dllm_plugins.conformance.case import Case
from dllm_plugins.conformance.case import Setting
from dllm_plugins.conformance.compare import Result
from dllm_plugins.conformance.compare import Verdict
from dllm_plugins.conformance.compare import compare
from dllm_plugins.conformance.logits import TOLERANCE
from dllm_plugins.conformance.logits import recorded
from dllm_plugins.conformance.logits import worst
from dllm_plugins.conformance.play import Play
from dllm_plugins.conformance.plays import PLAYS
from dllm_plugins.conformance.run import run
from dllm_plugins.conformance.through_gguf import CannotError
from dllm_plugins.conformance.through_gguf import Converted
from dllm_plugins.errors import DllmError
from dllm_plugins.errors import GgufError
from dllm_plugins.errors import OptionError
from dllm_plugins.errors import RequestError
from dllm_plugins.models import Model
from dllm_plugins.models import load_model

#: Cases whose config is an ordinary model's, by a word of their family's name.
NAMED = {"Open-dLLM": "open_dcoder", "Open-dCoder": "open_dcoder"}


class CaseModels:
    """The models of one case, one per set of load options; `backend` runs them all."""

    def __init__(self, case: Case, backend: str = "torch") -> None:
        self.case = case
        self.backend = backend
        self._loaded: dict[str, Model] = {}
        self._converted = Converted(case.folder / "checkpoint") if backend == "llama_cpp" else None

    def get(self, **load: Any) -> Model:
        """Loaded as a user would, with the ids that the tiny checkpoint's config has no field for."""
        about = self.case.about
        options: dict[str, Any] = {"dtype": "float32", "device": "cpu", "mask_id": about.get("mask_id"), **load}
        options["backend"] = self.backend
        options["family"] = next((name for word, name in NAMED.items() if word in about["family"]), None)
        key = repr(sorted(options.items()))
        if key not in self._loaded:
            position = self.case.folder / "checkpoint"
            if self._converted is not None:
                position = self._converted.file(options["family"], options["mask_id"])
            self._loaded[key] = _load(str(position), options)
        return self._loaded[key]

    def cannot(self, error: DllmError) -> bool:
        """Whether this says what the backend has no way to compute, rather than that something went wrong."""
        return self._converted is not None and isinstance(error, CannotError | OptionError)


def _load(position: str, options: dict[str, Any]) -> Model:
    """What llama.cpp does not load, it cannot compute; what fails later is a miss."""
    try:
        return load_model(position, **options)
    except GgufError as error:
        raise CannotError(str(error)) from error


def translate(case: Case, setting: Setting) -> Play:
    """A setting as requests.

    :raises DllmError: if its sampler is unknown, or our options refuse it.
    """
    if setting.sampler not in PLAYS:
        raise DllmError(f"no sampler here is {setting.sampler!r}; known: {', '.join(sorted(PLAYS))}")
    return PLAYS[setting.sampler](case, setting)


def first_load(case: Case) -> dict[str, Any]:
    """Load options under which the case's logits can be had: any setting's will do."""
    known = (setting for setting in case.settings if not setting.quirk and setting.sampler in PLAYS)
    return next((translate(case, setting).load for setting in known), {})


def check_setting(case: Case, setting: Setting, models: CaseModels) -> Result:
    """Run one setting and judge it; settings that record a defect may be refused or corrected."""
    try:
        play = translate(case, setting)
        model = models.get(**play.load)
        traces = run(model, play)
    except DllmError as error:
        # Only what is wrong with the request itself may be a defect that we refuse to share.
        refused = (setting.quirk and isinstance(error, RequestError)) or models.cannot(error)
        verdict: Verdict = "REFUSED" if refused else "MISSED"
        return Result(case.name, setting.name, verdict, str(error))
    wrong = compare(setting, play, traces, case.about.get("mask_id"))
    longest = max(traces, key=lambda trace: trace.passes)
    passes = f"{longest.passes} passes" + (f" in {longest.calls} calls" if longest.calls != longest.passes else "")
    if not wrong:
        return Result(case.name, setting.name, "REPRODUCED", f"{passes}{'; ' if play.note else ''}{play.note}")
    if setting.quirk:
        return Result(case.name, setting.name, "CORRECTED", f"{setting.quirk}: {wrong}")
    return Result(case.name, setting.name, "MISSED", wrong)


def check_logits(case: Case, models: CaseModels, load: dict[str, Any]) -> Iterator[Result]:
    """Every recorded sequence."""
    for key in recorded(case):
        difference = worst(case, models.get(**load), key)
        verdict: Verdict = "REPRODUCED" if difference <= TOLERANCE else "MISSED"
        yield Result(case.name, f"logits {key}", verdict, f"largest difference {difference:.1e}")


def check(case: Case, backend: str = "torch") -> Iterator[Result]:
    """All results of a case, as they come.

    :param backend: as in :class:`~dllm_plugins.load_options.LoadOptions`.
    :raises CheckpointError: if the case cannot be read.
    """
    models = CaseModels(case, backend)
    try:
        yield from check_logits(case, models, first_load(case))
    except DllmError as error:
        yield Result(case.name, "logits", "REFUSED" if models.cannot(error) else "MISSED", str(error))
    for setting in case.settings:
        yield check_setting(case, setting, models)

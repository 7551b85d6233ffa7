from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import SimpleNamespace

import pytest

from serve_app.batch import via_service
from serve_app.batch.records import PackIdentity
from serve_app.batch.via_service import check_service, differences
from serve_app.core.errors import ConfigurationError, StartFailed
from serve_app.core.records import PackRole, Stage, StageReadiness
from serve_app.inference.fingerprint import output_settings_of
from serve_app.settings import Settings

MODELS: dict[PackRole, PackIdentity] = {
    "asr": PackIdentity("paraformer-demo", "bb"),
    "punctuation": PackIdentity("ct-punc-demo", "cc"),
}
DRAFTED: dict[PackRole, PackIdentity] = {**MODELS, "draft": PackIdentity("whisper-base", "dd")}


def settings(**recognizer: object) -> Settings:
    return Settings.model_validate({"recognizer": recognizer})


def served(
    of: Settings, stage: Stage = "asr", models: Mapping[PackRole, PackIdentity] = MODELS
) -> StageReadiness:
    """Returns what a service with these settings says of a stage."""
    drafter = models.get("draft")
    values = output_settings_of(of, stage, drafter.checksum if drafter else None)
    return StageReadiness(stage, "cpu", models[stage].name, models[stage].checksum, values)


def test_service_with_the_jobs_settings_agrees() -> None:
    for stage in ("asr", "punctuation"):
        assert differences(served(settings(), stage), settings(), MODELS) == []


def test_service_may_compute_elsewhere_and_in_other_batches() -> None:
    on_gpu = settings(device="cuda", deployment={"num_gpus": 1}, max_batch_frames=20_000)
    assert differences(served(on_gpu), settings(num_threads=2), MODELS) == []


def test_other_weights_differ() -> None:
    other = replace(served(settings()), pack="paraformer-large", checksum="ee")
    (found,) = differences(other, settings(), MODELS)
    assert "asr runs the pack paraformer-large (ee), the job has paraformer-demo (bb)" in found


def test_other_dtype_of_the_same_weights_differs() -> None:
    (found,) = differences(served(settings(dtype="int8")), settings(), MODELS)
    assert found == 'recognizer.dtype is "int8" in the service and "float32" in the job'


def test_other_dtype_of_the_punctuator_differs() -> None:
    half = {"device": "cuda", "dtype": "float16", "deployment": {"num_gpus": 1}}
    other = Settings.model_validate({"punctuator": half})
    (found,) = differences(served(other, "punctuation"), settings(), MODELS)
    assert found.startswith("punctuator.dtype")


def test_other_engine_of_the_same_pack_differs() -> None:
    there = served(settings(engine="hybrid"), models=DRAFTED)
    found = "; ".join(differences(there, settings(), MODELS))
    assert 'recognizer.engine is "hybrid" in the service and "paraformer" in the job' in found


def test_other_drafter_differs() -> None:
    hybrid = settings(engine="hybrid")
    there = served(hybrid, models={**DRAFTED, "draft": PackIdentity("whisper-tiny", "ff")})
    (found,) = differences(there, hybrid, DRAFTED)
    assert found.startswith("recognizer.whisper.pack")


@pytest.mark.parametrize(
    ("name", "section"),
    [
        ("recognizer.whisper.temperature_step", {"whisper": {"temperature_step": 0.2}}),
        ("recognizer.hybrid.refine_empty", {"hybrid": {"refine_empty": False}}),
        ("recognizer.languages", {"languages": ("zh", "en")}),
    ],
)
def test_other_settings_of_drafts_are_named(name: str, section: dict[str, object]) -> None:
    there = served(settings(engine="hybrid", **section), models=DRAFTED)
    (found,) = differences(there, settings(engine="hybrid"), DRAFTED)
    assert found.startswith(f"{name} is")


def test_service_without_a_fingerprint_does_not_match() -> None:
    silent = StageReadiness("asr", "cpu", "paraformer-demo", "bb")
    assert len(differences(silent, settings(), MODELS)) == 2


class FakeServe:
    """Ray Serve with one application, whose settings are given."""

    def __init__(self, of: Settings, status: str = "RUNNING") -> None:
        self.answers = {
            "Recognizer": served(of, "asr"),
            "Punctuator": served(of, "punctuation"),
        }
        self.app = SimpleNamespace(status=status)

    def status(self) -> SimpleNamespace:
        return SimpleNamespace(applications={"paraserve": self.app})

    def get_deployment_handle(self, name: str, app_name: str) -> SimpleNamespace:
        response = SimpleNamespace(result=lambda timeout_s: self.answers[name])
        return SimpleNamespace(describe=SimpleNamespace(remote=lambda: response))


def test_job_is_refused_that_would_write_fingerprints_of_other_texts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(via_service, "serve", FakeServe(settings(dtype="int8")))
    with pytest.raises(ConfigurationError, match=r"recognizer\.dtype is .* Give the job"):
        check_service(settings(), MODELS)


def test_job_with_the_settings_of_the_service_continues(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(via_service, "serve", FakeServe(settings(dtype="int8")))
    check_service(settings(dtype="int8"), MODELS)


def test_service_must_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(via_service, "serve", FakeServe(settings(), "DEPLOYING"))
    with pytest.raises(StartFailed, match="DEPLOYING"):
        check_service(settings(), MODELS)

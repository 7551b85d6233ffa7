import dataclasses

import pytest

from serve_app.core.errors import ConfigurationError, PackCorrupt
from serve_app.engines.hybrid import HybridOptions
from serve_app.engines.whisper.engine import WhisperOptions
from serve_app.inference import engines
from serve_app.inference.engines import open_recognizer, whisper_options
from serve_app.packs import PackContents, PackStore, resolve
from serve_app.settings import Settings
from serve_app.settings.engines import HybridSettings, WhisperSettings
from serve_app.settings.section import Section


def settings(**recognizer: object) -> Settings:
    return Settings.model_validate({"recognizer": recognizer})


def test_options_are_those_of_the_settings() -> None:
    options = whisper_options(
        settings(whisper={"language": "auto", "num_threads": 2, "word_times": "even"})
    )
    assert (options.language, options.num_threads, options.word_times) == ("auto", 2, "even")


def test_settings_and_options_have_the_same_defaults() -> None:
    assert whisper_options(settings()) == WhisperOptions()


@pytest.mark.parametrize(
    ("section", "kind", "elsewhere"),
    [
        (WhisperSettings, WhisperOptions, {"pack"}),
        (HybridSettings, HybridOptions, set[str]()),
    ],
)
def test_every_setting_of_a_section_is_an_option(
    section: type[Section], kind: type, elsewhere: set[str]
) -> None:
    names = {field.name for field in dataclasses.fields(kind)}
    assert section.model_fields.keys() - elsewhere <= names


def test_hybrid_refines_according_to_the_settings(
    whisper_pack: PackContents, pack_store: PackStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[HybridOptions] = []
    monkeypatch.setattr(engines, "HybridRecognizer", lambda *parts: given.append(parts[-1]))
    monkeypatch.setattr(engines, "WhisperCppEngine", lambda *_: None)  # loads for seconds
    section = {"languages": ["zh", "yue"], "refine_unknown": True, "refine_empty": False}
    drafter = {"pack": f"dir:{whisper_pack.directory}"}
    for hybrid in ({}, section):
        wanted = settings(engine="hybrid", whisper=drafter, hybrid=hybrid)
        open_recognizer(wanted, resolve("paraformer-demo", pack_store), whisper_pack)
    changed = HybridOptions(languages=("zh", "yue"), refine_unknown=True, refine_empty=False)
    assert given == [HybridOptions(), changed]


def test_whisper_alone_is_refused_on_a_gpu(whisper_pack: PackContents) -> None:
    on_gpu = settings(engine="whispercpp", device="cuda", deployment={"num_gpus": 1})
    with pytest.raises(ConfigurationError, match="computes on the CPU"):
        open_recognizer(on_gpu, whisper_pack)


def test_engine_whispercpp_requires_a_whisper_pack(pack_store: PackStore) -> None:
    with pytest.raises(PackCorrupt, match="no Whisper model"):
        open_recognizer(settings(engine="whispercpp"), resolve("paraformer-demo", pack_store))


@pytest.mark.slow
def test_hybrid_is_opened_with_both_packs(
    whisper_pack: PackContents, pack_store: PackStore
) -> None:
    wanted = settings(engine="hybrid", whisper={"pack": f"dir:{whisper_pack.directory}"})
    engine = open_recognizer(wanted, resolve("paraformer-demo", pack_store), whisper_pack)
    assert engine.cost(16_000) == 500

"""Settings: where values come from, and what is refused."""

from __future__ import annotations

import pickle
import re
from importlib import resources
from itertools import takewhile
from pathlib import Path

import pytest
from pydantic import ValidationError

from serve_app.core.errors import ConfigurationError
from serve_app.settings import (
    Settings,
    check_environment,
    load_settings,
    profile_names,
    read_profile,
)
from serve_app.settings.listing import all_settings, setting_groups
from serve_app.settings.section import REMOVED, RENAMED


@pytest.mark.parametrize("profile", profile_names())
def test_every_built_in_profile_is_valid(profile: str) -> None:
    assert Settings.model_validate({"profile": profile}).profile == profile


@pytest.mark.parametrize("profile", profile_names())
def test_head_of_a_profile_states_memory_speed_and_accuracy(profile: str) -> None:
    text = resources.files("serve_app.profiles").joinpath(f"{profile}.yaml").read_text("utf-8")
    head = "".join(takewhile(lambda line: line.startswith("#"), text.splitlines(keepends=True)))
    for fact in ("Memory", "Speed", "Accuracy"):
        assert re.search(rf"\b{fact}\b[^:.]*: ", head), f"{profile} does not state its {fact}"


def test_arguments_win_over_environment_over_profile(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    profile = tmp_path / "mine.yaml"
    profile.write_text("segmenter: {max_in_flight: 3, max_group_s: 11, num_threads: 2}\n")
    monkeypatch.setenv("PARASERVE_SEGMENTER__MAX_IN_FLIGHT", "5")
    monkeypatch.setenv("PARASERVE_SEGMENTER__MAX_GROUP_S", "12")
    settings = Settings.model_validate({"profile": str(profile), "segmenter": {"max_in_flight": 7}})
    assert settings.segmenter.max_in_flight == 7
    assert settings.segmenter.max_group_s == 12
    assert settings.segmenter.num_threads == 2


def test_profile_may_be_given_as_its_content(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARASERVE_SEGMENTER__MAX_IN_FLIGHT", "5")
    content = '{"segmenter": {"max_in_flight": 3, "max_group_s": 11}}'
    settings = Settings.model_validate({"profile": content, "segmenter": {"num_threads": 2}})
    assert settings.segmenter.max_in_flight == 5
    assert settings.segmenter.max_group_s == 11
    assert settings.segmenter.num_threads == 2


def nested(name: str, value: object) -> dict[str, object]:
    values: dict[str, object] = {name.rpartition(".")[2]: value}
    for section in reversed(name.split(".")[:-1]):
        values = {section: values}
    return values


@pytest.mark.parametrize("value", [7, None])
@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_old_name_of_a_setting_is_refused_with_the_new_one(
    old: str, new: str, value: object
) -> None:
    with pytest.raises(ValidationError, match=f"{re.escape(old)} is now called {re.escape(new)}"):
        Settings.model_validate(nested(old, value))


@pytest.mark.parametrize(("name", "reason"), REMOVED.items())
def test_setting_that_became_a_constant_is_refused_with_the_reason(name: str, reason: str) -> None:
    with pytest.raises(ValidationError, match=f"{re.escape(name)} is no longer.*{reason}"):
        Settings.model_validate(nested(name, 7))
    variable = f"PARASERVE_{name.upper().replace('.', '__')}"
    with pytest.raises(ConfigurationError, match=f"{variable}.* is no longer.*{reason}"):
        check_environment({variable: "7"})


def test_names_of_earlier_versions_were_replaced_by_settings_that_exist() -> None:
    names = {setting.name for setting in all_settings()}
    assert not names & {*RENAMED, *REMOVED}
    assert names >= set(RENAMED.values())


def test_operators_have_at_most_85_settings_to_choose() -> None:
    tiers = [group.tier for group in setting_groups()]
    assert tiers.count("operator") <= 85
    assert tiers.count("operator") + tiers.count("advanced") == len(tiers)


def test_setting_has_the_same_tier_in_every_stage() -> None:
    tiers: dict[str, set[str]] = {}
    for setting in all_settings():
        if ".deployment." in setting.name:
            tiers.setdefault(setting.name.partition(".")[2], set()).add(setting.tier)
    assert all(len(found) == 1 for found in tiers.values())


def test_every_setting_is_described_in_sentences() -> None:
    for setting in all_settings():
        assert re.match(r"[A-Z`].*\.$", setting.description), setting.name


def test_every_setting_belongs_to_exactly_one_group() -> None:
    grouped = [member.name for group in setting_groups() for member in group.members]
    assert sorted(grouped) == sorted(setting.name for setting in all_settings())


def test_old_name_in_a_profile_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"segmenter\.max_in_flight"):
        Settings.model_validate({"profile": "{segmenter: {window: 3}}"})


@pytest.mark.parametrize("content", ["{a: [}", "segmenter: [1\n"])
def test_profile_that_is_not_yaml_is_one_clear_error(content: str, tmp_path: Path) -> None:
    profile = content
    if not content.startswith("{"):
        (tmp_path / "bad.yaml").write_text(content)
        profile = str(tmp_path / "bad.yaml")
    with pytest.raises(ConfigurationError, match="is not YAML"):
        read_profile(profile)


def test_profile_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARASERVE_PROFILE", "asr-only")
    assert Settings().stages == ("asr",)


def test_section_keeps_its_defaults_for_unset_fields() -> None:
    settings = Settings.model_validate({"ingress": {"deployment": {"num_replicas": 2}}})
    assert settings.ingress.deployment.max_ongoing_requests == 256


def test_settings_cross_processes_unchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings.model_validate({"profile": "asr-only"})
    pickled = pickle.dumps(settings)
    monkeypatch.setenv("PARASERVE_SEGMENTER__MAX_IN_FLIGHT", "99")
    assert pickle.loads(pickled) == settings


@pytest.mark.parametrize(
    ("values", "place"),
    [
        ({"recognizr": {}}, "recognizr"),
        ({"recognizer": {"pak": "x"}}, "pak"),
        ({"recognizer": {"device": "tpu"}}, "device"),
        ({"recognizer": {"device": "cuda"}}, "num_gpus"),
        ({"recognizer": {"device": "cuda", "dtype": "int8"}}, "int8 needs"),
        ({"recognizer": {"dtype": "float16"}}, "needs recognizer.device cuda"),
        ({"punctuator": {"dtype": "float16"}}, "needs punctuator.device cuda"),
        ({"recognizer": {"deployment": {"num_gpus": 1.5}}}, "whole GPUs"),
        ({"batch": {"recognizers": {"num_gpus": 1.5}}}, "whole GPUs"),
        ({"batch": {"recognizers": {"num_gpus": -1}}}, "num_gpus"),
        ({"stages": ["vad", "punctuation"]}, "must contain asr"),
        ({"http": {"port": 0}}, "port"),
        (
            {"recognizer": {"deployment": {"autoscaling": {"min_replicas": 3, "max_replicas": 2}}}},
            "min_replicas",
        ),
    ],
)
def test_wrong_value_is_refused_by_name(values: dict[str, object], place: str) -> None:
    with pytest.raises(ValidationError, match=place):
        Settings.model_validate(values)


@pytest.mark.parametrize("others", [["paraformer-demo"], ["dir:/models/paraformer-demo"]])
def test_models_of_one_name_are_refused(others: list[str]) -> None:
    with pytest.raises(ValidationError, match=r"twice|same name"):
        Settings.model_validate({"recognizer": {"other_packs": others}})


@pytest.mark.parametrize(
    ("recognizer", "language"),
    [
        ({}, "zh"),
        ({"languages": ["en", "zh"]}, "en"),
        ({"whisper": {"language": "auto"}}, "zh"),  # this engine does not guess
        ({"engine": "hybrid"}, "zh"),
        ({"engine": "hybrid", "whisper": {"language": "auto"}}, None),
        (
            {
                "engine": "whispercpp",
                "languages": ["zh", "en"],
                "whisper": {"language": "en"},
            },
            "en",
        ),
    ],
)
def test_response_names_the_default_language(
    recognizer: dict[str, object], language: str | None
) -> None:
    settings = Settings.model_validate({"recognizer": recognizer})
    assert settings.recognizer.default_language == language


@pytest.mark.parametrize(
    ("recognizer", "problem"),
    [
        ({"languages": []}, "languages"),
        ({"whisper": {"language": "english"}}, "pattern"),
        ({"engine": "whispercpp", "whisper": {"language": "en"}}, "language is en, which is not"),
        ({"engine": "hybrid", "languages": ["en"]}, "language is zh, which is not"),
        ({"engine": "hybrid", "languages": ["zh", "auto"]}, "auto, which is no language"),
        (
            {"engine": "hybrid", "languages": ["ja"], "whisper": {"language": "ja"}},
            "nothing would ever be refined",
        ),
        ({"engine": "hybrid", "hybrid": {"languages": []}}, "languages"),
    ],
)
def test_languages_that_contradict_each_other_are_refused(
    recognizer: dict[str, object], problem: str
) -> None:
    with pytest.raises(ValidationError, match=problem):
        Settings.model_validate({"recognizer": recognizer})


def test_languages_of_drafts_do_not_concern_other_engines() -> None:
    Settings.model_validate({"recognizer": {"languages": ["en"], "whisper": {"language": "ja"}}})


def test_stages_are_put_in_order() -> None:
    assert Settings.model_validate({"stages": ["punctuation", "asr"]}).stages == (
        "asr",
        "punctuation",
    )


def test_unknown_profile_names_the_known_ones() -> None:
    with pytest.raises(ConfigurationError, match="demo"):
        read_profile("no-such-profile")


def test_variables_of_the_client_are_no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    check_environment({"PARASERVE_URL": "http://a", "PARASERVE_API_KEY": "psk_x"})
    monkeypatch.setenv("PARASERVE_URL", "http://a")
    assert load_settings("demo", None).profile == "demo"


def test_environment_variable_of_an_unknown_setting_is_refused() -> None:
    check_environment({"PARASERVE_RECOGNIZER__DEPLOYMENT__NUM_GPUS": "0.5", "PATH": "/bin"})
    with pytest.raises(ConfigurationError, match="PARASERVE_RECOGNISER__DEVICE"):
        check_environment({"PARASERVE_RECOGNISER__DEVICE": "cpu"})
    with pytest.raises(ConfigurationError, match="PARASERVE_HTTP__PROT"):
        check_environment({"PARASERVE_HTTP__PROT": "1"})


@pytest.mark.parametrize(
    ("values", "place"),
    [
        ({"admission": {"max_running": 200, "max_waiting": 200}}, "max_ongoing_requests"),
        ({"admission": {"max_bytes": 1024}}, "less than one upload"),
        ({"admission": {"max_audio_s": 60}}, "max_duration_s"),
        ({"ingress": {"max_request_timeout_s": 60}}, "request_timeout_s is larger"),
    ],
)
def test_admission_that_cannot_work_is_refused(values: dict[str, object], place: str) -> None:
    with pytest.raises(ValidationError, match=place):
        Settings.model_validate(values)


@pytest.mark.parametrize(
    ("auth", "host", "demanded"),
    [
        ({}, "127.0.0.1", False),
        ({}, "127.0.0.9", False),
        ({}, "localhost", False),
        ({}, "::1", False),
        ({}, "0.0.0.0", True),
        ({}, "::", True),
        ({}, "10.0.0.5", True),
        ({}, "", True),
        ({}, "no-such-host.invalid", True),
        ({"mode": "off"}, "0.0.0.0", False),
        ({"mode": "keys"}, "127.0.0.1", True),
    ],
)
def test_keys_are_required_unless_only_this_machine_can_call(
    auth: dict[str, object], host: str, demanded: bool
) -> None:
    settings = Settings.model_validate({"auth": auth, "http": {"host": host}})
    resolved = settings.model_copy(update={"auth": settings.auth.resolved(host)})
    assert resolved.auth.demanded is demanded
    if demanded:
        with pytest.raises(ConfigurationError, match=r"auth\.keys_file"):
            resolved.check_access()
    else:
        resolved.check_access()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0"])
def test_keys_are_demanded_where_somebody_else_starts_the_listener(host: str) -> None:
    settings = Settings.model_validate({"http": {"host": host}})
    assert settings.auth.demanded
    with pytest.raises(ConfigurationError, match=r"auth\.keys_file"):
        settings.check_access()


def test_keys_file_is_read_before_anything_is_started(tmp_path: Path) -> None:
    keys = tmp_path / "keys.yaml"
    settings = Settings.model_validate({"auth": {"mode": "keys", "keys_file": keys}})
    with pytest.raises(ConfigurationError, match=r"keys\.yaml"):
        settings.check_access()
    keys.write_text("keys: []")
    settings.check_access()

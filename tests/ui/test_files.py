"""What comes onto the page: several files, dropped files, the microphone."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, expect

from serve_app.ui.texts import TEXTS, Language
from tests.ui.conftest import SAMPLES, OpenPage, open_page
from tests.ui.scripted_api import SAID, Refusal, ScriptedApi
from tests.ui.serving import MAX_UPLOAD_BYTES

pytestmark = pytest.mark.browser

CLIP = SAMPLES / "clip.flac"
TEXT = [text for _, _, text in SAID]
_DROP = """([target, names]) => {
  const data = new DataTransfer();
  for (const name of names) data.items.add(new File(['sounds'], name));
  const element = document.querySelector(target);
  return ['dragenter', 'dragover', 'drop'].map((type) => {
    const event = new DragEvent(type, {dataTransfer: data, bubbles: true, cancelable: true});
    element.dispatchEvent(event);
    return event.defaultPrevented;
  });
}"""


@pytest.fixture
def three(tmp_path: Path) -> list[Path]:
    files = [tmp_path / f"会议-{number}.flac" for number in range(3)]
    for number, file in enumerate(files):
        file.write_bytes(CLIP.read_bytes() + bytes(number))
    return files


def drop(opened: OpenPage, target: str, *names: str) -> bool:
    """Drops files; returns whether the page took them, so that the browser does not open them."""
    _, dragged, dropped = opened.page.evaluate(_DROP, [target, list(names)])
    return bool(dragged and dropped)


def statuses(opened: OpenPage) -> list[str]:
    return opened.page.locator(".ps-file-status").all_inner_texts()


def press(opened: OpenPage, text: str, name: str) -> None:
    opened.page.get_by_role("button", name=TEXTS[text]["zh"].format(name=name)).click()


def test_several_files_are_transcribed_one_after_the_other(
    opened: OpenPage, api: ScriptedApi, three: list[Path]
) -> None:
    api.hold_after = 1
    opened.choose(*three)
    go = opened.page.locator(".ps-go")
    expect(go).to_have_text(TEXTS["transcribe_all"]["zh"].format(count=3))
    go.click()
    opened.wait_for("running")
    assert statuses(opened)[0].startswith(TEXTS["running"]["zh"])
    assert statuses(opened)[1:] == [TEXTS["queued"]["zh"]] * 2
    expect(opened.page.get_by_role("progressbar", name="会议-0.flac")).to_be_visible()
    api.release()
    opened.page.wait_for_function("paraserve.items.every(item => item.phase === 'done')")
    assert statuses(opened) == [TEXTS["done"]["zh"]] * 3
    assert api.uploads == [file.read_bytes() for file in three]


def test_each_file_can_be_shown_and_removed(opened: OpenPage, three: list[Path]) -> None:
    opened.choose(*three[:2])
    opened.page.click(".ps-go")
    opened.page.wait_for_function("paraserve.items.every(item => item.phase === 'done')")
    opened.choose(three[2])
    assert opened.sentences() == []
    press(opened, "show_file", "会议-1.flac")
    assert opened.sentences() == TEXT
    press(opened, "remove_file", "会议-1.flac")
    expect(opened.page.locator(".ps-files li")).to_have_count(2)
    assert opened.sentences() == []


def test_failed_file_does_not_stop_the_others(
    opened: OpenPage, api: ScriptedApi, three: list[Path], tmp_path: Path
) -> None:
    large = tmp_path / "large.wav"
    large.write_bytes(bytes(MAX_UPLOAD_BYTES + 1))
    opened.choose(large, *three[:2])
    opened.page.click(".ps-go")
    opened.page.wait_for_function(
        "paraserve.items.filter(item => item.phase === 'done').length === 2"
    )
    assert statuses(opened)[0] == TEXTS["too_large"]["zh"].format(size="8.0 MB", limit="8.0 MB")
    assert len(api.uploads) == 2
    press(opened, "show_file", "large.wav")
    expect(opened.page.locator(".ps-alert")).to_contain_text(TEXTS["too_large_fix"]["zh"])


def test_cancel_ends_all_and_keeps_what_was_heard(
    opened: OpenPage, api: ScriptedApi, three: list[Path]
) -> None:
    api.hold_after = 1
    opened.choose(*three)
    opened.page.click(".ps-go")
    opened.wait_for("running")
    opened.page.click(".ps-cancel")
    assert statuses(opened) == [TEXTS["cancelled"]["zh"]] + [TEXTS["chosen"]["zh"]] * 2
    assert opened.sentences() == TEXT[:1]
    api.release()


@pytest.mark.parametrize("target", ["body", "h1", ".ps-result", ".ps-drop"])
def test_files_may_be_dropped_anywhere(opened: OpenPage, target: str) -> None:
    assert drop(opened, target, "one.mp3", "two.mp3")
    expect(opened.page.locator(".ps-files li")).to_have_count(2)
    expect(opened.page.locator(".ps-overlay")).to_be_hidden()


def test_file_dropped_during_a_run_waits_in_the_list(opened: OpenPage, api: ScriptedApi) -> None:
    api.hold_after = 1
    opened.transcribe(CLIP)
    opened.wait_for("running")
    assert drop(opened, ".ps-result", "next.mp3")
    assert opened.sentences() == TEXT[:1]
    expect(opened.page.locator(".ps-files li")).to_have_count(2)
    api.release()
    opened.wait_for("done")


@pytest.mark.parametrize("language", ["zh", "en"])
@pytest.mark.parametrize(
    ("code", "problem"), [("unknown_audio_format", "not_audio"), ("truncated_audio", "damaged")]
)
def test_bad_file_is_told_with_what_to_do(
    opened: OpenPage, api: ScriptedApi, language: str, code: str, problem: str
) -> None:
    api.refusal = Refusal(400, code)
    opened.page.click(f"[data-language={language}]")
    opened.transcribe(CLIP)
    opened.wait_for("failed")
    alert = opened.page.locator(".ps-alert")
    spoken: Language = "zh" if language == "zh" else "en"
    expect(alert).to_contain_text(TEXTS[problem][spoken])
    expect(alert).to_contain_text(TEXTS[f"{problem}_fix"][spoken])


def test_empty_file_is_told(opened: OpenPage, tmp_path: Path) -> None:
    empty = tmp_path / "empty.wav"
    empty.touch()
    opened.transcribe(empty)
    opened.wait_for("failed")
    expect(opened.page.locator(".ps-alert")).to_contain_text(TEXTS["empty_file"]["zh"])


class TestMicrophone:
    @pytest.fixture
    def opened(self, context: BrowserContext, page_url: str) -> OpenPage:
        context.grant_permissions(["microphone"])
        return open_page(context, page_url)

    def test_is_recorded_with_level_and_time_and_transcribed(
        self, opened: OpenPage, api: ScriptedApi
    ) -> None:
        opened.transcribe(CLIP)
        opened.wait_for("done")
        opened.page.click(".ps-record")
        panel = opened.page.locator(".ps-recorder")
        expect(panel).to_be_visible()
        # The old result goes away.
        assert opened.sentences() == []
        expect(opened.page.locator(".ps-player")).to_be_hidden()
        meter = opened.page.get_by_role("meter", name=TEXTS["level"]["zh"])
        expect(meter).not_to_have_attribute("aria-valuenow", "0")
        expect(panel.locator(".ps-clock")).to_have_text("00:02", timeout=20_000)
        assert opened.page.evaluate("window.onbeforeunload !== null")
        opened.page.click(".ps-recording")
        opened.wait_for("chosen")
        opened.page.wait_for_function("paraserve.player.peaks")
        assert 1 < opened.page.evaluate("paraserve.player.durationS") < 10
        opened.page.click(".ps-go")
        opened.wait_for("done")
        assert api.uploads[1][:4] == b"\x1aE\xdf\xa3", "not WebM"

    def test_pause_stops_the_clock(self, opened: OpenPage) -> None:
        opened.page.click(".ps-record")
        seconds = "paraserve.source.recorder?.seconds()"
        opened.page.wait_for_function(f"{seconds} > 0.5")
        opened.page.click(".ps-pause-recording")
        before = opened.page.evaluate(seconds)
        expect(opened.page.locator(".ps-pause-recording")).to_have_text(
            TEXTS["resume_recording"]["zh"]
        )
        assert opened.page.evaluate(seconds) == before
        opened.page.click(".ps-pause-recording")
        opened.page.wait_for_function(f"{seconds} > {before} + 0.2")
        opened.page.click(".ps-recording")
        opened.wait_for("chosen")

    def test_recording_is_not_lost_unasked(self, opened: OpenPage) -> None:
        opened.page.click(".ps-record")
        opened.page.wait_for_function("paraserve.source.recorder?.seconds() > 0.5")
        opened.page.click(".ps-recording")
        opened.wait_for("chosen")
        assert opened.page.evaluate("window.onbeforeunload !== null")
        with opened.page.expect_download() as started:
            opened.page.click(".ps-save")
        assert started.value.suggested_filename.startswith("microphone-")
        assert opened.page.evaluate("window.onbeforeunload === null")


def test_denied_microphone_is_told(opened: OpenPage) -> None:
    opened.page.evaluate(
        "() => { navigator.mediaDevices.getUserMedia = () => Promise.reject(new Error('denied')); }"
    )
    opened.page.click(".ps-record")
    expect(opened.page.locator(".ps-alert")).to_contain_text(TEXTS["no_microphone"]["zh"])

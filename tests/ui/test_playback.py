"""Listening to a transcript: player, waveform, the sentence and the word that play."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from tests.ui.conftest import SAMPLES, OpenPage
from tests.ui.scripted_api import SAID, ScriptedApi

pytestmark = pytest.mark.browser

DEMO = SAMPLES / "demo.flac"
MANY = tuple((float(n), n + 0.9, f"第{n}句，这里有不少字。") for n in range(60))


@pytest.fixture
def heard(opened: OpenPage) -> OpenPage:
    """A page on which a recording has been transcribed."""
    opened.transcribe(DEMO)
    opened.wait_for("done")
    opened.page.wait_for_function("paraserve.player.peaks")
    return opened


@pytest.fixture
def long_one(api: ScriptedApi, opened: OpenPage) -> OpenPage:
    api.said = MANY
    opened.transcribe(DEMO)
    opened.wait_for("done")
    opened.page.wait_for_function("paraserve.player.durationS > 0")
    return opened


def position_s(opened: OpenPage) -> float:
    return float(opened.page.evaluate("paraserve.player.audio.currentTime"))


def chosen(opened: OpenPage) -> int:
    return int(
        opened.page.evaluate(
            "[...document.querySelectorAll('.ps-sentences li')]"
            ".findIndex(line => line.classList.contains('ps-chosen'))"
        )
    )


def test_time_of_a_sentence_plays_that_sentence_alone(heard: OpenPage) -> None:
    heard.page.evaluate(
        "() => { window.heard = []; const audio = paraserve.player.audio;"
        " audio.addEventListener('timeupdate', () => heard.push(audio.currentTime)); }"
    )
    heard.page.locator(".ps-time").nth(1).click()
    heard.page.wait_for_function("heard.length > 3 && paraserve.player.audio.paused")
    times = heard.page.evaluate("heard")
    start_s, end_s, _ = SAID[1]
    assert times[0] == pytest.approx(start_s, abs=0.3)
    assert max(times) == pytest.approx(end_s, abs=0.6)
    assert chosen(heard) == 1


def test_word_plays_from_there_and_words_are_followed(heard: OpenPage) -> None:
    heard.page.evaluate(
        "() => { window.now = new Set(); new MutationObserver(() => {"
        " const word = document.querySelector('.ps-now');"
        " if (word) now.add(Number(word.dataset.start)); })"
        ".observe(document.querySelector('.ps-sentences'), {subtree: true, attributes: true}); }"
    )
    word = heard.page.locator(".ps-sentences li").nth(1).locator("[data-start]").nth(2)
    start_ms = int(word.get_attribute("data-start") or 0)
    word.click()
    heard.page.wait_for_function("now.size > 4")
    assert min(heard.page.evaluate("[...now]")) >= start_ms
    heard.page.wait_for_function("paraserve.transcript.current === 2")
    assert not heard.page.evaluate("paraserve.player.audio.paused")


def test_click_in_the_waveform_plays_from_there(heard: OpenPage) -> None:
    box = heard.page.locator(".ps-wave").bounding_box()
    assert box is not None
    heard.page.locator(".ps-wave").click(position={"x": box["width"] / 2, "y": 20})
    heard.page.wait_for_function("!paraserve.player.audio.paused")
    share = heard.page.evaluate("paraserve.player.audio.currentTime / paraserve.player.durationS")
    assert share == pytest.approx(0.5, abs=0.03)


def test_waveform_is_a_slider_for_the_keyboard(heard: OpenPage) -> None:
    slider = heard.page.get_by_role("slider", name="播放位置")
    slider.focus()
    for key, expected_s in (("ArrowRight", 5), ("PageUp", 35), ("ArrowLeft", 30), ("Home", 0)):
        slider.press(key)
        assert position_s(heard) == pytest.approx(expected_s, abs=0.1), key
        expect(slider).to_have_attribute("aria-valuenow", str(expected_s))
    expect(slider).to_have_attribute("aria-valuemax", "75")
    heard.page.click("[data-language=en]")
    slider = heard.page.get_by_role("slider", name="Playback position")
    slider.press("ArrowRight")
    expect(slider).to_have_attribute("aria-valuetext", "00:05 of 01:14")
    assert heard.page.evaluate("paraserve.player.audio.paused")
    slider.press("Space")
    heard.page.wait_for_function("!paraserve.player.audio.paused")


def test_mark_moves_while_the_recording_is_paused(heard: OpenPage) -> None:
    heard.page.evaluate("paraserve.player.seek(2.0)")
    heard.page.wait_for_function("!paraserve.player.audio.seeking")
    assert chosen(heard) == 1
    heard.page.evaluate("paraserve.player.seek(3.5)")
    assert chosen(heard) == 2
    assert heard.page.evaluate("paraserve.player.audio.paused")


def test_reader_stands_at_the_beginning_after_a_run(long_one: OpenPage) -> None:
    assert long_one.page.evaluate("document.querySelector('.ps-text').scrollTop") == 0
    expect(long_one.page.locator(".ps-sentences li").first).to_be_in_viewport()
    assert long_one.page.evaluate("window.scrollY") == 0


def test_sentence_that_plays_is_kept_in_sight(long_one: OpenPage) -> None:
    last = long_one.page.locator(".ps-sentences li").nth(55)
    expect(last).not_to_be_in_viewport()
    long_one.page.evaluate("paraserve.player.playFrom(55.2)")
    expect(last).to_be_in_viewport()
    expect(last).to_have_class("ps-chosen")


def test_sentence_that_plays_is_kept_in_sight_on_a_phone(
    opened: OpenPage, api: ScriptedApi
) -> None:
    opened.page.set_viewport_size({"width": 390, "height": 844})
    api.said = MANY
    opened.transcribe(DEMO)
    opened.wait_for("done")
    opened.page.wait_for_function("paraserve.player.durationS > 0")
    opened.page.evaluate("paraserve.player.playFrom(55.2)")
    expect(opened.page.locator(".ps-sentences li").nth(55)).to_be_in_viewport()
    expect(opened.page.locator(".ps-play")).to_be_in_viewport()


@pytest.mark.parametrize("speed", ["0.75", "2"])
def test_speed_can_be_chosen_and_stays(heard: OpenPage, speed: str) -> None:
    heard.page.get_by_label("播放速度").select_option(speed)
    assert heard.page.evaluate("paraserve.player.audio.playbackRate") == float(speed)
    heard.choose(SAMPLES / "clip.flac")
    heard.page.wait_for_function("paraserve.player.durationS > 0")
    assert heard.page.evaluate("paraserve.player.audio.playbackRate") == float(speed)

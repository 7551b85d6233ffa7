"""Damage that looks like another layout, another track or another time."""

from __future__ import annotations

import pytest

from tests.audio import recordings
from tests.audio.test_recordings import Decoded, compressed, likeness, overwritten, speech

_SECONDS = 8.0
_FRAGMENTS = {
    "movflags": "frag_keyframe+empty_moov+default_base_moof",
    "frag_duration": "1000000",
}
# FLV's sound tags of AAC: format, then 0 for the decoder's setup or 1 for a frame.
_TAG_HEADER_BYTES, _AAC, _FRAME = 11, 0xAF, 1


def fragmented_mp4() -> bytes:
    return recordings.mux("mp4", "aac", speech(), 16_000, options=_FRAGMENTS)


def flv_tags(file: bytes) -> list[tuple[int, int]]:
    """Start and length of the content of the tags with AAC."""
    tags: list[tuple[int, int]] = []
    at = 13
    while at + _TAG_HEADER_BYTES < len(file):
        num_bytes = int.from_bytes(file[at + 1 : at + 4], "big")
        if file[at] == 8:
            tags.append((at + _TAG_HEADER_BYTES, num_bytes))
        at += _TAG_HEADER_BYTES + num_bytes + 4
    return tags


def program_config(num_pairs: int, num_bytes: int) -> bytes:
    """An AAC frame without sound that declares so many pairs of channels.

    Source: ISO/IEC 14496-3, 4.4.1.1 (program_config_element) and table 4.85 (element ids).
    """
    bits = "101" + "0000" + "01" + "1000" + f"{num_pairs:04b}" + "0000" + "0000" + "00" + "000"
    bits += "0000" + "0" + "0" + "0"
    bits += "".join(f"1{number:04b}" for number in range(num_pairs))
    bits += "0" * (-len(bits) % 8) + "00000000" + "111"
    bits += "0" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, "big").ljust(num_bytes, b"\0")


def test_a_damaged_packet_does_not_change_the_channels_of_those_after() -> None:
    file = compressed("flv")
    start, num_bytes = flv_tags(file)[60]
    content = program_config(11, num_bytes - 2)

    decoded = Decoded(overwritten(file, start + 2, content))

    assert decoded.duration_s == pytest.approx(_SECONDS, abs=0.2)
    assert likeness(speech(), decoded.pcm, 5.5, 7.5) > 0.95
    assert [one.end_ms - one.start_ms < 200 for one in decoded.damage] == [True]


def test_a_false_frame_of_another_rate_is_dropped() -> None:
    file = compressed("mp3")
    other = recordings.encode("mp3", speech(44_100), 44_100)
    false_start = other.index(b"\xff\xfb", len(other) // 2)
    false = other[false_start : other.index(b"\xff\xfb", false_start + 4)]
    end = file.index(b"\xff\xf3", len(file) // 2)

    decoded = Decoded(overwritten(file, end - 4000, bytes(4000 - len(false)) + false))

    assert decoded.duration_s == pytest.approx(_SECONDS, abs=0.08)
    assert len(decoded.damage) == 1


def test_a_changed_setup_in_the_middle_of_an_flv_is_followed() -> None:
    first = compressed("flv")
    second = recordings.encode("flv", speech(24_000), 24_000)
    tags = bytearray(second[13:])
    at = 0
    while at + _TAG_HEADER_BYTES < len(tags):
        time_ms = int.from_bytes(tags[at + 4 : at + 7], "big") + 8064
        tags[at + 4 : at + 7] = time_ms.to_bytes(3, "big")
        at += _TAG_HEADER_BYTES + int.from_bytes(tags[at + 1 : at + 4], "big") + 4

    decoded = Decoded(first + bytes(tags))

    assert decoded.duration_s == pytest.approx(2 * _SECONDS + 0.1, abs=0.2)
    assert likeness(speech(), decoded.pcm, 1.0, 7.0) > 0.95
    assert likeness(speech(), decoded.pcm, 1.0, 7.0, later_s=8.064) > 0.95
    assert not decoded.damage


def test_a_frame_that_looks_like_a_decoder_setup_loses_only_itself() -> None:
    file = compressed("flv")
    start, _ = flv_tags(file)[60]
    assert file[start : start + 2] == bytes((_AAC, _FRAME))

    decoded = Decoded(overwritten(file, start + 1, b"\0"))

    assert likeness(speech(), decoded.pcm, 5.5, 7.5) > 0.95
    assert sum(one.end_ms - one.start_ms for one in decoded.damage) < 200
    assert decoded.damage


@pytest.mark.parametrize("flags", [0x30, 0x3E, 0x2F, 0x6C])
def test_a_damaged_tag_does_not_count_as_a_second_track(flags: int) -> None:
    file = compressed("flv")
    start, _ = flv_tags(file)[60]

    decoded = Decoded(overwritten(file, start, bytes((flags,))))

    assert decoded.duration_s == pytest.approx(_SECONDS, abs=0.2)
    assert likeness(speech(), decoded.pcm, 5.5, 7.5) > 0.95
    assert decoded.damage
    assert not decoded.notices


def test_damage_near_the_end_of_a_fragmented_mp4_is_reported_to_its_declared_end() -> None:
    file = fragmented_mp4()
    sizes = file.rindex(b"trun") + 16
    # The second packet of the last fragment swallows those after it, and is no packet.
    file = overwritten(file, sizes + 4, b"\0\0\x7f")
    start = file.rindex(b"mdat") + 4 + int.from_bytes(file[sizes : sizes + 4], "big")
    file = overwritten(file, start, b"\xff" * (len(file) - start - 200))

    decoded = Decoded(file)

    assert decoded.damage
    assert decoded.damage[-1].end_ms == pytest.approx(8064, abs=70)


@pytest.mark.parametrize("name", ["webm", "matroska", "flv"])
def test_audio_lost_before_the_declared_end_is_reported(name: str) -> None:
    file = compressed(name)

    decoded = Decoded(file[: len(file) * 9 // 10] + file[-100:])

    assert decoded.damage[-1].end_ms == pytest.approx(1000 * _SECONDS, abs=100)
    assert decoded.damage[-1].start_ms < 7600


def test_bytes_lost_where_a_stream_is_quiet_are_reckoned_by_those_around_them() -> None:
    signal = speech().copy()
    signal[: len(signal) // 8] *= 1e-4
    file = recordings.encode("aac", signal, 16_000)

    decoded = Decoded(overwritten(file, len(file) // 6, bytes(len(file) // 10)))

    assert decoded.duration_s == pytest.approx(_SECONDS, abs=0.2)


@pytest.mark.parametrize("time_ms", [0, 300, 900])
def test_one_wrong_time_of_a_webm_block_moves_nothing(time_ms: int) -> None:
    file = compressed("webm")
    # A block: track 1, its time within the cluster, a key frame.
    at = file.index(b"\x81\x02\x58\x80")

    decoded = Decoded(overwritten(file, at + 1, time_ms.to_bytes(2, "big")))

    assert decoded.duration_s == pytest.approx(_SECONDS, abs=0.05)
    first_s = 2.0
    assert likeness(speech(), decoded.pcm[: int(6.0 * 16_000)], first_s, 5.5) > 0.95

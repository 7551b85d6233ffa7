"""Mandarin speech with the time of every character, from libespeak-ng.

The library is used through ctypes because its command line does not say when
each character is spoken. It keeps global state: one `Synthesizer` a process.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import functools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import soxr

from recipes.demo_packs.sentences import MARKS

SAMPLE_RATE_HZ = 16_000
# The variants that a small model tells apart well; +m1, +m2, +f3 and +f4 cost it
# about twice the errors of these.
VOICES = ("m3", "m4", "m5", "m6", "m7", "f1", "f2", "f5")

# `cmn-latn-pinyin` reads hanzi; plain `cmn` of 1.51 reads some syllables as English.
_LANGUAGE = "cmn-latn-pinyin"
_AUDIO_OUTPUT_RETRIEVAL = 1
_PHONEME_EVENTS = 1
_CHARS_UTF8 = 1
_RATE, _PITCH = 1, 3
_EVENT_END, _EVENT_WORD, _EVENT_PHONEME = 0, 1, 7
_PAUSE = b"_:"


class SynthesizerMissing(RuntimeError):
    """libespeak-ng cannot be loaded; install the package libespeak-ng1."""


class MisalignedSpeech(RuntimeError):
    """The synthesizer's events do not name every character once, in order."""


@dataclass(frozen=True, slots=True)
class Voice:
    """How a sentence is spoken.

    Attributes:
        variant: one of `VOICES`.
        words_per_minute: espeak's rate; 175 is about 4.5 characters a second.
        pitch: 0 to 99, 50 is the variant's own.
        speed: playback speed, which moves the pitch too; 1.0 leaves it.
    """

    variant: str
    words_per_minute: int = 175
    pitch: int = 50
    speed: float = 1.0


@dataclass(frozen=True, slots=True)
class Speech:
    """A spoken sentence.

    Attributes:
        samples: float32 in [-1, 1], mono, 16 kHz.
        characters: what is said, without punctuation.
        spans: float64 (num_characters, 2), start and end in seconds.
    """

    samples: npt.NDArray[np.float32]
    characters: str
    spans: npt.NDArray[np.float64]


class _EventId(ctypes.Union):
    _fields_ = (("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8))


class _Event(ctypes.Structure):
    # espeak_EVENT of speak_lib.h, espeak-ng 1.51.
    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _EventId),
    )


_Callback = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
)


class Synthesizer:
    """Speaks sentences.

    The library carries a little state from sentence to sentence (its flutter): the
    same orders in the same sequence, from a fresh process, give the same samples; a
    sentence repeated differs by some milliseconds.
    """

    def __init__(self) -> None:
        """Load the library.

        Raises:
            SynthesizerMissing: if it is not installed.
        """
        name = ctypes.util.find_library("espeak-ng") or "libespeak-ng.so.1"
        try:
            self._library = ctypes.CDLL(name)
        except OSError as error:
            raise SynthesizerMissing(str(error)) from error
        self._rate_hz: int = self._library.espeak_Initialize(
            _AUDIO_OUTPUT_RETRIEVAL, 0, None, _PHONEME_EVENTS
        )
        self._pieces: list[npt.NDArray[np.int16]] = []
        self._words: list[tuple[int, int]] = []  # (text position from 1, ms)
        self._pauses_ms: list[int] = []
        # The library keeps the pointer: the callback must outlive it.
        self._callback = _Callback(self._receive)
        self._library.espeak_SetSynthCallback(self._callback)

    def speak(self, sentence: str, voice: Voice) -> Speech:
        """Speak a punctuated sentence.

        Raises:
            MisalignedSpeech: if a character has no event of its own.
        """
        self._pieces.clear()
        self._words.clear()
        self._pauses_ms.clear()
        self._library.espeak_SetVoiceByName(f"{_LANGUAGE}+{voice.variant}".encode())
        self._library.espeak_SetParameter(_RATE, voice.words_per_minute, 0)
        self._library.espeak_SetParameter(_PITCH, voice.pitch, 0)
        text = sentence.encode() + b"\0"
        self._library.espeak_Synth(
            text, ctypes.c_size_t(len(text)), 0, 1, 0, _CHARS_UTF8, None, None
        )
        self._library.espeak_Synchronize()
        spoken = np.concatenate(self._pieces).astype(np.float32) / 32768.0
        spans = self._spans(sentence, len(spoken) / self._rate_hz)
        samples = soxr.resample(spoken, self._rate_hz * voice.speed, SAMPLE_RATE_HZ, quality="MQ")
        characters = "".join(c for c in sentence if c not in MARKS)
        return Speech(samples.astype(np.float32), characters, spans / voice.speed)

    def _receive(self, wave, num_samples, events) -> int:  # type: ignore[no-untyped-def]
        if wave and num_samples > 0:
            self._pieces.append(np.ctypeslib.as_array(wave, (num_samples,)).copy())
        index = 0
        while events[index].type != _EVENT_END:
            event = events[index]
            # A 、 yields a second, empty word event: length tells it apart.
            if event.type == _EVENT_WORD and event.length > 0:
                self._words.append((event.text_position, event.audio_position))
            elif event.type == _EVENT_PHONEME and event.id.string.startswith(_PAUSE):
                self._pauses_ms.append(event.audio_position)
            index += 1
        return 0

    def _spans(self, sentence: str, duration_s: float) -> npt.NDArray[np.float64]:
        positions = [i + 1 for i, character in enumerate(sentence) if character not in MARKS]
        if [position for position, _ in self._words] != positions:
            raise MisalignedSpeech(f"{sentence}: {self._words}")
        starts_ms = [start for _, start in self._words]
        edges_ms = np.unique([*starts_ms, *self._pauses_ms, duration_s * 1_000.0])
        ends_ms = edges_ms[np.searchsorted(edges_ms, starts_ms, side="right")]
        return np.stack([starts_ms, ends_ms], axis=1) / 1_000.0


@functools.cache
def shared_synthesizer() -> Synthesizer:
    """The one synthesizer of this process."""
    return Synthesizer()

"""The error tree: every class crosses process borders and speaks plainly."""

from __future__ import annotations

import pickle

import pytest

from serve_app.core import errors, job_errors, live_errors
from serve_app.core.errors import ParaserveError
from tests.error_tree import EVERY_ERROR

ARGUMENTS: dict[type[ParaserveError], tuple[object, ...]] = {
    errors.InvalidParameter: ("language", "is unknown"),
    errors.MalformedBody: ("no boundary",),
    errors.ModelNotFound: ("x", "y"),
    errors.StageNotDeployed: ("vad", "asr"),
    errors.Unauthenticated: ("no API key",),
    errors.KeyNotAllowed: ("team-a", "is disabled"),
    errors.UrlNotAllowed: ("host",),
    errors.UrlFetchFailed: ("404",),
    errors.UploadTooLarge: (1024,),
    errors.UploadTooSlow: (4096.0,),
    errors.UnknownAudioFormat: ("text",),
    errors.CorruptAudio: ("bad frame",),
    errors.TruncatedAudio: (1.0, 2.0),
    errors.UnsupportedAudioLayout: ("99 channels",),
    errors.InvalidSamples: (1.5,),
    errors.AudioTooShort: (0.02, 0.1),
    errors.AudioTooComplex: (7.5, 0.2),
    errors.AudioTooFragmented: (3000, 0.2),
    errors.AudioTooLong: (100.0, 50.0),
    errors.NotReady: ("asr",),
    errors.Overloaded: (7.2,),
    errors.StorageFull: (5.0,),
    errors.ShuttingDown: (),
    errors.StartFailed: ("no pack",),
    errors.ModelUnavailable: ("large", "no memory"),
    errors.DeadlineExceeded: (3.0,),
    errors.RecognitionFailed: ("engine",),
    errors.PackError: ("a", "b", "c"),
    errors.PackNotFound: ("a", "b", "c"),
    errors.PackIncomplete: ("a", "b", "c"),
    errors.PackCorrupt: ("a", "b", "c"),
    errors.PackFetchFailed: ("a", "b", "c"),
    errors.DeviceUnavailable: ("cuda", "no driver"),
    job_errors.UploadIncomplete: (1, 2),
    live_errors.NothingToCommit: (20,),
    live_errors.TooMuchAudio: (30.0,),
    live_errors.SessionIdle: (300.0,),
    live_errors.SessionTooLong: (300.0, 1200),
    job_errors.QuotaExceeded: (3600.0, "2026-12-01"),
}


@pytest.mark.parametrize("cls", EVERY_ERROR)
def test_error_survives_pickling(cls: type[ParaserveError]) -> None:
    error = cls(*ARGUMENTS.get(cls, ("detail",)))
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is cls
    assert str(copy) == str(error)


@pytest.mark.parametrize("cls", EVERY_ERROR)
def test_every_error_has_a_message_and_a_docstring(cls: type[ParaserveError]) -> None:
    assert str(cls(*ARGUMENTS.get(cls, ("detail",))))
    assert cls.__doc__


def test_codes_are_unique() -> None:
    codes = [cls.code for cls in EVERY_ERROR]
    assert len(codes) == len(set(codes))

"""Fetches the packs of a deployment before it starts, so that its progress is seen."""

from __future__ import annotations

from collections.abc import Callable

from serve_app.inference.loading import find_pack, packs_of
from serve_app.packs import PackStore, pull
from serve_app.settings import Settings


def fetch_packs(settings: Settings, on_progress: Callable[[str], None]) -> None:
    """Makes sure that every pack of the settings is on this machine.

    Raises:
        PackError: one is not, and cannot be fetched.
    """
    for needed in packs_of(settings):
        on_progress(f"model pack for {needed.role}: {needed.name}")
        if settings.offline:
            find_pack(settings, needed.name)
        else:
            pull(needed.name, PackStore(settings.pack_dir))

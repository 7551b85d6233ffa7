"""Model packs: resolves a name to a verified directory in FunASR's format."""

from serve_app.packs.inspection import PackReport, PackStatus, list_packs, verify
from serve_app.packs.pack import PackContents, open_pack
from serve_app.packs.registry import REGISTERED, PackKind, find_pack
from serve_app.packs.resolve import pull, resolve
from serve_app.packs.store import PackStore

__all__ = [
    "REGISTERED",
    "PackContents",
    "PackKind",
    "PackReport",
    "PackStatus",
    "PackStore",
    "find_pack",
    "list_packs",
    "open_pack",
    "pull",
    "resolve",
    "verify",
]

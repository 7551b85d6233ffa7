"""Hub clients that copy a directory instead of downloading it."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType


@dataclass
class HubCall:
    repository: str
    revision: str | None
    allow_patterns: list[str]


@dataclass
class FakeHub:
    """What both clients download: `origin`, whatever patterns were asked for."""

    origin: Path
    error: Exception | None = None
    calls: list[HubCall] = field(default_factory=list)

    def snapshot_download(
        self,
        repository: str,
        *,
        revision: str | None,
        local_dir: str,
        allow_patterns: Sequence[str],
    ) -> str:
        self.calls.append(HubCall(repository, revision, list(allow_patterns)))
        if self.error is not None:
            raise self.error
        shutil.copytree(self.origin, local_dir, dirs_exist_ok=True)
        return local_dir

    def modelscope(self) -> ModuleType:
        module = ModuleType("modelscope")
        module.__dict__["snapshot_download"] = self.snapshot_download
        return module

    def huggingface_hub(self, commit: str) -> ModuleType:
        @dataclass
        class ModelInfo:
            sha: str

        class HfApi:
            def model_info(self, repository: str, *, revision: str | None) -> ModelInfo:
                del repository, revision
                return ModelInfo(commit)

        module = ModuleType("huggingface_hub")
        module.__dict__.update(snapshot_download=self.snapshot_download, HfApi=HfApi)
        return module

"""Settings, packs and devices that do not go together; the operator must fix them."""

from __future__ import annotations

from serve_app.core.errors.root import ParaserveError


class ConfigurationError(ParaserveError):
    """Settings contradict themselves or the machine; the operator must fix them."""

    code = "configuration_error"


class PackError(ConfigurationError):
    """A model pack cannot be used as it is; the operator must fix or fetch it."""

    code = "pack_error"

    def __init__(self, pack: str, problem: str, remedy: str) -> None:
        super().__init__(pack, problem, remedy)

    def __str__(self) -> str:
        return f"model pack {self.args[0]}: {self.args[1]}. {self.args[2]}"


class PackNotFound(PackError):
    """The name resolves to no pack that is on this machine."""

    code = "pack_not_found"


class PackIncomplete(PackError):
    """Files of the pack are missing."""

    code = "pack_incomplete"


class PackCorrupt(PackError):
    """Files of the pack differ from their checksums or contradict each other."""

    code = "pack_corrupt"


class PackFetchFailed(PackError):
    """The pack's source could not be reached or refused the download."""

    code = "pack_fetch_failed"


class DeviceUnavailable(ConfigurationError):
    """The device named in the settings is not on this machine."""

    code = "device_unavailable"

    def __init__(self, device: str, detail: str) -> None:
        super().__init__(device, detail)

    def __str__(self) -> str:
        return f"device {self.args[0]!r} is not available: {self.args[1]}"


class TraceError(ConfigurationError):
    """A trace of requests cannot be planned with; the message names the line."""

    code = "trace_error"


class CostsError(ConfigurationError):
    """A file of measured costs cannot be used."""

    code = "costs_error"


class ManifestError(ConfigurationError):
    """A list of recordings cannot be used; the message names its lines."""

    code = "manifest_error"

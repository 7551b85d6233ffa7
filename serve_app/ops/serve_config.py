"""The Serve config of a RayService: its applications, their settings and deployments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from serve_app.core.errors import ClusterError, ConfigurationError
from serve_app.ops.json_view import JsonView, read_yaml
from serve_app.settings import DEFAULT_PROFILE, DeploymentSettings, Settings
from serve_app.settings.sources import ProfileSource

# Deployments by their section of the settings.
DEPLOYMENTS = {
    "ingress": "Ingress",
    "segmenter": "Segmenter",
    "recognizer": "Recognizer",
    "punctuator": "Punctuator",
    "speaker_embedder": "SpeakerEmbedder",
}


class ConfiguredSettings(Settings):
    """Settings as the cluster reads them, without the environment of this machine."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        profile = str(init_settings().get("profile") or DEFAULT_PROFILE)
        return init_settings, ProfileSource(settings_cls, profile)


@dataclass(frozen=True, slots=True)
class Application:
    """One application of a Serve config.

    Attributes:
        name: of the application.
        route: prefix of its paths.
        settings: its arguments, with profile and defaults.
        options: of Serve, by deployment; they override the settings.
    """

    name: str
    route: str
    settings: Settings
    options: Mapping[str, JsonView]

    @property
    def deployments(self) -> dict[str, DeploymentSettings]:
        """The sizes in the settings, by name of the deployment."""
        settings = self.settings
        sizes: dict[str, DeploymentSettings] = {
            "Ingress": settings.ingress.deployment,
            "Segmenter": settings.segmenter.deployment,
            "Recognizer": settings.recognizer.deployment,
            "Punctuator": settings.punctuator.deployment,
            "SpeakerEmbedder": settings.speaker_embedder.deployment,
        }
        if "punctuation" not in settings.stages:
            del sizes["Punctuator"]
        if "speakers" not in settings.stages:
            del sizes["SpeakerEmbedder"]
        if settings.jobs.enabled:
            sizes["JobRunner"] = settings.jobs.deployment
        return sizes

    def num_gpus(self, deployment: str) -> float:
        """GPUs of a replica."""
        own = self.options.get(deployment, JsonView()).at("ray_actor_options", "num_gpus")
        return own.number() if own.is_there else self.deployments[deployment].num_gpus

    def bounds(self, deployment: str) -> tuple[int, int]:
        """Minimum and maximum number of replicas."""
        own = self.options.get(deployment, JsonView())
        scaling = own.at("autoscaling_config")
        if scaling.is_there:
            return scaling.at("min_replicas").count(1), scaling.at("max_replicas").count(1)
        size = self.deployments[deployment]
        if size.autoscaling is not None:
            return size.autoscaling.min_replicas, size.autoscaling.max_replicas
        number = own.at("num_replicas").count(size.num_replicas)
        return number, number


@dataclass(frozen=True, slots=True)
class ServeConfig:
    """A Serve config."""

    document: JsonView
    applications: tuple[Application, ...]

    @property
    def main(self) -> Application:
        """The application at `/`, which the chart's `settings` describe.

        Raises:
            ClusterError: there is none.
        """
        for application in self.applications:
            if application.route == "/":
                return application
        raise ClusterError("no application of the RayService is at /: is it Paraserve's?")


def read_config(service: JsonView) -> ServeConfig:
    """Returns the Serve config of a RayService.

    Raises:
        ClusterError: it is not YAML, or this version does not accept its settings.
    """
    document = read_yaml(service.at("spec", "serveConfigV2").text(), "serveConfigV2")
    entries = list(document.at("applications").each())
    if not entries:
        raise ClusterError("serveConfigV2 has no application: run helm upgrade again")
    return ServeConfig(document, tuple(_application(entry) for entry in entries))


def _application(entry: JsonView) -> Application:
    name = entry.at("name").text()
    if entry.at("import_path").text() != "serve_app.app:build":
        raise ClusterError(f"the application {name} is not Paraserve's (import_path)")
    options = {part.at("name").text(): part for part in entry.at("deployments").each()}
    try:
        settings = ConfiguredSettings.model_validate(entry.at("args").mapping())
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        context = ".".join(str(part) for part in first["loc"]) or "settings"
        raise ClusterError(
            f"settings of {name} that this version of paraserve does not accept: {context}: "
            f"{first['msg']}; correct the values, or use the version of the image"
        ) from None
    except ConfigurationError as error:
        raise ClusterError(f"settings of {name}: {error}") from None
    return Application(name, entry.at("route_prefix").text("/"), settings, options)

"""Builds the Serve applications from the settings; all deployments are connected here.

Used by `serve run serve_app.app:build profile=demo`, by a Serve config's `import_path`
and by `paraserve serve`.
"""

# Serve reads the annotation of `build` at run time to find the type of the settings, so
# this module must not import annotations from __future__.

from ray.serve import Application

from serve_app.deployments.ingress import build_ingress
from serve_app.deployments.live import build_live as build_live_deployment
from serve_app.deployments.punctuator import build_punctuator
from serve_app.deployments.recognizer import build_recognizer
from serve_app.deployments.segmenter import build_segmenter
from serve_app.deployments.speaker_embedder import build_speaker_embedder
from serve_app.deployments.ui import build_ui
from serve_app.settings import Settings


def build(args: Settings) -> Application:
    """Returns the Serve application.

    Args:
        args: Serve parses them from a mapping.

    Raises:
        ConfigurationError: API keys are required and there is no keys file.
    """
    args.check_access()
    recognizer = build_recognizer(args)
    punctuator = build_punctuator(args) if "punctuation" in args.stages else None
    speaker_embedder = build_speaker_embedder(args) if "speakers" in args.stages else None
    segmenter = build_segmenter(args, recognizer, speaker_embedder)
    job_runner: Application | None = None
    if args.jobs.enabled:
        # Only then are its packages needed: `pip install 'paraserve[jobs]'`.
        from serve_app.deployments.job_runner import build_job_runner

        job_runner = build_job_runner(args, segmenter, recognizer, punctuator, speaker_embedder)
    return build_ingress(args, segmenter, recognizer, punctuator, speaker_embedder, job_runner)


def build_page(args: Settings) -> Application:
    """Returns the web page, an application of its own beside `build`'s.

    Args:
        args: the same settings as for `build`.

    Raises:
        ConfigurationError: Gradio is not installed.
    """
    return build_ui(args)


def build_live(args: Settings) -> Application:
    """Returns live transcription, an application of its own beside `build`'s.

    Args:
        args: the same settings as for `build`.

    Raises:
        ConfigurationError: API keys are required and there is no keys file.
    """
    args.check_access()
    return build_live_deployment(args)

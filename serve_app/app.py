"""The whole graph, from settings: the one place where the deployments are wired.

`serve run serve_app.app:build profile=demo`, a Serve config's `import_path` and
`paraserve serve` all come through here.
"""

# Serve looks at the annotation of `build` at run time to find the settings' type,
# so this module must not turn annotations into strings.

from ray.serve import Application

from serve_app.deployments.ingress import build_ingress
from serve_app.deployments.punctuator import build_punctuator
from serve_app.deployments.recognizer import build_recognizer
from serve_app.deployments.segmenter import build_segmenter
from serve_app.deployments.ui import build_ui
from serve_app.settings import Settings


def build(args: Settings) -> Application:
    """Returns the Serve application.

    Args:
        args: Serve parses them from the mapping that it is given.

    Raises:
        ConfigurationError: API keys are demanded and there are none.
    """
    args.check_access()
    recognizer = build_recognizer(args)
    segmenter = build_segmenter(args, recognizer)
    punctuator = build_punctuator(args) if "punctuation" in args.stages else None
    return build_ingress(args, segmenter, recognizer, punctuator)


def build_page(args: Settings) -> Application:
    """Returns the web page, an application of its own beside `build`'s.

    Args:
        args: the same settings; the page's are in `ui`.

    Raises:
        ConfigurationError: Gradio is not installed.
    """
    return build_ui(args)

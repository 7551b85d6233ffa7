"""Packs of the published architectures with random weights.

Speed, memory and loading do not depend on the values of the weights, so these replace the published
packs where no model hub can be reached. Their text is meaningless.
"""

from serve_app.modeltools.random_packs.architectures import ARCHITECTURES, Architecture
from serve_app.modeltools.random_packs.writing import synthesize

__all__ = ["ARCHITECTURES", "Architecture", "synthesize"]

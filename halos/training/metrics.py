"""Metrics of an evaluation beside its loss: means that a model gives itself, and what follows from the loss."""

from __future__ import annotations

import math
from typing import Any, Optional

KNOWN = ("perplexity", "bits_per_byte", "accuracy")  # of every evaluation; None where unknown


def derived(means: dict[str, float], model: Any, bytes_per_token: Optional[float]) -> dict[str, float]:
    """Return `means`, and beside their `loss` what follows from it if it is one of a language model.

    `perplexity` = exp(loss). `bits_per_byte` = loss / ln 2 / bytes per token, where these are known. What a model gives
    itself under these names stands. Beyond what a float holds, they are infinite.
    """
    if not getattr(model, "language_model", False):
        return means
    loss = means["loss"]
    try:
        found = {"perplexity": math.exp(loss)}
    except OverflowError:
        found = {"perplexity": math.inf}
    if bytes_per_token:
        found["bits_per_byte"] = loss / math.log(2) / bytes_per_token
    return {"loss": loss, **found, **means}

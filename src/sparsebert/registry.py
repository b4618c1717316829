"""One greppable table: kind and name to `module:attribute`, loaded when first asked for."""

from __future__ import annotations

import importlib
from typing import Any

from sparsebert.errors import unknown

_TABLE: dict[str, dict[str, str]] = {
    "criterion": {
        "obs": "sparsebert.sparse.criteria:obs",
        "magnitude": "sparsebert.sparse.criteria:magnitude",
        "random": "sparsebert.sparse.criteria:random",
        "gradient": "sparsebert.sparse.criteria:gradient",
        "activation": "sparsebert.sparse.criteria:activation",
        "loss_increase": "sparsebert.sparse.criteria:loss_increase",
    },
    "family": {
        "bert": "sparsebert.models.families:BERT",
        "roberta": "sparsebert.models.families:ROBERTA",
        "distilbert": "sparsebert.models.families:DISTILBERT",
        "electra": "sparsebert.models.families:ELECTRA",
        "modernbert": "sparsebert.models.families:MODERNBERT",
        "deberta-v2": "sparsebert.models.families:DEBERTA_V2",
    },
    "backend": {
        "eager": "sparsebert.backends:eager",
        "eager-bf16": "sparsebert.backends:eager_bf16",
        "compile": "sparsebert.backends:compiled",
    },
}


def names(kind: str) -> list[str]:
    """All registered names of a kind, in table order."""
    return list(_TABLE[kind])


def get(kind: str, name: str) -> Any:
    """The component itself. Raises UserError with the allowed names, and the nearest one, for an unknown name."""
    if name not in _TABLE[kind]:
        raise unknown(kind, name, _TABLE[kind])
    module, attribute = _TABLE[kind][name].split(":")
    return getattr(importlib.import_module(module), attribute)

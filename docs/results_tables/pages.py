"""The pages with marked regions, and what `make results` would write into them."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from results_tables import (
    deployed,
    embeddings,
    glue,
    kernels,
    pretrained,
    pruning,
    removal,
    serving,
    sparse_training,
    studies,
    tenth,
    tokens,
)
from results_tables.values import ROOT

REGION = re.compile(r"<!-- table: (?P<name>[\w-]+) -->\n.*?<!-- end -->", re.DOTALL)
TABLES: dict[str, Callable[[], str]] = {
    "structured-sst2": pruning.structured,
    "structured-sst2-sizes": pruning.structured_sizes,
    "settings-sst2": pruning.settings,
    "settings-sst2-targets": pruning.settings_targets,
    "one-shot-sst2": lambda: pruning.one_shot("sst2"),
    "one-shot-mrpc": lambda: pruning.one_shot("mrpc"),
    "forms": pruning.forms,
    "fff-sst2": pruning.fff_sst2,
    "fff-sst2-trees": pruning.fff_sst2_trees,
    "removal-best": removal.best_points,
    "removal-sts-weights": lambda: removal.curve("sts", "unstructured"),
    "removal-sts-layers": lambda: removal.curve("sts", "layers"),
    "removal-sst5-weights": lambda: removal.curve("sst5", "unstructured"),
    "removal-sst5-layers": lambda: removal.curve("sst5", "layers"),
    "removal-quora-weights": lambda: removal.curve("quora", "unstructured"),
    "removal-quora-layers": lambda: removal.curve("quora", "layers"),
    "tenth-sst2": tenth.family,
    "tenth-sst2-stored": tenth.stored,
    "tenth-sst2-speed": tenth.speed,
    "tokens-minilm-family": tokens.family,
    "training-cost": sparse_training.training_cost,
    "training-overhead": sparse_training.training_overhead,
    "criteria-sst2-50": lambda: sparse_training.criteria_sst2(0.5),
    "criteria-sst2-80": lambda: sparse_training.criteria_sst2(0.8),
    "criteria-sst2-90": lambda: sparse_training.criteria_sst2(0.9),
    "criteria-sst2-teacher": lambda: sparse_training.with_teacher("criteria-sst2", "plain", "teacher", "accuracy"),
    "criteria-mrpc-50": lambda: sparse_training.criteria_mrpc(0.5),
    "criteria-mrpc-80": lambda: sparse_training.criteria_mrpc(0.8),
    "criteria-mrpc-90": lambda: sparse_training.criteria_mrpc(0.9),
    "criteria-mrpc-teacher": lambda: sparse_training.with_teacher("criteria-mrpc", "tuned", "tuned-teacher", "f1"),
    "criteria-mrpc-pretrained": sparse_training.criteria_mrpc_pretrained,
    "criteria-mrpc-batch-8": sparse_training.criteria_mrpc_batch_8,
    "linear-xeon": kernels.linear_xeon,
    "linear-xeon-levels": lambda: kernels.linear_levels("xeon", kernels.IN_FP32),
    "linear-epyc-levels": lambda: kernels.linear_levels("epyc", kernels.IN_BF16),
    "linear-epyc": kernels.linear_epyc,
    "encoder-xeon": lambda: kernels.encoder("xeon"),
    "encoder-epyc": lambda: kernels.encoder("epyc"),
    "encoder-epyc-single-values": lambda: kernels.encoder("epyc-single-values"),
    "fff-layer-xeon": kernels.fff_xeon,
    "fff-layer-sorting": kernels.fff_sorting,
    "fff-layer-epyc": kernels.fff_epyc,
    "fff-primitive-fp32": lambda: kernels.fff_primitive("fp32"),
    "fff-primitive-fp64": lambda: kernels.fff_primitive("fp64"),
    "deployed-speed": lambda: deployed.speed("deployed"),
    "deployed-sst2-speed": lambda: deployed.speed("deployed-sst2"),
    "deployed-sst2-targets": lambda: deployed.targets("deployed-sst2"),
    "deployed-sst2-texts": lambda: deployed.texts("deployed-sst2"),
    "deployed-family-accuracy": lambda: deployed.accuracy("deployed-family", deployed.EXPORTED),
    "deployed-family-short": deployed.short,
    "deployed-family-speed": lambda: deployed.speed("deployed-family"),
    "deployed-family-targets": lambda: deployed.targets("deployed-family"),
    "deployed-family-again": deployed.again,
    "deployed-family-texts": lambda: deployed.texts("deployed-family"),
    "studies-minilm-answers": studies.answers,
    "trees-pretrained": pretrained.encoders,
    "serving-predict": serving.predictor,
    "serving-batches": serving.batches,
    "serving-endurance": serving.endurance,
    "deployed-accuracy": lambda: deployed.accuracy("deployed"),
    "embeddings-minilm-family": embeddings.family,
    "embeddings-minilm-quality": embeddings.quality,
    "embeddings-minilm-speed": lambda: deployed.speed(embeddings.STUDY),
    "glue-minilm": glue.scores,
    "glue-minilm-costs": glue.costs,
}


def pages() -> list[Path]:
    """The pages that have regions."""
    found = [*(ROOT / "results").glob("*/README.md"), *(ROOT / "docs" / "results").glob("*.md")]
    return sorted([ROOT / "README.md", *found])


def rewritten(text: str) -> str:
    """The text with its regions filled from the records. Raises KeyError for a table that is not there."""

    def region(found: re.Match[str]) -> str:
        return f"<!-- table: {found['name']} -->\n\n{TABLES[found['name']]()}\n\n<!-- end -->"

    return REGION.sub(region, text)

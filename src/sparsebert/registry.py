"""One greppable table: kind and name to `module:attribute`, loaded when first asked for."""

from __future__ import annotations

import importlib
import inspect
import os
import re
import sys
from collections.abc import Mapping
from typing import Any

from sparsebert.errors import UserError, unknown

# In front of a family's name: the types of our own model classes.
SHRUNK_PREFIX = "sparsebert-"
OWN_FAMILIES = ("crammed-bert",)
# A component of the user's own.
_OWN = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
_TABLE: dict[str, dict[str, str]] = {
    "run_type": {
        "compress": "sparsebert.runs.compress:Compress",
        "train": "sparsebert.runs.train:Train",
        "fff": "sparsebert.runs.fff:Fff",
        "finetune": "sparsebert.runs.finetune:Finetune",
        "prune-curve": "sparsebert.runs.prune_curve:PruneCurves",
        "multitask": "sparsebert.runs.multitask:Multitask",
        "pretrain": "sparsebert.runs.pretrain:Pretrain",
    },
    "recipe": {
        "compress": "sparsebert.recipe.compress:CompressRecipe",
        "train": "sparsebert.recipe.train:TrainRecipe",
        "fff": "sparsebert.recipe.fff:FffRecipe",
        "finetune": "sparsebert.recipe.finetune:FinetuneRecipe",
        "prune-curve": "sparsebert.recipe.prune_curve:PruneCurveRecipe",
        "multitask": "sparsebert.recipe.multitask:MultitaskRecipe",
        "pretrain": "sparsebert.recipe.pretrain:PretrainRecipe",
    },
    "unit_criterion": {
        "obs": "sparsebert.pruning.criteria:obs",
        "magnitude": "sparsebert.pruning.criteria:magnitude",
        "random": "sparsebert.pruning.criteria:random",
        "gradient": "sparsebert.pruning.criteria:gradient",
        "activation": "sparsebert.pruning.criteria:activation",
        "loss_increase": "sparsebert.pruning.criteria:loss_increase",
    },
    "structure": {
        "element": "sparsebert.sparse.structures:Element",
        "n:m": "sparsebert.sparse.structures:NM",
        "block": "sparsebert.sparse.structures:Block",
        "head": "sparsebert.sparse.structures:Head",
        "neuron": "sparsebert.sparse.structures:Neuron",
        "layer": "sparsebert.sparse.structures:Layer",
    },
    "criterion": {
        "magnitude": "sparsebert.sparse.criteria:magnitude",
        "random": "sparsebert.sparse.criteria:random",
        "gradient": "sparsebert.sparse.criteria:gradient",
        "taylor": "sparsebert.sparse.criteria:taylor",
        "activation": "sparsebert.sparse.criteria:activation",
        "mean_activation": "sparsebert.sparse.criteria:mean_activation",
        "movement": "sparsebert.sparse.criteria:movement",
        "fisher": "sparsebert.sparse.fisher:fisher",
        "loss_increase": "sparsebert.sparse.criteria:loss_increase",
    },
    "budget": {
        "uniform": "sparsebert.sparse.budgets:Uniform",
        "global": "sparsebert.sparse.budgets:Global",
        "erk": "sparsebert.sparse.budgets:Erk",
    },
    "schedule": {
        "constant": "sparsebert.sparse.schedules:Constant",
        "one_shot": "sparsebert.sparse.schedules:OneShot",
        "linear": "sparsebert.sparse.schedules:linear",
        "cubic": "sparsebert.sparse.schedules:cubic",
        "sigmoid": "sparsebert.sparse.schedules:sigmoid",
        "cosine": "sparsebert.sparse.schedules:cosine",
        "exponential": "sparsebert.sparse.schedules:Exponential",
    },
    "update": {
        "prune": "sparsebert.sparse.updates:Prune",
        "swap": "sparsebert.sparse.updates:Swap",
        "delete": "sparsebert.sparse.updates:Delete",
        "rewind": "sparsebert.sparse.updates:Rewind",
        "early_bird": "sparsebert.sparse.updates:EarlyBird",
    },
    "gate": {
        "movement": "sparsebert.sparse.gates:Movement",
        "soft_movement": "sparsebert.sparse.gates:SoftMovement",
        "hard_concrete": "sparsebert.sparse.gates:HardConcrete",
        "coefficient": "sparsebert.sparse.gates:Coefficient",
        "soft_mask": "sparsebert.sparse.gates:SoftMask",
    },
    "penalty": {
        "l1": "sparsebert.sparse.penalties:L1",
        "l0": "sparsebert.sparse.penalties:L0",
        "group_lasso": "sparsebert.sparse.penalties:GroupLasso",
        "lagrangian": "sparsebert.sparse.penalties:Lagrangian",
    },
    "family": {
        "bert": "sparsebert.models.families:BERT",
        "roberta": "sparsebert.models.families:ROBERTA",
        "distilbert": "sparsebert.models.families:DISTILBERT",
        "electra": "sparsebert.models.families:ELECTRA",
        "modernbert": "sparsebert.models.families:MODERNBERT",
        "deberta-v2": "sparsebert.models.families:DEBERTA_V2",
        "xlm-roberta": "sparsebert.models.families:XLM_ROBERTA",
        "camembert": "sparsebert.models.families:CAMEMBERT",
        "mpnet": "sparsebert.models.families:MPNET",
        "gte": "sparsebert.models.families:GTE",
        "nomic_bert": "sparsebert.models.families:NOMIC_BERT",
        "eurobert": "sparsebert.models.families:EUROBERT",
        "crammed-bert": "sparsebert.models.families:CRAMMED_BERT",
    },
    "task_kind": {
        "classification": "sparsebert.tasks.classification:CLASSIFICATION",
        "regression": "sparsebert.tasks.regression:REGRESSION",
        "multilabel": "sparsebert.tasks.multilabel:MULTILABEL",
        "tokens": "sparsebert.tasks.tokens:TOKENS",
        "pair_classification": "sparsebert.tasks.pair:PAIR_CLASSIFICATION",
        "pair_similarity": "sparsebert.tasks.pair:PAIR_SIMILARITY",
        "masked_lm": "sparsebert.tasks.masked_lm:MASKED_LM",
        "embeddings": "sparsebert.tasks.embeddings:EMBEDDINGS",
        "embedding_pairs": "sparsebert.tasks.embedding_pairs:EMBEDDING_PAIRS",
        "ranking": "sparsebert.tasks.ranking:RANKING",
        "spans": "sparsebert.tasks.spans:SPANS",
    },
    "metric": {
        "accuracy": "sparsebert.tasks.metrics:ACCURACY",
        "f1": "sparsebert.tasks.metrics:F1",
        "matthews": "sparsebert.tasks.metrics:MATTHEWS",
        "pearson": "sparsebert.tasks.metrics:PEARSON",
        "spearman": "sparsebert.tasks.metrics:SPEARMAN",
        "micro_f1": "sparsebert.tasks.multilabel:MICRO_F1",
        "macro_f1": "sparsebert.tasks.multilabel:MACRO_F1",
        "entity_f1": "sparsebert.tasks.tokens:ENTITY_F1",
        "tag_accuracy": "sparsebert.tasks.tokens:TAG_ACCURACY",
        "answer_f1": "sparsebert.tasks.spans:ANSWER_F1",
        "exact_match": "sparsebert.tasks.spans:EXACT_MATCH",
        "answered_f1": "sparsebert.tasks.spans:ANSWERED_F1",
        "unanswered_f1": "sparsebert.tasks.spans:UNANSWERED_F1",
        "masked_accuracy": "sparsebert.tasks.masked_lm:MASKED_ACCURACY",
        "cosine": "sparsebert.tasks.embeddings:COSINE",
        "neighbours": "sparsebert.tasks.embeddings:NEIGHBOURS_KEPT",
        "positive_mrr": "sparsebert.tasks.embedding_pairs:POSITIVE_MRR",
        "pair_cosine": "sparsebert.tasks.embedding_pairs:PAIR_COSINE",
    },
    "target": {
        "speedup": "sparsebert.pruning.target_kinds:SPEEDUP",
        "latency_ms": "sparsebert.pruning.target_kinds:LATENCY_MS",
        "size": "sparsebert.pruning.target_kinds:SIZE",
        "sparsity": "sparsebert.pruning.target_kinds:SPARSITY",
    },
    "runtime": {
        "eager": "sparsebert.runtimes.pytorch:EAGER",
        "eager-bf16": "sparsebert.runtimes.pytorch:EAGER_BF16",
        "compile": "sparsebert.runtimes.pytorch:COMPILE",
        "sparse": "sparsebert.runtimes.pytorch:SPARSE",
        "sparse-bf16": "sparsebert.runtimes.pytorch:SPARSE_BF16",
        "onnx": "sparsebert.runtimes.onnx:ONNX",
        "onnx-int8": "sparsebert.runtimes.onnx:ONNX_INT8",
        "openvino": "sparsebert.runtimes.openvino:OPENVINO",
        "openvino-bf16": "sparsebert.runtimes.openvino:OPENVINO_BF16",
        "openvino-int8": "sparsebert.runtimes.openvino:OPENVINO_INT8",
    },
    "logger": {
        "tensorboard": "sparsebert.training.loggers:TENSORBOARD",
        "wandb": "sparsebert.training.loggers:WANDB",
        "mlflow": "sparsebert.training.loggers:MLFLOW",
    },
    "study": {
        "mask-overlap": "sparsebert.studies.mask_overlap:MASK_OVERLAP",
        "sorting-order": "sparsebert.studies.sorting_order:SORTING_ORDER",
        "weight-distribution": "sparsebert.studies.weight_distribution:WEIGHT_DISTRIBUTION",
        "head-zeros": "sparsebert.studies.head_zeros:HEAD_ZEROS",
        "feature-similarity": "sparsebert.studies.feature_similarity:FEATURE_SIMILARITY",
        "class-harm": "sparsebert.studies.class_harm:CLASS_HARM",
        "criteria-agreement": "sparsebert.studies.criteria_agreement:CRITERIA_AGREEMENT",
        "group-sensitivity": "sparsebert.studies.group_sensitivity:GROUP_SENSITIVITY",
        "embedding-magnitudes": "sparsebert.studies.embedding_magnitudes:EMBEDDING_MAGNITUDES",
        "drop-start": "sparsebert.studies.drop_start:DROP_START",
        "tree-paths": "sparsebert.studies.tree_paths:TREE_PATHS",
        "mask-movement": "sparsebert.studies.mask_movement:MASK_MOVEMENT",
        "pretraining-loss": "sparsebert.studies.pretraining_loss:PRETRAINING_LOSS",
    },
}
# Kinds of which a component of the user's own has to be an instance of one class.
_CLASSES = {
    "runtime": "sparsebert.runtimes.runtime:Runtime",
    "target": "sparsebert.pruning.target_kinds:TargetKind",
    "logger": "sparsebert.training.loggers:TrainingLogger",
    "study": "sparsebert.studies.study:Study",
}
# Kinds of which it has to be a class derived from one.
_BASES = {"run_type": "sparsebert.runs.run_type:RunType"}


def names(kind: str) -> list[str]:
    """All registered names of a kind, in table order."""
    return list(_TABLE[kind])


def get(kind: str, name: str) -> Any:
    """The component itself: one of the table, or the user's own, named as `package.module:attribute`.

    The user's modules are looked for where Python looks, and in the working directory. Raises UserError with the
    allowed names, and the nearest one, for an unknown name, and for an own component that cannot be imported or is no
    such component.
    """
    if name in _TABLE[kind]:
        return _import(_TABLE[kind][name])
    if _OWN.fullmatch(name):
        return _own(kind, name)
    raise unknown(kind.replace("_", " "), name, _TABLE[kind])


def spelled(kind: str, name: str) -> str:
    """The name, if it is registered or of the form of the user's own; imports neither. Raises ValueError for others."""
    if name not in _TABLE[kind] and not _OWN.fullmatch(name):
        raise ValueError(str(unknown(kind.replace("_", " "), name, _TABLE[kind])))
    return name


def check(kind: str, name: str) -> None:
    """Raises UserError for a name that `get` would not find; imports only what is the user's own."""
    if name not in _TABLE[kind]:
        get(kind, name)


def _import(path: str) -> Any:
    module, attribute = path.split(":")
    return getattr(importlib.import_module(module), attribute)


def _own(kind: str, name: str) -> Any:
    # A command's own search path begins with its folder, not with the user's.
    path = list(sys.path)
    sys.path.insert(0, os.getcwd())
    try:
        found = _import(name)
    except (ImportError, AttributeError) as error:
        what = f"The {kind.replace('_', ' ')} '{name}' cannot be imported: {error}"
        raise UserError(what, fix="give package.module:attribute, with the package installed or here") from None
    finally:
        sys.path[:] = path
    _check_class(kind, name, found)
    return found


def _check_class(kind: str, name: str, found: Any) -> None:
    what = f"The {kind.replace('_', ' ')} '{name}' is of another kind"
    if kind in _CLASSES and not isinstance(found, wanted := _import(_CLASSES[kind])):
        raise UserError(what, got=type(found).__name__, allowed=f"an instance of {wanted.__module__}.{wanted.__name__}")
    if kind not in _BASES:
        return
    wanted = _import(_BASES[kind])
    if not inspect.isclass(found) or not issubclass(found, wanted):
        got = found.__name__ if inspect.isclass(found) else type(found).__name__
        raise UserError(what, got=got, allowed=f"a class derived from {wanted.__module__}.{wanted.__name__}")
    if inspect.isabstract(found):
        absent = ", ".join(sorted(found.__abstractmethods__))
        raise UserError(f"The {kind.replace('_', ' ')} '{name}' has methods that are not written: {absent}")


def make(kind: str, name: str, options: Mapping[str, Any], **context: Any) -> Any:
    """Call what is registered with a recipe's `options`, and with the `context` that recipes do not choose.

    Raises UserError for an option that the component does not have, one that it needs and did not get, and a value of
    another type than its annotation says; a ValueError of the component itself (a bad value) becomes one too. Text that
    reads as a number is one, as YAML takes `1e-2` for text.
    """
    factory, what = get(kind, name), f"{kind.replace('_', ' ')} {name}"
    found = inspect.signature(factory, eval_str=True).parameters
    parameters = {key: value for key, value in found.items() if key not in context}
    for key in options:
        if key not in parameters:
            raise unknown(f"option of the {what}", key, parameters)
    absent = [key for key, value in parameters.items() if value.default is value.empty and key not in options]
    if absent:
        raise UserError(f"The {what} needs a value for {', '.join(absent)}", got=dict(options))
    typed = {key: _typed(f"{key} of the {what}", value, parameters[key].annotation) for key, value in options.items()}
    try:
        return factory(**typed, **context)
    except ValueError as error:
        raise UserError(f"The {what} cannot be: {error}") from None


def _typed(what: str, value: Any, annotation: Any) -> Any:
    # Here, because the command line asks for names before it needs anything that is slow to import.
    from pydantic import ConfigDict, TypeAdapter, ValidationError

    try:
        return TypeAdapter(annotation, config=ConfigDict(allow_inf_nan=False)).validate_python(value)
    except ValidationError as error:
        problem = error.errors()[0]["msg"]
        raise UserError(f"The option {what} does not fit: {problem}", got=value) from None

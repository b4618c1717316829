"""Models that read the sides of a pair apart, for every family, and one with all three heads of CS224N's project.

`BertForPairClassification`, `BertForPairSimilarity`, `BertForMultitask`, `RobertaForPairClassification` and so on, all
names of this module. Input is [2 pairs, length], the sides of a pair one below the other. The encoder is an ordinary
one under its usual name, so that layout, masks, surgery and packing work as in any other model.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Callable
from typing import Any

from torch import nn
from transformers import AutoConfig, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

from sparsebert import registry
from sparsebert.counts import ROWS_A_TEXT
from sparsebert.models.families import HeadName, ModelFamily, family_of
from sparsebert.models.layout import base_of
from sparsebert.models.pair import PairClassificationHead, PairSimilarityHead, head_dropout
from sparsebert.models.shrunk import model_class, stock_model_class

SENTIMENT, PARAPHRASE, SIMILARITY = "sentiment", "paraphrase", "similarity"
"""The heads of a multitask model."""


def run_head(model: PreTrainedModel, head: Any, labels: Any, inputs: dict[str, Any]) -> SequenceClassifierOutput:
    """What a head makes of the embeddings of a batch, and its loss where there are labels.

    A text's embedding is what the family's own classifier reads: BERT's pooler output, else the first token of the last
    layer.
    """
    encoder: nn.Module = base_of(model)
    found: Any = encoder(**inputs)
    pooled = found.get("pooler_output")
    outputs = head(found.last_hidden_state[:, 0] if pooled is None else pooled)
    loss = None if labels is None else head.loss(outputs, labels)
    return SequenceClassifierOutput(
        loss=loss, logits=outputs, hidden_states=found.hidden_states, attentions=found.attentions
    )


def build_class(family: ModelFamily, task: HeadName) -> type[PreTrainedModel]:
    """The class of a family for one of the three heads that transformers does not have."""
    return _multitask_class(family) if task == "multitask" else _pair_class(family, task)


@functools.cache
def _pair_class(family: ModelFamily, task: HeadName) -> type[PreTrainedModel]:
    encoder = stock_model_class(family, "base")
    stock = encoder.__mro__[1]
    pooler = {"add_pooling_layer": family.classifier_pools} if family.optional_pooler else {}

    def init(self: Any, config: PretrainedConfig, *args: Any, **kwargs: Any) -> None:
        stock.__init__(self, config, *args, **kwargs)
        vars(self)[ROWS_A_TEXT] = 2
        setattr(self, self.base_model_prefix, encoder(config, **pooler))
        similar = task == "pair_similarity"
        self.classifier = (
            PairSimilarityHead(config) if similar else PairClassificationHead(config, config.num_labels or 2)
        )
        self.post_init()

    def run(model: Any, labels: Any, inputs: dict[str, Any]) -> SequenceClassifierOutput:
        return run_head(model, model.classifier, labels, inputs)

    name = dict(family.model_classes)[task].rpartition(":")[2]
    text = f"{encoder.__name__} that reads the sides of a pair apart."
    return made_class(__name__, name, stock, text, init, forward_of(run))


@functools.cache
def _multitask_class(family: ModelFamily) -> type[PreTrainedModel]:
    stock = stock_model_class(family, "classification")

    def init(self: Any, config: PretrainedConfig, *args: Any, **kwargs: Any) -> None:
        stock.__init__(self, config, *args, **kwargs)
        self.paraphrase, self.similarity = PairClassificationHead(config, 2), PairSimilarityHead(config)
        set_head_dropout(self, head_dropout(config))
        self.post_init()

    def run(model: Any, labels: Any, inputs: dict[str, Any]) -> SequenceClassifierOutput:
        head = inputs.pop("head", SENTIMENT)
        if head != SENTIMENT:
            return run_head(model, model.get_submodule(head), labels, inputs)
        return stock.forward(model, labels=labels, **inputs)

    name = dict(family.model_classes)["multitask"].rpartition(":")[2]
    text = f"{stock.__name__} with heads for paraphrase and similarity beside it."
    return made_class(__name__, name, stock, text, init, forward_of(run))


def made_class(module: str, name: str, stock: Any, text: str, init: Any, forward: Any) -> type[PreTrainedModel]:
    """A class of this name, of this module, made from `stock`."""
    namespace = {"__doc__": text, "__init__": init, "forward": forward, "__module__": module}
    return types.new_class(name, (stock,), exec_body=lambda body: body.update(namespace))


def forward_of(run: Callable[[Any, Any, dict[str, Any]], SequenceClassifierOutput]) -> Any:
    """A forward pass with the arguments that transformers looks for: `run` has the model, the labels, what is given."""

    def forward(
        self: Any,
        input_ids: Any = None,
        attention_mask: Any = None,
        token_type_ids: Any = None,
        labels: Any = None,
        **kwargs: Any,
    ) -> SequenceClassifierOutput:
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask, "token_type_ids": token_type_ids, **kwargs}
        return run(self, labels, {name: value for name, value in inputs.items() if value is not None})

    return forward


def set_head_dropout(model: PreTrainedModel, rate: float) -> None:
    """Give every dropout outside the encoder this rate, 0-1, also in the configuration."""
    inside = set(base_of(model).modules())
    for module in model.modules():
        if isinstance(module, nn.Dropout) and module not in inside:
            module.p = rate
    vars(model.config)["head_dropout"] = rate


class AutoModelForHead:
    """Loads the class for one head that fits a configuration, as the Auto classes of transformers do for theirs."""

    def __init__(self, task: HeadName) -> None:
        self._task: HeadName = task

    def from_pretrained(self, folder: Any, *, config: PretrainedConfig | None = None, **options: Any) -> Any:
        """As that of transformers."""
        options.pop("trust_remote_code", None)
        config = config or AutoConfig.from_pretrained(folder, trust_remote_code=False)
        return self._class(config).from_pretrained(folder, config=config, **options)

    def from_config(self, config: PretrainedConfig, *, trust_remote_code: bool = False, **options: Any) -> Any:
        """As that of transformers."""
        return self._class(config)._from_config(config, **options)

    def _class(self, config: PretrainedConfig) -> Any:
        family = family_of(config)
        build = model_class if config.model_type.startswith(registry.SHRUNK_PREFIX) else stock_model_class
        return build(family, self._task)


def __getattr__(name: str) -> Any:
    for family in (registry.get("family", key) for key in registry.names("family")):
        for task, dotted in family.model_classes:
            if dotted == f"{__name__}:{name}":
                return build_class(family, task)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

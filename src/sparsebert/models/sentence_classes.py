"""Models whose output is the vector of a text, for every family: `BertForEmbeddings`, `RobertaForEmbeddings` and so on.

The encoder is an ordinary one under its usual name, so that layout, masks, surgery and packing work as in any other
model. Saved, it is a base model with the files of sentence-transformers beside it (see models/sentence_folder.py).
"""

from __future__ import annotations

import functools
from typing import Any

from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

from sparsebert import registry
from sparsebert.models.families import ModelFamily
from sparsebert.models.layout import base_of
from sparsebert.models.pair_classes import forward_of, made_class
from sparsebert.models.sentence import vector_of
from sparsebert.models.shrunk import stock_model_class


@functools.cache
def _class(family: ModelFamily) -> type[PreTrainedModel]:
    encoder = stock_model_class(family, "base")
    stock = encoder.__mro__[1]
    without = {"add_pooling_layer": False} if family.optional_pooler else {}

    def init(self: Any, config: PretrainedConfig, *args: Any, **kwargs: Any) -> None:
        stock.__init__(self, config, *args, **kwargs)
        setattr(self, self.base_model_prefix, encoder(config, **without))
        self.post_init()

    name = dict(family.model_classes)["embeddings"].rpartition(":")[2]
    text = f"{encoder.__name__} that gives one vector for a text."
    return made_class(__name__, name, stock, text, init, forward_of(_embed))


def _embed(model: PreTrainedModel, labels: Any, inputs: dict[str, Any]) -> SequenceClassifierOutput:
    """The vectors as `logits` [texts, dimensions], and how far they are from `labels` where there are any.

    Labels [pairs, 2 * dimensions] are of pairs, each of which is two of the texts.
    """
    from sparsebert.tasks.embedding_pairs import EMBEDDING_PAIRS
    from sparsebert.tasks.embeddings import EMBEDDINGS

    encoder: Any = base_of(model)
    found = encoder(**inputs)
    how = vector_of(model.config)
    assert how is not None, "the configuration says how vectors are made"
    vectors = how.of(found.last_hidden_state, inputs["attention_mask"])
    output = SequenceClassifierOutput(logits=vectors, hidden_states=found.hidden_states, attentions=found.attentions)
    if labels is not None:
        kind = EMBEDDINGS if len(labels) == len(vectors) else EMBEDDING_PAIRS
        output.loss = kind.loss(kind.outputs(output), labels)
    return output


def __getattr__(name: str) -> Any:
    for family in (registry.get("family", key) for key in registry.names("family")):
        if dict(family.model_classes)["embeddings"] == f"{__name__}:{name}":
            return _class(family)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

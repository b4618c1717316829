"""Models whose output is the vector of a text, for every family: `BertForEmbeddings`, `RobertaForEmbeddings` and so on.

The encoder is an ordinary one under its usual name, so that layout, masks, surgery and packing work as in any other
model. Saved, it is a base model with the files of sentence-transformers beside it (see models/sentence_folder.py).
"""

from __future__ import annotations

import functools
import types
from typing import Any

from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

from sparsebert import registry
from sparsebert.models.families import ModelFamily
from sparsebert.models.layout import base_of
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

    def forward(
        self: Any,
        input_ids: Any = None,
        attention_mask: Any = None,
        token_type_ids: Any = None,
        labels: Any = None,
        **kwargs: Any,
    ) -> SequenceClassifierOutput:
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask, "token_type_ids": token_type_ids, **kwargs}
        return _embed(self, labels, {name: value for name, value in inputs.items() if value is not None})

    name = dict(family.model_classes)["embeddings"].rpartition(":")[2]
    namespace = {
        "__doc__": f"{encoder.__name__} that gives one vector for a text.",
        "__init__": init,
        "forward": forward,
        "__module__": __name__,
    }
    return types.new_class(name, (stock,), exec_body=lambda body: body.update(namespace))


def _embed(model: PreTrainedModel, labels: Any, inputs: dict[str, Any]) -> SequenceClassifierOutput:
    """The vectors as `logits` [texts, dimensions], and how far they are from `labels` where there are any."""
    from sparsebert.tasks.embeddings import EMBEDDINGS

    encoder: Any = base_of(model)
    found = encoder(**inputs)
    how = vector_of(model.config)
    assert how is not None, "the configuration says how vectors are made"
    vectors = how.of(found.last_hidden_state, inputs["attention_mask"])
    loss = None if labels is None else EMBEDDINGS.loss(vectors, labels)
    return SequenceClassifierOutput(
        loss=loss, logits=vectors, hidden_states=found.hidden_states, attentions=found.attentions
    )


def __getattr__(name: str) -> Any:
    for family in (registry.get("family", key) for key in registry.names("family")):
        if dict(family.model_classes)["embeddings"] == f"{__name__}:{name}":
            return _class(family)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""Tiny random models of every family, for all tests.

Biases and norms are random too: ones and zeros hide bugs.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from sparsebert import registry
from sparsebert.models.families import HeadName
from sparsebert.models.shrunk import stock_config_class, stock_model_class
from sparsebert.runtimes.pytorch import EAGER
from sparsebert.runtimes.runtime import ModelInputs, Prepared, Runtime

# Those whose classes in transformers are copies of another's are in FAMILIES alone, not in ARCHITECTURES.
FAMILIES = (
    "bert",
    "roberta",
    "distilbert",
    "electra",
    "modernbert",
    "deberta-v2",
    "xlm-roberta",
    "camembert",
    "mpnet",
    "gte",
    "nomic_bert",
    "eurobert",
    "crammed-bert",
)
ARCHITECTURES = tuple(family for family in FAMILIES if family not in ("xlm-roberta", "camembert", "nomic_bert"))
# Those with a kernel of torch for attention.
WITH_SDPA = tuple(family for family in FAMILIES if family not in ("deberta-v2", "mpnet"))
NAMES = ("input_ids", "attention_mask")
LAYERS, HEADS, NEURONS, HIDDEN, VOCAB = 3, 4, 24, 32, 100

_SIZES: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": HIDDEN,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "intermediate_size": NEURONS,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}
_SPECIAL: dict[str, dict[str, Any]] = {
    "roberta": {"bos_token_id": 1, "eos_token_id": 2},
    "xlm-roberta": {"bos_token_id": 1, "eos_token_id": 2},
    "camembert": {"bos_token_id": 1, "eos_token_id": 2},
    "distilbert": {"hidden_dim": NEURONS},
    "electra": {"embedding_size": 12},
    "modernbert": {
        "attention_bias": True,
        "mlp_bias": True,
        "norm_bias": True,
        "local_attention": 4,
        "layer_types": ["full_attention", "sliding_attention", "full_attention"],
        "bos_token_id": 1,
        "cls_token_id": 1,
        "eos_token_id": 2,
        "sep_token_id": 2,
    },
    "mpnet": {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2},
    # Two heads share a key and a value, so that there are HEADS groups of them.
    "eurobert": {
        "num_attention_heads": 2 * HEADS,
        "num_key_value_heads": HEADS,
        "attention_bias": True,
        "mlp_bias": True,
        "tie_word_embeddings": True,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "mask_token_id": 41,
    },
    "deberta-v2": {
        "relative_attention": True,
        "position_buckets": 8,
        "pos_att_type": ["p2c", "c2p"],
        "share_att_key": False,
        "norm_rel_ebd": "layer_norm",
        "type_vocab_size": 0,
        "position_biased_input": False,
    },
}


def tiny_model(
    family: str, task: HeadName = "classification", seed: int = 0, **config_overrides: Any
) -> PreTrainedModel:
    """A model in evaluation mode, the same for the same arguments, whatever was drawn before.

    `family` is a name in FAMILIES; overrides are values of the family's configuration, `attn_implementation` included.
    """
    described = registry.get("family", family)
    values = _SIZES | _SPECIAL.get(family, {}) | {"num_labels": 3} | config_overrides
    if family == "distilbert":
        values.pop("intermediate_size")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = stock_model_class(described, task)(stock_config_class(described)(**values))
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                centre = 1.0 if parameter.dim() == 1 and name.endswith("weight") else 0.0
                parameter.normal_(centre, 0.3 if parameter.dim() == 1 else 0.2)
    return model.eval()


def tiny_batch(seed: int = 0, rows: int = 3, length: int = 12) -> dict[str, torch.Tensor]:
    """Random tokens [rows, length]; every row but the first ends in padding."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, VOCAB, (rows, length), generator=generator)
    mask = torch.ones_like(ids)
    for row in range(1, rows):
        mask[row, length - 2 * row :] = 0
    return {"input_ids": ids * mask, "attention_mask": mask}


class Logits(nn.Module):
    """A model as exporters want it: tensors named NAMES in, one tensor out."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Logits [batch, labels]."""
        return self.model(input_ids=input_ids, attention_mask=attention_mask).logits


class AsOneProgram(Runtime):
    """Plain torch that does not let its layers be called one by one, as compiled programs do not."""

    def prepare(self, model: PreTrainedModel, inputs: ModelInputs) -> Prepared:
        """Of any shape."""
        return replace(EAGER.prepare(model, inputs), module=None)


AS_ONE_PROGRAM = AsOneProgram()

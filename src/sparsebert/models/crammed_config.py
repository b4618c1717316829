"""The configuration of crammed BERT, and of its form with fast feedforward layers. Needs no torch until it is used."""

from __future__ import annotations

import importlib

from huggingface_hub.dataclasses import strict
from transformers.configuration_utils import PretrainedConfig

from sparsebert.errors import UserError
from sparsebert.models.fff_sizes import parse_fff

MODEL_TYPE = "crammed-bert"
# The table of positions lies in no file, so that nothing else would stop one that takes all memory.
_MOST_POSITIONS = 2**16


@strict
class CrammedBertConfig(PretrainedConfig):
    """A crammed BERT (Geiping & Goldstein 2023, arXiv:2212.14034, section 4.3).

    Defaults are those of the paper's code, but for what is said here: layers 16, hidden 768, heads 12, vocabulary
    32768, and 128 positions of sinusoids.

    intermediate_size: neurons of the dense feedforward block, which are the columns that its output projection reads;
    0 = layers without a feedforward block. The code counts both halves of a gated block: its 3072 are 1536 here.
    gated: multiply the activated half with a linear one (GEGLU). The final crammed BERT does; that of Belcak &
    Wattenhofer 2023 (arXiv:2311.10770) does not, so that 3072x0 is its dense block, and this is the default.
    fff: size of a fast feedforward layer in place of every dense block, as `512x2`; None = dense blocks, and
    `intermediate_size` has no effect otherwise. Nodes have input biases, as in the code of that paper.
    fff_activation, fff_soft, fff_hardening, fff_balance: activation and `Routing` of all trees.
    hidden_dropout_prob, attention_probs_dropout_prob: 0 as in pretraining; the paper fine-tunes with 0.1.
    classifier_size, classifier_dropout: width of the layer in front of the classifier (`head_dim`), and its dropout.
    initializer_range: standard deviation of all matrices, those of trees included.
    sparse_prediction: in training, only tokens that have a label go through the decoder.

    Raises UserError for values that do not go together.
    """

    model_type = MODEL_TYPE

    vocab_size: int = 32768
    hidden_size: int = 768
    num_hidden_layers: int = 16
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    gated: bool = False
    fff: str | None = None
    fff_activation: str = "gelu"
    fff_soft: bool = False
    fff_hardening: float = 0.0
    fff_balance: float = 0.0
    hidden_dropout_prob: float | int = 0.0
    attention_probs_dropout_prob: float | int = 0.0
    classifier_size: int = 1024
    classifier_dropout: float | int = 0.1
    max_position_embeddings: int = 128
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12
    sparse_prediction: bool = True
    pad_token_id: int | None = 0
    tie_word_embeddings: bool = True

    def __post_init__(self, **kwargs: object) -> None:
        """Check what types cannot say, and make the Auto classes know the models."""
        super().__post_init__(**kwargs)
        if self.num_attention_heads < 1 or self.hidden_size < 2 or self.hidden_size % self.num_attention_heads:
            got = f"{self.hidden_size} and {self.num_attention_heads}"
            raise UserError("The hidden size must be a multiple of the number of attention heads", got=got)
        if self.hidden_size % 2:
            raise UserError("The hidden size must be even, for sines and cosines", got=self.hidden_size)
        if not 1 <= self.max_position_embeddings <= _MOST_POSITIONS:
            got, allowed = self.max_position_embeddings, f"1 to {_MOST_POSITIONS}"
            raise UserError("A model cannot have that many positions", got=got, allowed=allowed)
        if self.intermediate_size < 0:
            raise UserError(
                "A feedforward block cannot have this size", got=self.intermediate_size, allowed="0 or more"
            )
        if self.fff is not None:
            parse_fff(self.fff)
            if self.gated or self.intermediate_size == 0:
                got = "gated" if self.gated else "intermediate_size 0"
                raise UserError(f"Fast feedforward layers of size {self.fff} stand for a plain block", got=got)
        # Not before a configuration is made: the models need torch.
        importlib.import_module("sparsebert.models.shrunk").register_own_models(MODEL_TYPE)

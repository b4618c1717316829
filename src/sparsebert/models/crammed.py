"""Crammed BERT: a pre-norm encoder without biases, made to be pretrained on one device in a day.

Geiping & Goldstein 2023, arXiv:2212.14034, section 4.3; with fast feedforward layers Belcak & Wattenhofer 2023,
arXiv:2311.10770. Modules are named as in the other families, so that pruning, surgery and packing work alike.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers import initialization
from transformers.activations import ACT2FN
from transformers.masking_utils import create_bidirectional_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutput, MaskedLMOutput
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, PreTrainedModel
from transformers.utils.generic import can_return_tuple

from sparsebert.fast_feedforward.layer import FastFeedForward, Routing
from sparsebert.models.crammed_config import CrammedBertConfig
from sparsebert.models.fff_sizes import parse_fff
from sparsebert.tasks.kind import IGNORED

_LOWEST_FREQUENCY = 10000.0


def sinusoids(length: int, hidden: int) -> torch.Tensor:
    """Sines in even and cosines in odd columns [length, hidden] (Vaswani et al. 2017, arXiv:1706.03762, sec. 3.5)."""
    frequencies = _LOWEST_FREQUENCY ** (-torch.arange(0, hidden, 2, dtype=torch.float64) / hidden)
    angles = torch.arange(length, dtype=torch.float64)[:, None] * frequencies
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1).float()


class ScaledSinusoids(nn.Module):
    """Sinusoidal positions times one learned number, hidden^-0.5 at first (Hua et al. 2022, arXiv:2202.10447)."""

    def __init__(self, length: int, hidden: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((1,), hidden**-0.5))
        self.table: torch.Tensor
        self.register_buffer("table", sinusoids(length, hidden), persistent=False)

    def forward(self, length: int) -> torch.Tensor:
        """[length, hidden]."""
        return self.scale * self.table[:length]


class CrammedBertEmbeddings(nn.Module):
    """Words and positions, then a norm."""

    def __init__(self, config: CrammedBertConfig) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size, padding_idx=config.pad_token_id)
        self.position_embeddings = ScaledSinusoids(config.max_position_embeddings, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, input_ids: torch.Tensor | None, inputs_embeds: torch.Tensor | None) -> torch.Tensor:
        """[batch, length, hidden]."""
        if inputs_embeds is None:
            inputs_embeds = self.word_embeddings(input_ids)
        assert inputs_embeds is not None
        # The table stays in float32, whatever type the weights are loaded in.
        positions = self.position_embeddings(inputs_embeds.shape[1]).to(inputs_embeds.dtype)
        return self.dropout(self.LayerNorm(inputs_embeds + positions))


def plain_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs: object,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Context [batch, length, heads, size] and attention weights [batch, heads, length, length], for `eager`."""
    scores = query @ key.transpose(2, 3) * scaling
    weights = (scores if attention_mask is None else scores + attention_mask).softmax(dim=-1)
    weights = F.dropout(weights, dropout, module.training)
    return (weights @ value).transpose(1, 2).contiguous(), weights


class CrammedBertAttention(nn.Module):
    """Multi-head attention of a normed input, with its output projection; no biases."""

    def __init__(self, config: CrammedBertConfig) -> None:
        super().__init__()
        hidden = config.hidden_size
        self.config, self.is_causal = config, False
        self.head_size = hidden // config.num_attention_heads
        self.dropout = config.attention_probs_dropout_prob
        self.query, self.key, self.value, self.output = (nn.Linear(hidden, hidden, bias=False) for _ in range(4))

    def forward(
        self, hidden_states: torch.Tensor, attention_mask: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """[batch, length, hidden], and the attention weights where the implementation gives them."""
        shape = (*hidden_states.shape[:-1], -1, self.head_size)
        query, key, value = (
            project(hidden_states).view(shape).transpose(1, 2) for project in (self.query, self.key, self.value)
        )
        chosen = str(self.config._attn_implementation)
        attend: Callable[..., Any] = ALL_ATTENTION_FUNCTIONS.get_interface(chosen, plain_attention)
        dropout = self.dropout if self.training else 0.0
        context, weights = attend(
            self, query, key, value, attention_mask, dropout=dropout, scaling=self.head_size**-0.5
        )
        return self.output(context.reshape(*hidden_states.shape[:-1], -1)), weights


class CrammedBertFeedForward(nn.Module):
    """A dense block of a normed input, gated or not; no biases."""

    def __init__(self, config: CrammedBertConfig) -> None:
        super().__init__()
        hidden, neurons = config.hidden_size, config.intermediate_size
        self.up = nn.Linear(hidden, neurons, bias=False)
        if config.gated:
            self.gate = nn.Linear(hidden, neurons, bias=False)
        self.activation = ACT2FN[config.hidden_act]
        self.down = nn.Linear(neurons, hidden, bias=False)
        self.gated = config.gated

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """[..., hidden] to [..., hidden]."""
        active = self.activation(self.up(hidden_states))
        return self.down(active * self.gate(hidden_states) if self.gated else active)


class CrammedBertLayer(GradientCheckpointingLayer):
    """Attention, then a feedforward block of the configuration's form, both of normed inputs and on residuals."""

    def __init__(self, config: CrammedBertConfig) -> None:
        super().__init__()
        hidden, eps = config.hidden_size, config.layer_norm_eps
        self.attention_norm = nn.LayerNorm(hidden, eps=eps)
        self.attention = CrammedBertAttention(config)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.has_ffn = config.intermediate_size > 0
        if self.has_ffn:
            self.ffn_norm = nn.LayerNorm(hidden, eps=eps)
            self.ffn = _trees(config, config.fff) if config.fff else CrammedBertFeedForward(config)

    def forward(
        self, hidden_states: torch.Tensor, attention_mask: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """[batch, length, hidden], and the attention weights where the implementation gives them."""
        context, weights = self.attention(self.attention_norm(hidden_states), attention_mask)
        hidden_states = hidden_states + self.dropout(context)
        if self.has_ffn:
            hidden_states = hidden_states + self.dropout(self.ffn(self.ffn_norm(hidden_states)))
        return hidden_states, weights


def _trees(config: CrammedBertConfig, name: str) -> FastFeedForward:
    size = parse_fff(name)
    routing = Routing(config.fff_soft, config.fff_hardening, config.fff_balance)
    return FastFeedForward(config.hidden_size, size.depth, size.trees, config.fff_activation, routing)


class CrammedBertPreTrainedModel(PreTrainedModel):
    """What its models have in common."""

    config_class = CrammedBertConfig
    config: CrammedBertConfig
    base_model_prefix = "crammed_bert"
    supports_gradient_checkpointing = True
    # Losses are means over a batch, so that the Trainer has to average them over accumulated batches.
    accepts_loss_kwargs = False
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Matrices as everywhere in transformers; trees as matrices, which the paper's code does to them too."""
        super()._init_weights(module)
        if isinstance(module, FastFeedForward):
            for matrix in (module.w_in, module.w_out):
                initialization.normal_(matrix, std=self.config.initializer_range)
            initialization.zeros_(module.b_in)
        if isinstance(module, ScaledSinusoids):
            length, hidden = module.table.shape
            initialization.constant_(module.scale, hidden**-0.5)
            initialization.copy_(module.table, sinusoids(length, hidden))


class CrammedBertModel(CrammedBertPreTrainedModel):
    """The encoder."""

    def __init__(self, config: CrammedBertConfig) -> None:
        super().__init__(config)
        self.embeddings = CrammedBertEmbeddings(config)
        self.layers = nn.ModuleList(CrammedBertLayer(config) for _ in range(config.num_hidden_layers))
        self.final_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """Of words."""
        return self.embeddings.word_embeddings

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Of words."""
        self.embeddings.set_submodule("word_embeddings", value)

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        **kwargs: object,
    ) -> BaseModelOutput:
        """Hidden states [batch, length, hidden] of input_ids [batch, length], or of inputs_embeds.

        There are no token types: `token_type_ids` has no effect. The first of `hidden_states` is of the embeddings, the
        last one is normed. Raises ValueError unless there is one sort of input, of a length that has positions.
        """
        _check_inputs(input_ids, inputs_embeds, self.config.max_position_embeddings)
        states = self.embeddings(input_ids, inputs_embeds)
        mask = create_bidirectional_mask(self.config, states, attention_mask)
        every, maps = [states], []
        for layer in self.layers:
            states, weights = layer(states, mask)
            every.append(states)
            maps.append(weights)
        every[-1] = states = self.final_norm(states)
        wants_states = self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
        wants_maps = self.config.output_attentions if output_attentions is None else output_attentions
        return BaseModelOutput(
            last_hidden_state=states,
            hidden_states=tuple(every) if wants_states else None,
            attentions=tuple(maps) if wants_maps else None,
        )


def _check_inputs(input_ids: torch.Tensor | None, inputs_embeds: torch.Tensor | None, longest: int) -> None:
    given = [one for one in (input_ids, inputs_embeds) if one is not None]
    if len(given) != 1:
        raise ValueError("give exactly one of input_ids and inputs_embeds")
    # A program that is being compiled or exported may have no length yet.
    if not torch.compiler.is_compiling() and given[0].shape[1] > longest:
        raise ValueError(f"the model has {longest} positions, the input is {given[0].shape[1]} tokens long")


class CrammedBertForMaskedLM(CrammedBertPreTrainedModel):
    """The encoder and a decoder with the matrix of the word embeddings, with nothing between them and no bias."""

    _tied_weights_keys = {"decoder.weight": "crammed_bert.embeddings.word_embeddings.weight"}  # noqa: RUF012

    def __init__(self, config: CrammedBertConfig) -> None:
        super().__init__(config)
        self.crammed_bert = CrammedBertModel(config)
        self.decoder = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def get_output_embeddings(self) -> nn.Module:
        """The decoder."""
        return self.decoder

    def set_output_embeddings(self, new_embeddings: nn.Linear) -> None:
        """The decoder."""
        self.decoder = new_embeddings

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> MaskedLMOutput:
        """Logits [batch, length, vocabulary], and the mean cross-entropy of tokens with another label than -100.

        Where gradients are recorded, with labels and `sparse_prediction`, logits are of these tokens alone [tokens,
        vocabulary], in order; the loss is the same (arXiv:2212.14034, section 4.3).
        """
        found = self.crammed_bert(input_ids, attention_mask, **kwargs)
        states = found.last_hidden_state
        if labels is not None and torch.is_grad_enabled() and self.config.sparse_prediction:
            masked = labels != IGNORED
            states, labels = states[masked], labels[masked]
        logits = self.decoder(states)
        loss = (
            None if labels is None else F.cross_entropy(logits.flatten(0, -2), labels.flatten(), ignore_index=IGNORED)
        )
        return MaskedLMOutput(loss=loss, logits=logits, hidden_states=found.hidden_states, attentions=found.attentions)

"""Where each family keeps what is cut: data for `modeling_sparsebert`, beside which a copy of this file lies.

License: Apache-2.0.
"""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Places:
    """Where a family keeps what is cut: names of modules inside a layer, and of `layers` under the base model.

    A projection named several times holds so many parts, one after another; one that a model lacks is left out.
    `attention` is the module that computes attention, `counts` and `widths` its attributes for the number of heads and
    for heads times head size. `ffn_block` is the module that is the feedforward block and nothing else, if there is
    one; `first_norm` a norm that the stock model leaves out of its first layer. `takes_bias`: the third argument of
    attention is a bias for the heads of all layers. `lacks`: ends of names of classes that transformers has not.
    """

    name: str
    stem: str
    layers: str
    attention: str
    inputs: tuple[str, ...]
    output: str
    ffn_inputs: tuple[str, ...]
    ffn_output: str
    activation: str
    counts: tuple[str, ...] = ()
    widths: tuple[str, ...] = ()
    ffn_block: str = ""
    first_norm: str = ""
    takes_bias: bool = False
    lacks: tuple[str, ...] = ()


def _like_bert(name: str, stem: str, projections: tuple[str, ...] = ("query", "key", "value")) -> Places:
    return Places(
        name,
        stem,
        layers="encoder.layer",
        attention="attention.self",
        inputs=tuple(f"attention.self.{projection}" for projection in projections),
        output="attention.output.dense",
        ffn_inputs=("intermediate.dense",),
        ffn_output="output.dense",
        activation="intermediate.intermediate_act_fn",
        counts=("num_attention_heads",),
        widths=("all_head_size",),
    )


def _like_llama(name: str, stem: str) -> Places:
    return Places(
        name,
        stem,
        layers="layers",
        attention="self_attn",
        inputs=("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
        output="self_attn.o_proj",
        ffn_inputs=("mlp.gate_proj", "mlp.up_proj"),
        ffn_output="mlp.down_proj",
        activation="mlp.act_fn",
        ffn_block="mlp",
        lacks=("ForQuestionAnswering",),
    )


PLACES = (
    _like_bert("bert", "Bert"),
    _like_bert("roberta", "Roberta"),
    _like_bert("xlm-roberta", "XLMRoberta"),
    _like_bert("camembert", "Camembert"),
    _like_bert("electra", "Electra"),
    _like_bert("deberta-v2", "DebertaV2", ("query_proj", "key_proj", "value_proj", "pos_key_proj", "pos_query_proj")),
    Places(
        "distilbert",
        "DistilBert",
        layers="transformer.layer",
        attention="attention",
        inputs=("attention.q_lin", "attention.k_lin", "attention.v_lin"),
        output="attention.out_lin",
        ffn_inputs=("ffn.lin1",),
        ffn_output="ffn.lin2",
        activation="ffn.activation",
        counts=("n_heads",),
    ),
    Places(
        "modernbert",
        "ModernBert",
        layers="layers",
        attention="attn",
        inputs=("attn.Wqkv",) * 3,
        output="attn.Wo",
        ffn_inputs=("mlp.Wi",) * 2,
        ffn_output="mlp.Wo",
        activation="mlp.act",
        ffn_block="mlp",
        first_norm="attn_norm",
    ),
    replace(
        _like_bert("mpnet", "MPNet"),
        attention="attention.attn",
        inputs=("attention.attn.q", "attention.attn.k", "attention.attn.v"),
        output="attention.attn.o",
        takes_bias=True,
    ),
    _like_llama("nomic_bert", "NomicBert"),
    _like_llama("gte", "Gte"),
    _like_llama("eurobert", "EuroBert"),
)

"""The supported model families as plain data: where each keeps its projections, and what its classes are called.

Adding a family means adding one constant here and one line in the registry.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from sparsebert import registry
from sparsebert.errors import UserError
from sparsebert.models.unsupported import unsupported

if TYPE_CHECKING:
    from transformers import PretrainedConfig

TAGGER, ANSWERER = "ForTokenClassification", "ForQuestionAnswering"
"""How the names of classes end that classify tokens, and that find answers in texts."""

HeadName = Literal[
    "base",
    "classification",
    "tokens",
    "spans",
    "masked_lm",
    "pair_classification",
    "pair_similarity",
    "multitask",
    "embeddings",
]


@dataclass(frozen=True)
class AttentionParts:
    """Names inside a layer. A module named several times in `inputs` holds its parts one after another.

    `inputs` starts with query, key and value; what follows exists in some checkpoints only. `core` is the module
    that is replaced when no head is left; `counts` and `widths` are its attributes that hold the number of heads, and
    heads times head size. `end`: see FfnParts. `takes_bias`: the third argument of `core` is a bias [batch, heads,
    length, length] that the encoder makes once for the heads of all layers.
    """

    inputs: tuple[str, ...]
    output: str
    core: str
    counts: tuple[str, ...] = ()
    widths: tuple[str, ...] = ()
    end: str = ""
    takes_bias: bool = False


@dataclass(frozen=True)
class FfnParts:
    """Names inside a layer: up (and gate) projections, the down projection, and the activation on the up part.

    What follows the first of `inputs` exists in some checkpoints only, and all of it in those with dense blocks only.
    `block` is the module that is these and nothing else, where the family has one. `end` is one that holds `output`,
    `LayerNorm` and `dropout`, and is called with what `output` reads and the residual.
    """

    inputs: tuple[str, ...]
    output: str
    activation: str
    block: str = ""
    end: str = ""


@dataclass(frozen=True)
class ModelFamily:
    """One model family.

    `layers` is the module list under the base model. `heads_field`, `neurons_field` and `layers_field` are the
    names of these numbers in the stock configuration, `per_layer_fields` its lists with one entry a layer. Where heads
    share keys and values, only all that share them can be cut: then `heads_field` counts such groups, and
    `queries_field` names the number of heads that ask. `head_size_field` names the size of a head, if the hidden size
    does not give it.
    `first_norm` names a norm that the stock model leaves out of its first layer only, `after_first` a module under
    the base model that works on the first layer's output; `layer_attributes` are read from layers by their caller.
    `classifier` names, under a model that classifies texts, the projection that has one row a label; `classifier_pools`
    says that this model's base has a pooler.
    Positions have a table, or `rotary` turns of queries and keys, which end nowhere; `positions_field` names the switch
    of models with and without a table. Those of a table count from 0, or `after_padding` from the id of the padding
    token on: the one in the configuration, or `padding_id` where the stock model has a fixed one. `segments`: it takes
    token types. `fixed_width`: positions are computed for the hidden size, so that no dimension of it can go.
    """

    name: str
    layers: str
    attention: AttentionParts
    ffn: FfnParts
    config_class: str
    model_classes: tuple[tuple[HeadName, str], ...]
    heads_field: str = "num_attention_heads"
    neurons_field: str = "intermediate_size"
    layers_field: str = "num_hidden_layers"
    queries_field: str = ""
    head_size_field: str = ""
    per_layer_fields: tuple[str, ...] = ()
    first_norm: str = ""
    after_first: str = ""
    layer_attributes: tuple[str, ...] = ()
    layer_gives_tuple: bool = False
    optional_pooler: bool = False
    classifier: str = "classifier"
    classifier_pools: bool = False
    rotary: bool = False
    positions_field: str = ""
    after_padding: bool = False
    padding_id: int | None = None
    segments: bool = True
    fixed_width: bool = False

    @property
    def is_own(self) -> bool:
        """Whether its stock classes are this package's, not those of transformers."""
        return self.config_class.startswith("sparsebert.")

    def model_class(self, task: HeadName) -> str:
        """Dotted name of the stock model class for a task."""
        return dict(self.model_classes)[task]

    def has_head(self, task: str) -> bool:
        """Whether there is a stock model class for a task: transformers lacks some."""
        return task in dict(self.model_classes)

    def check_head(self, task: str) -> None:
        """Raises UserError, naming the families that have it, for a head that this one lacks."""
        if not self.has_head(task):
            having = [name for name in registry.names("family") if registry.get("family", name).has_head(task)]
            raise UserError(f"Models of the family {self.name} have no head for {task}", allowed=", ".join(having))

    def head_size(self, config: PretrainedConfig) -> int:
        """Columns of the attention's output projection that belong to one head, or to one group of heads."""
        together = self.heads_together(config)
        own: int | None = vars(config).get(self.head_size_field) if self.head_size_field else None
        return (own or config.hidden_size // (together * getattr(config, self.heads_field))) * together

    def heads_together(self, config: PretrainedConfig) -> int:
        """How many heads share keys and values, so that they can only be cut together; 1 where none do."""
        return getattr(config, self.queries_field) // getattr(config, self.heads_field) if self.queries_field else 1


def family_of(config: PretrainedConfig) -> ModelFamily:
    """The family of a stock or a shrunk configuration. Raises UserError, listing the families, for any other."""
    return family_named(config.model_type)


def family_named(model_type: str) -> ModelFamily:
    """The family of a `model_type` as configurations carry it. Raises UserError for any other."""
    name = model_type.removeprefix(registry.SHRUNK_PREFIX)
    if name not in registry.names("family"):
        raise unsupported(model_type)
    return registry.get("family", name)


def is_shrunk(config: PretrainedConfig) -> bool:
    """Whether the model is of one of the package's own classes."""
    return config.model_type.startswith(registry.SHRUNK_PREFIX)


def _classes(module: str, stem: str) -> tuple[tuple[HeadName, str], ...]:
    return _classes_in(f"transformers.models.{module}.modeling_{module}", stem)


def _classes_in(where: str, stem: str, heads: str = "") -> tuple[tuple[HeadName, str], ...]:
    """Classes of a module; those for tasks are in another one, `heads`, if that is named."""
    own = "sparsebert.models.pair_classes"
    return (
        ("base", f"{where}:{stem}Model"),
        ("classification", f"{heads or where}:{stem}ForSequenceClassification"),
        ("tokens", f"{heads or where}:{stem}ForTokenClassification"),
        ("spans", f"{heads or where}:{stem}ForQuestionAnswering"),
        ("masked_lm", f"{where}:{stem}ForMaskedLM"),
        ("pair_classification", f"{own}:{stem}ForPairClassification"),
        ("pair_similarity", f"{own}:{stem}ForPairSimilarity"),
        ("multitask", f"{own}:{stem}ForMultitask"),
        ("embeddings", f"sparsebert.models.sentence_classes:{stem}ForEmbeddings"),
    )


def _without_spans(classes: tuple[tuple[HeadName, str], ...]) -> tuple[tuple[HeadName, str], ...]:
    """Those of a family for which transformers has no class that finds answers."""
    return tuple((head, dotted) for head, dotted in classes if head != "spans")


def _config(module: str, stem: str) -> str:
    return f"transformers.models.{module}.configuration_{module}:{stem}Config"


_BERT_ATTENTION = AttentionParts(
    inputs=("attention.self.query", "attention.self.key", "attention.self.value"),
    output="attention.output.dense",
    core="attention.self",
    counts=("num_attention_heads",),
    widths=("all_head_size",),
    end="attention.output",
)
_BERT_FFN = FfnParts(
    inputs=("intermediate.dense",),
    output="output.dense",
    activation="intermediate.intermediate_act_fn",
    end="output",
)

BERT = ModelFamily(
    name="bert",
    layers="encoder.layer",
    attention=_BERT_ATTENTION,
    ffn=_BERT_FFN,
    config_class=_config("bert", "Bert"),
    model_classes=_classes("bert", "Bert"),
    optional_pooler=True,
    classifier_pools=True,
)

ROBERTA = ModelFamily(
    name="roberta",
    layers="encoder.layer",
    attention=_BERT_ATTENTION,
    ffn=_BERT_FFN,
    config_class=_config("roberta", "Roberta"),
    model_classes=_classes("roberta", "Roberta"),
    classifier="classifier.out_proj",
    optional_pooler=True,
    after_padding=True,
)

XLM_ROBERTA = replace(
    ROBERTA,
    name="xlm-roberta",
    config_class=_config("xlm_roberta", "XLMRoberta"),
    model_classes=_classes("xlm_roberta", "XLMRoberta"),
)

CAMEMBERT = replace(
    ROBERTA,
    name="camembert",
    config_class=_config("camembert", "Camembert"),
    model_classes=_classes("camembert", "Camembert"),
)

ELECTRA = ModelFamily(
    name="electra",
    layers="encoder.layer",
    attention=_BERT_ATTENTION,
    ffn=_BERT_FFN,
    config_class=_config("electra", "Electra"),
    model_classes=_classes("electra", "Electra"),
    classifier="classifier.out_proj",
)

DISTILBERT = ModelFamily(
    name="distilbert",
    layers="transformer.layer",
    attention=AttentionParts(
        inputs=("attention.q_lin", "attention.k_lin", "attention.v_lin"),
        output="attention.out_lin",
        core="attention",
        counts=("n_heads",),
    ),
    ffn=FfnParts(inputs=("ffn.lin1",), output="ffn.lin2", activation="ffn.activation"),
    config_class=_config("distilbert", "DistilBert"),
    model_classes=_classes("distilbert", "DistilBert"),
    heads_field="n_heads",
    neurons_field="hidden_dim",
    layers_field="n_layers",
    segments=False,
)

MODERNBERT = ModelFamily(
    name="modernbert",
    layers="layers",
    attention=AttentionParts(inputs=("attn.Wqkv", "attn.Wqkv", "attn.Wqkv"), output="attn.Wo", core="attn"),
    ffn=FfnParts(inputs=("mlp.Wi", "mlp.Wi"), output="mlp.Wo", activation="mlp.act", block="mlp"),
    config_class=_config("modernbert", "ModernBert"),
    model_classes=_classes("modernbert", "ModernBert"),
    per_layer_fields=("layer_types",),
    first_norm="attn_norm",
    layer_attributes=("attention_type",),
    rotary=True,
    segments=False,
)

DEBERTA_V2 = ModelFamily(
    name="deberta-v2",
    layers="encoder.layer",
    attention=AttentionParts(
        inputs=(
            "attention.self.query_proj",
            "attention.self.key_proj",
            "attention.self.value_proj",
            "attention.self.pos_key_proj",
            "attention.self.pos_query_proj",
        ),
        output="attention.output.dense",
        core="attention.self",
        counts=("num_attention_heads",),
        widths=("all_head_size",),
        end="attention.output",
    ),
    ffn=_BERT_FFN,
    config_class=_config("deberta_v2", "DebertaV2"),
    model_classes=_classes("deberta_v2", "DebertaV2"),
    after_first="encoder.conv",
    layer_gives_tuple=True,
    positions_field="position_biased_input",
)

MPNET = ModelFamily(
    name="mpnet",
    layers="encoder.layer",
    attention=AttentionParts(
        inputs=("attention.attn.q", "attention.attn.k", "attention.attn.v"),
        output="attention.attn.o",
        core="attention.attn",
        counts=("num_attention_heads",),
        widths=("all_head_size",),
        takes_bias=True,
    ),
    ffn=_BERT_FFN,
    config_class=_config("mpnet", "MPNet"),
    model_classes=_classes("mpnet", "MPNet"),
    classifier="classifier.out_proj",
    layer_gives_tuple=True,
    optional_pooler=True,
    after_padding=True,
    padding_id=1,
    segments=False,
)

GTE = ModelFamily(
    name="gte",
    layers="layers",
    attention=AttentionParts(
        inputs=("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"), output="self_attn.o_proj", core="self_attn"
    ),
    ffn=FfnParts(inputs=("mlp.gate_proj", "mlp.up_proj"), output="mlp.down_proj", activation="mlp.act_fn", block="mlp"),
    config_class=_config("gte", "Gte"),
    model_classes=_without_spans(_classes("gte", "Gte")),
    head_size_field="head_dim",
    optional_pooler=True,
    classifier_pools=True,
    rotary=True,
)

NOMIC_BERT = replace(
    GTE,
    name="nomic_bert",
    config_class=_config("nomic_bert", "NomicBert"),
    model_classes=_without_spans(_classes("nomic_bert", "NomicBert")),
)

EUROBERT = replace(
    GTE,
    name="eurobert",
    config_class=_config("eurobert", "EuroBert"),
    model_classes=_without_spans(_classes("eurobert", "EuroBert")),
    heads_field="num_key_value_heads",
    queries_field="num_attention_heads",
    optional_pooler=False,
    classifier_pools=False,
    segments=False,
)

CRAMMED_BERT = ModelFamily(
    name="crammed-bert",
    layers="layers",
    attention=AttentionParts(
        inputs=("attention.query", "attention.key", "attention.value"), output="attention.output", core="attention"
    ),
    ffn=FfnParts(inputs=("ffn.up", "ffn.gate"), output="ffn.down", activation="ffn.activation", block="ffn"),
    config_class="sparsebert.models.crammed_config:CrammedBertConfig",
    model_classes=_classes_in("sparsebert.models.crammed", "CrammedBert", "sparsebert.models.crammed_heads"),
    fixed_width=True,
    layer_gives_tuple=True,
    segments=False,
)

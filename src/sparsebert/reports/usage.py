"""Code that loads a model of a run, to be copied: the same on the page and on the card."""

from __future__ import annotations

import json
import shlex
from typing import Protocol

from sparsebert.registry import OWN_FAMILIES, SHRUNK_PREFIX

# Ends of the names of classes that no Auto class of transformers loads.
_OWN_HEADS = ("ForPairClassification", "ForPairSimilarity", "ForMultitask")


class Loadable(Protocol):
    """What says which class loads a model: a model of a record, or a configuration."""

    @property
    def model_type(self) -> str | None:
        """Of the configuration; own classes have `sparsebert-` in front."""
        ...

    @property
    def architecture(self) -> str | None:
        """The name of the model's class."""
        ...

    @property
    def thresholds(self) -> object:
        """Of labels; false where it has none of its own."""
        ...


def has_own_head(model: Loadable) -> bool:
    """Whether only this package's `load_model` loads the model with its head."""
    return model.architecture is not None and model.architecture.endswith(_OWN_HEADS)


def needs_sparsebert(model: Loadable) -> bool:
    """Whether the model is of an own class; of a record that does not say it may be, and the import does no harm."""
    if has_own_head(model) or model.model_type is None:
        return True
    return model.model_type.startswith(SHRUNK_PREFIX) or model.model_type in OWN_FAMILIES


def fills_masks(model: Loadable) -> bool:
    """Whether it is a masked language model."""
    return model.architecture is not None and model.architecture.endswith("ForMaskedLM")


def embeds(model: Loadable) -> bool:
    """Whether it gives vectors of texts, and sentence-transformers loads it."""
    return model.architecture is not None and model.architecture.endswith("ForEmbeddings")


def tags_words(model: Loadable) -> bool:
    """Whether it gives a tag to every word."""
    return model.architecture is not None and model.architecture.endswith("ForTokenClassification")


def finds_answers(model: Loadable) -> bool:
    """Whether it finds the answers to questions in texts."""
    return model.architecture is not None and model.architecture.endswith("ForQuestionAnswering")


def asking(folder: str, answers: bool, text: str = '"A sentence."') -> str:
    """The command that asks a model, which finds `answers` or not; `text` is quoted."""
    return f"sparsebert predict {shlex.quote(folder)} {'--file questions.jsonl' if answers else text}"


def answering(folder: str) -> str:
    """Python that asks the model a question about a text, by this package: transformers has no pipeline for that."""
    return (
        "from sparsebert import Predictor\n\n"
        f"ask = Predictor({json.dumps(folder)})\n"
        'print(ask({"text": "A question?", "text_pair": "A text that holds the answer."}))'
    )


def encoding(model: Loadable, folder: str) -> str:
    """Python that loads a model of embeddings by sentence-transformers, and gives the vectors of two texts."""
    return (
        f"{_import(model)}from sentence_transformers import SentenceTransformer\n\n"
        f"model = SentenceTransformer({json.dumps(folder)})\n"
        'vectors = model.encode(["A sentence.", "Another one."])'
    )


def loading(model: Loadable, folder: str) -> str:
    """Python that loads the model and its tokenizer from `folder`, and gives the logits of a text."""
    if has_own_head(model):
        return _loading_with_own_head(folder)
    call = 'logits = model(**tokenizer("A sentence.", return_tensors="pt")).logits'
    if finds_answers(model):
        inputs = 'tokenizer("A question?", "A text that holds the answer.", return_tensors="pt")'
        call = f"output = model(**{inputs})\nstarts, ends = output.start_logits, output.end_logits"
    return (
        f"{_import(model)}from transformers import {_auto(model)}, AutoTokenizer\n\n"
        f"folder = {json.dumps(folder)}\n"
        f"model = {_auto(model)}.from_pretrained(folder)\n"
        "tokenizer = AutoTokenizer.from_pretrained(folder)\n"
        f"{call}"
    )


def _loading_with_own_head(folder: str) -> str:
    return (
        "from sparsebert import load_model\nfrom transformers import AutoTokenizer\n\n"
        f"folder = {json.dumps(folder)}\n"
        "model = load_model(folder)\n"
        "tokenizer = AutoTokenizer.from_pretrained(folder)\n"
        "# Pairs, the second text of each below the first.\n"
        'texts = ["A sentence.", "Another one."]\n'
        'output = model(**tokenizer(texts, padding=True, return_tensors="pt")).logits'
    )


def _auto(model: Loadable) -> str:
    if tags_words(model):
        return "AutoModelForTokenClassification"
    if finds_answers(model):
        return "AutoModelForQuestionAnswering"
    return "AutoModelForMaskedLM" if fills_masks(model) else "AutoModelForSequenceClassification"


def pipeline(model: Loadable, folder: str) -> str:
    """Python that runs the model in a pipeline of transformers, or by this package where there is none."""
    if finds_answers(model):
        return answering(folder)
    if fills_masks(model):
        return (
            f"{_import(model)}from transformers import pipeline\n\n"
            f'fill = pipeline("fill-mask", model={json.dumps(folder)})\n'
            'print(fill(f"A {fill.tokenizer.mask_token} sentence."))'
        )
    if tags_words(model):
        return (
            f"{_import(model)}from transformers import pipeline\n\n"
            f'tag = pipeline("token-classification", model={json.dumps(folder)}, aggregation_strategy="first")\n'
            'print(tag("A sentence about Ada Lovelace."))'
        )
    texts = '["A sentence.", "Another one."]'
    said = f"print(classify({texts}))\n"
    return (
        f"{_import(model)}from transformers import pipeline\n\n"
        f'classify = pipeline("text-classification", model={json.dumps(folder)})\n'
        f"{_deciding(texts) if model.thresholds else said}"
        '# A pair of texts: classify({"text": "A sentence.", "text_pair": "Another one."})'
    )


def _deciding(texts: str) -> str:
    """Lines that give each label from its own probability on, which the pipeline does not know of."""
    return (
        "config = classify.model.config\n"
        "thresholds = dict(zip(config.id2label.values(), config.thresholds))\n"
        f"for scores in classify({texts}, top_k=None):\n"
        '    print([one["label"] for one in scores if one["score"] > thresholds[one["label"]]])\n'
    )


def remote_code(model: Loadable, folder: str) -> str:
    """Python that loads a model of an own class without importing this package first."""
    return (
        f"from transformers import {_auto(model)}\n\n"
        f"model = {_auto(model)}.from_pretrained({json.dumps(folder)}, trust_remote_code=True)"
    )


def _import(model: Loadable) -> str:
    return "import sparsebert  # teaches the Auto classes this model's own class\n" if needs_sparsebert(model) else ""

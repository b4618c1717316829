"""`sparsebert models`: the supported model families, with an example of each, and the runtimes that run them."""

from __future__ import annotations

from sparsebert.cli.errors import cli_errors
from sparsebert.cli.options import DebugOption, JsonOption

EXAMPLES = {
    "bert": "sentence-transformers/all-MiniLM-L6-v2, google-bert/bert-base-uncased",
    "roberta": "FacebookAI/roberta-base",
    "distilbert": "distilbert/distilbert-base-uncased",
    "electra": "google/electra-small-discriminator",
    "modernbert": "answerdotai/ModernBERT-base",
    "deberta-v2": "microsoft/deberta-v3-small",
    "xlm-roberta": "intfloat/multilingual-e5-small, BAAI/bge-m3",
    "camembert": "almanach/camembert-base",
    "mpnet": "sentence-transformers/all-mpnet-base-v2",
    "gte": "alibaba-nlp-community/gte-multilingual-base",
    "nomic_bert": "nomic-ai/nomic-embed-text-v1.5, as transformers saves it",
    "eurobert": "EuroBERT/EuroBERT-210m, as transformers saves it",
    "crammed-bert": "none on the hub: pretrain one",
}


RUNTIMES = {
    "eager": "torch, layer by layer, in float32",
    "eager-bf16": "the same in bfloat16",
    "compile": "torch.compile, in float32, for inputs of one shape",
    "sparse": "torch, with kernels of this package for zeros and trees",
    "sparse-bf16": "the same in bfloat16",
    "onnx": "ONNX Runtime, in float32",
    "onnx-int8": "ONNX Runtime, products of 8 bits, scales by each input",
    "openvino": "OpenVINO, in float32",
    "openvino-bf16": "OpenVINO, in bfloat16",
    "openvino-int8": "OpenVINO, products of 8 bits, scales by texts",
}


def models(as_json: JsonOption = False, debug: DebugOption = False) -> None:
    """List the supported model families, and the runtimes that run them; `doctor` says which of these run here."""
    with cli_errors(debug):
        from sparsebert import registry
        from sparsebert.cli.output import put_json, show, table

        families = [{"family": name, "example": EXAMPLES[name]} for name in registry.names("family")]
        runtimes = [{"runtime": name, "is": RUNTIMES[name]} for name in registry.names("runtime")]
        if as_json:
            put_json({"families": families, "runtimes": runtimes})
            return
        rows = table("Family", "For example")
        for one in families:
            rows.add_row(one["family"], one["example"])
        show(rows)
        ways = table("Runtime", "What it is")
        for way in runtimes:
            ways.add_row(way["runtime"], way["is"])
        show(ways)

"""`sparsebert models`: the supported model families, with an example of each."""

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
    "crammed-bert": "none on the hub: pretrain one",
}


def models(as_json: JsonOption = False, debug: DebugOption = False) -> None:
    """List the supported model families."""
    with cli_errors(debug):
        from sparsebert import registry
        from sparsebert.cli.output import put_json, show, table

        found = [{"family": name, "example": EXAMPLES[name]} for name in registry.names("family")]
        if as_json:
            put_json(found)
            return
        rows = table("Family", "For example")
        for one in found:
            rows.add_row(one["family"], one["example"])
        show(rows)

"""The task table."""

import subprocess
import sys

import pytest

from sparsebert.errors import UserError
from sparsebert.tasks.table import task_names, task_spec

PACKAGED = ["reviews", "review-domains", "entities"]
GLUE = ["cola", "sst2", "mrpc", "stsb", "qqp", "mnli", "qnli", "rte", "wnli"]
CS224N = ["sst5", "quora", "sts", "cfimdb"]
WITHOUT_LABELS = ["embeddings"]


def test_three_packaged_tasks_the_nine_of_glue_four_of_cs224n_and_embeddings():
    assert task_names() == [*PACKAGED, *GLUE, *CS224N, *WITHOUT_LABELS]


def test_specs_are_consistent():
    for name in task_names():
        spec = task_spec(name)
        assert spec.name == name
        assert len(spec.columns) in (1, 2)
        assert (spec.kind in ("regression", "pair_similarity", "embeddings")) == (spec.labels == ())
        assert spec.main_metric == spec.metrics[0]
        assert spec.source == (() if name in PACKAGED + CS224N + WITHOUT_LABELS else ("nyu-mll/glue", name))


@pytest.mark.parametrize(
    ("name", "labels", "main"),
    [
        ("cola", 2, "matthews"),
        ("entities", 9, "entity_f1"),
        ("mrpc", 2, "f1"),
        ("stsb", 0, "pearson"),
        ("mnli", 3, "accuracy"),
        ("sst5", 5, "accuracy"),
        ("sts", 0, "pearson"),
    ],
)
def test_labels_and_main_metric(name, labels, main):
    assert len(task_spec(name).labels) == labels
    assert task_spec(name).main_metric == main


def test_unknown_task_names_the_nearest():
    with pytest.raises(
        UserError, match=r"Unknown task 'mlni'.*allowed: reviews, review-domains, entities, cola.*Did you mean 'mnli'"
    ):
        task_spec("mlni")


def test_the_table_imports_neither_torch_nor_datasets():
    code = "import sys, sparsebert.tasks.table; sys.exit(bool({'torch', 'datasets', 'pyarrow'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

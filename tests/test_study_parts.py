"""Studies of parts of one model: criteria, what is lost without a part, embeddings; numbers by hand or by scipy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from sparsebert import registry
from sparsebert.data.load import load_task
from sparsebert.errors import UserError
from sparsebert.models.layout import layout_of
from sparsebert.models.load import load_model, load_tokenizer, save_model
from sparsebert.models.source import ModelSource, resolve
from sparsebert.models.surgeon import shrink
from sparsebert.pruning.successive import without_layers
from sparsebert.reports.charts import HeatPanel, LinePanel
from sparsebert.reports.study import StudyResult
from sparsebert.studies.criteria_agreement import GroupRanks, criteria_agreement
from sparsebert.studies.embedding_magnitudes import TokenEmbeddings, embedding_magnitudes
from sparsebert.studies.group_sensitivity import RemovedPart, group_sensitivity
from sparsebert.studies.ranked_units import ranked_units
from sparsebert.studies.ranks import rank_correlation
from sparsebert.studies.removed_parts import removed_parts
from sparsebert.studies.task_rows import TokenRows, task_model, token_rows
from sparsebert.studies.token_embeddings import token_embeddings
from sparsebert.tasks.classification import CLASSIFICATION
from sparsebert.training.evaluate import predict_logits
from tiny import HEADS, LAYERS
from tiny_run import WORDS, assert_refused, run_cli, save_tiny, write_task


def rows(found: StudyResult, heading: str) -> dict[str, dict[str, Any]]:
    keys = [column.key for column in found.columns]
    own = [row for row in found.rows if row.heading == heading]
    return {str(row.values[0]): dict(zip(keys, row.values, strict=True)) for row in own}


def test_rank_correlation_is_that_of_scipy():
    rng = np.random.default_rng(0)
    one, other = rng.integers(5, size=(2, 40))
    assert rank_correlation(one, other) == pytest.approx(stats.spearmanr(one, other)[0])
    assert rank_correlation(one, np.ones(40)) is None and rank_correlation(one[:1], other[:1]) is None


def test_agreement_by_hand():
    def group(layer: int, first: list[float], second: list[float], random: list[float]) -> GroupRanks:
        scores = {"a": np.array(first), "b": np.array(second), "random": np.array(random)}
        half = {name: frozenset(np.argsort(-one, kind="stable")[:2].tolist()) for name, one in scores.items()}
        return GroupRanks("heads", layer, scores, half)

    # The same order; then two neighbours changed: 1 - 6 * 2 / (4 * 15) = 0.8, and one of two kept is another.
    groups = [group(0, [1, 2, 3, 4], [5, 6, 7, 8], [4, 1, 3, 2]), group(1, [1, 2, 3, 4], [1, 3, 2, 4], [1, 1, 1, 1])]
    found = criteria_agreement("m", groups)
    own = rows(found, "heads")
    assert own["a, b"]["mean_correlation"] == pytest.approx(0.9)
    assert (own["a, b"]["least_correlation"], own["a, b"]["most_correlation"]) == (pytest.approx(0.8), pytest.approx(1))
    assert own["a, b"]["in_common"] == 0.75 and own["a, b"]["in_common_by_chance"] == 0.5
    # Where one ranks all alike there is nothing to correlate with.
    assert own["a, random"]["mean_correlation"] == pytest.approx(stats.spearmanr([1, 2, 3, 4], [4, 1, 3, 2])[0])
    assert found.answer == ("Of heads a and b agree most (rank correlation 0.900), a and b least (0.900).")
    [panel] = found.chart.panels
    assert isinstance(panel, HeatPanel) and panel.values[0][0] == 1 and panel.values[0][1] == panel.values[1][0]
    with pytest.raises(UserError, match="neither heads nor neurons"):
        criteria_agreement("m", [])


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`dense`, fine-tuned by its labels; `cut` without heads of layer 1 and without layer 2; `base`; `data`."""
    home = tmp_path_factory.mktemp("models")
    write_task(home / "data")
    labels = {"id2label": {0: "no", 1: "yes"}, "label2id": {"no": 0, "yes": 1}}
    tokenizer = load_tokenizer(save_tiny(home / "dense", **labels))
    keep = {"layer.0.heads": torch.zeros(HEADS, dtype=torch.bool)}
    save_model(shrink(load_model(home / "dense"), keep, [1]), tokenizer, home / "cut")
    save_tiny(home / "base", "base")
    return home


@pytest.fixture(scope="module")
def dense(home: Path) -> tuple[ModelSource, TokenRows]:
    source, task = resolve(str(home / "dense")), load_task("mine", str(home / "data"))
    return source, token_rows(source, task.validation, 32, CLASSIFICATION)


def test_every_criterion_ranks_all_units(home: Path, dense: tuple[ModelSource, TokenRows]):
    source, tokens = dense
    model = load_model(source)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = ranked_units(model, tokens, CLASSIFICATION, registry.names("unit_criterion"), 0)
    assert [(one.kind, one.layer) for one in found] == [
        (kind, n) for n in range(LAYERS) for kind in ("heads", "neurons")
    ]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    heads = found[0]
    assert list(heads.scores) == registry.names("unit_criterion")
    assert all(len(one) == HEADS for one in heads.scores.values()) and {len(one) for one in heads.half.values()} == {2}
    # Heads go one by one, so that no two are kept at equally many counts.
    assert sorted(heads.scores["obs"]) == [1, 2, 3, 4]
    for name in ("magnitude", "gradient", "loss_increase"):
        assert heads.half[name] == frozenset(np.argsort(-heads.scores[name])[:2].tolist())
    assert heads.half["obs"] == frozenset(np.argsort(-heads.scores["obs"])[:2].tolist())
    group = layout_of(model).groups[0]
    columns = model.get_parameter(group.output.tensor).detach().square().sum(0).view(HEADS, -1).sum(1).sqrt()
    inputs = [part for part in group.inputs if part.tensor.endswith("weight")]
    norms = sum(model.get_parameter(p.tensor).detach().square().view(HEADS, -1).sum(1) for p in inputs)
    biases = [part for part in group.inputs if part.tensor.endswith("bias")]
    norms = norms + sum(model.get_parameter(p.tensor).detach().square().view(HEADS, -1).sum(1) for p in biases)
    assert np.argsort(heads.scores["magnitude"]).tolist() == (columns * norms.sqrt()).argsort().tolist()


def test_rises_by_hand():
    before = np.array([1.0, 2.0, 3.0, 4.0])
    parts = [
        RemovedPart("heads", 0, 0.1, before + np.array([1.0, 0.0, 1.0, 0.0]), 0.75),
        RemovedPart("neurons", 0, 0.2, before - 0.5, None),
        RemovedPart("layer", 1, 0.4, before + 2, 0.25),
    ]
    found = group_sensitivity("m", before, 0.9, parts, "accuracy")
    heads = rows(found, "heads")["layer 1"]
    assert (heads["loss"], heads["rise"], heads["rise_per_percent"]) == (3.0, 0.5, 0.05)
    # The sd of 1 0 1 0 is 1/sqrt(3), so the standard error of the mean is that by 2.
    assert heads["rise_high"] - 0.5 == pytest.approx(1.96 * 3**-0.5 / 2)
    assert heads["score_change"] == pytest.approx(-0.15)
    assert rows(found, "neurons")["layer 1"]["score_change"] is None
    assert rows(found, "whole model")["all layers"]["loss"] == 2.5
    assert found.answer == (
        "For each 1% of the encoder's weights the loss rises least without the neurons of layer 1 (−0.0250), most "
        "without layer 2 (+0.0500); in the mean of layers heads +0.0500 and neurons −0.0250."
    )
    rise, each = found.chart.panels
    assert isinstance(rise, LinePanel) and isinstance(each, LinePanel)
    assert [line.label for line in rise.lines] == ["heads", "neurons", "layer"] and rise.lines[2].x == (2.0,)
    with pytest.raises(UserError, match="no part that could be removed; got m"):
        group_sensitivity("m", before, 0.9, [], "accuracy")


def test_losses_without_a_part_are_those_of_the_model_without_it(home: Path, dense: tuple[ModelSource, TokenRows]):
    source, tokens = dense
    spec = load_task("mine", str(home / "data")).spec
    model = task_model(source, spec)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    losses, accuracy, parts = removed_parts(model, tokens, CLASSIFICATION, spec)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert [(part.kind, part.layer) for part in parts[:2]] == [("heads", 0), ("neurons", 0)] and len(parts) == 9
    # 4 x 32 x 32 of heads, 2 x 32 x 24 of neurons.
    assert parts[0].weights == pytest.approx(4096 / (3 * (4096 + 1536))) and parts[8].weights == pytest.approx(1 / 3)

    def loss(left: Any) -> float:
        return CLASSIFICATION.mean_loss(predict_logits(left, tokens.rows, tokens.collate), tokens.labels)

    assert losses.mean() == pytest.approx(loss(model), rel=1e-5) and accuracy is not None
    assert parts[7].losses.mean() == pytest.approx(loss(without_layers(model, [1])), rel=1e-5)
    with torch.no_grad():
        model.get_parameter("bert.encoder.layer.2.output.dense.weight").zero_()
    assert (parts[5].kind, parts[5].layer) == ("neurons", 2)
    assert parts[5].losses.mean() == pytest.approx(loss(model), rel=1e-5)


def test_embeddings_by_hand():
    values = np.array([[3.0, 4.0], [6.0, 8.0], [0.0, 1.0], [9.0, 12.0]])
    one = TokenEmbeddings("m", values, np.array([1, 2, 1, 14]), np.array([0, 1, 0, 5]))
    found = embedding_magnitudes([one])
    own = rows(found, "m")
    assert own["1 letter"]["tokens"] == 2 and own["1 letter"]["mean_norm"] == 3.0 and own["1 letter"]["sd_norm"] == 2.0
    assert own["12 letters and more"]["mean_norm"] == 15.0
    # The median of 0 1 3 4 6 8 9 12 is 5.
    assert own["all"]["below_median"] == 0.5 and own["1 letter"]["below_median"] == 1.0
    assert own["occurs once"]["mean_norm"] == 10 and own["occurs 4-15 times"]["mean_norm"] == 15
    assert "occurs 2-3 times" not in own and own["dimension 2"]["mean_magnitude"] == 25 / 4
    assert [part for part in own if part.startswith("dimension")] == ["dimension 1", "dimension 2"]
    wanted = stats.spearmanr([5, 10, 1, 15], [1, 2, 1, 14])[0]
    assert f"correlation of the norm with length {wanted:.3f}" in found.notes[0]
    lengths, counts, dimensions = found.chart.panels
    assert isinstance(lengths, LinePanel) and lengths.lines[0].x == (1.0, 2.0, 12.0)
    assert isinstance(counts, LinePanel) and counts.ticks == ("0", "1", "4") and counts.lines[0].x == (0, 1, 2)
    assert isinstance(dimensions, LinePanel) and dimensions.lines[0].y == (4.5, 6.25)


def test_half_of_the_values_are_below_the_median():
    one = TokenEmbeddings("m", np.array([[1.0, 2.0], [3.0, 100.0]]), np.array([1, 2]), np.array([0, 0]))
    assert rows(embedding_magnitudes([one]), "m")["2 letters"]["below_median"] == 0
    assert rows(embedding_magnitudes([one]), "m")["all"]["below_median"] == 0.5


def test_tokens_are_counted_and_marks_are_no_letters(home: Path, dense: tuple[ModelSource, TokenRows]):
    source, tokens = dense
    found = token_embeddings("m", load_model(source), source, tokens)
    # Special tokens are left out; `good` is in every second text.
    assert len(found.values) == len(WORDS) and found.lengths[:3].tolist() == [4, 3, 2]
    assert found.counts[:2].tolist() == [20, 20]
    special = tokens.rows["input_ids"]
    assert found.counts.sum() == sum(len(ids) - 2 for ids in special)


def answer(*arguments: object) -> dict[str, Any]:
    said = run_cli("study", *arguments, "--json")
    assert said.exit_code == 0, said.output
    return json.loads(said.stdout)


@pytest.mark.parametrize("name", ["criteria-agreement", "group-sensitivity", "embedding-magnitudes"])
@pytest.mark.parametrize("model", ["dense", "cut"])
def test_studies_of_saved_models(name: str, model: str, home: Path):
    found = answer(name, home / model, "--task", "mine", "--data", home / "data", "--examples", 16)
    assert found["study"] == name and found["rows"] and found["answer"].endswith(".")
    if name == "group-sensitivity":
        own = [(row["removed"], row["layer"]) for row in found["rows"]]
        assert (("heads", "layer 1") in own) == (model == "dense") and ("neurons", "layer 3") in own
        assert ("layer", "layer 2") in own or model == "cut"
    if name == "criteria-agreement":
        two = ("--criterion", "obs", "--criterion", "gradient")
        few = answer(name, home / model, "--task", "mine", "--data", home / "data", "--examples", 16, *two)
        assert [row["criteria"] for row in few["rows"]] == ["obs, gradient"] * 2
        pairs = len(registry.names("unit_criterion")) * (len(registry.names("unit_criterion")) - 1) // 2
        assert len(found["rows"]) == 2 * pairs


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["criteria-agreement", "dense", "cut", "TASK"], ["asks about 1 checkpoint; got dense, cut"]),
        (["criteria-agreement", "base", "TASK"], ["base' is not fine-tuned for the task mine"]),
        (["criteria-agreement", "dense", "TASK", "--criterion", "obs"], ["Two different criteria or more", "got obs"]),
        (
            ["criteria-agreement", "dense", "TASK", "--criterion", "ob", "--criterion", "obs"],
            ["Unknown unit criterion"],
        ),
        (["group-sensitivity", "base", "TASK"], ["base' is not fine-tuned for the task mine"]),
        (["group-sensitivity", "dense", "--texts", "TEXTS"], ["takes no --texts; allowed: task, examples"]),
        (["embedding-magnitudes", "data"], ["no config.json, so it is not a model"]),
        (["embedding-magnitudes", "dense", "--texts", "EMPTY"], ["There is no text"]),
    ],
)
def test_what_cannot_be_asked_is_one_line(arguments: list[str], words: list[str], home: Path, tmp_path: Path):
    files = {"TEXTS": "good\n", "EMPTY": "\n\n"}
    for name, text in files.items():
        (tmp_path / f"{name}.txt").write_text(text, encoding="utf-8")
    given: list[object] = []
    for one in arguments:
        task = ["--task", "mine", "--data", home / "data"]
        given += task if one == "TASK" else [tmp_path / f"{one}.txt"] if one in files else [one]
    places = {"dense", "cut", "base", "data"}
    assert_refused(run_cli("study", *(home / str(one) if one in places else one for one in given)), words)

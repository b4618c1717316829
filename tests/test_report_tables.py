import io
import json
import subprocess
import sys

import pytest
from rich.console import Console

from example_record import example_record, failed_record, full_record, noisy_record, sparse_record, train_record
from sparsebert.pruning.target_kinds import SPEEDUP
from sparsebert.records import ModelResult, Record
from sparsebert.reports import (
    as_html,
    as_json,
    as_markdown,
    as_rich,
    families,
    family_rows,
    family_table,
    timing_rows,
    timing_table,
)
from sparsebert.reports import values as v
from sparsebert.reports.compare import comparison_table
from sparsebert.reports.curves import curve_table, curves
from sparsebert.reports.verdict import sentences


def with_model(record: Record, which: str, **changes: object) -> Record:
    models = tuple(m.model_copy(update=changes) if m.name == which else m for m in record.models)
    return record.model_copy(update={"models": models})


def with_accuracy(record: Record, name: str, value: float) -> Record:
    scores = tuple(s.model_copy(update={"value": value}) for m in record.models if m.name == name for s in m.scores)
    return with_model(record, name, scores=scores)


def with_speedup(record: Record, name: str, speedup: float, low: float, high: float) -> Record:
    spread = {"speedup": speedup, "speedup_q25": low, "speedup_q75": high}
    timings = tuple(t.model_copy(update=spread) for m in record.models if m.name == name for t in m.timings)
    return with_model(record, name, timings=timings)


def rows_of(*records: Record) -> dict[str, object]:
    return {row.name: row for row in family_rows(families(records))}


@pytest.mark.parametrize(
    ("form", "number", "text"),
    [
        (v.signed, -0.68, "−0.7"),
        (v.signed, 0.25, "+0.2"),
        (v.signed, -0.04, "0.0"),
        (v.percent, 91.28, "91.3%"),
        (v.percent, -3.0, "−3.0%"),
        (v.fraction, 0.7523, "75.2%"),
        (v.times, 3.918, "3.92×"),
        (v.times, 12.34, "12.3×"),
        (v.digits, 0.01234, "0.0123"),
        (v.digits, 0.0004321, "0.000432"),
        (v.digits, 0.05, "0.0500"),
        (v.digits, 0.7211, "0.721"),
        (v.digits, 4.04, "4.04"),
        (v.digits, 38.14, "38.1"),
        (v.digits, 1234.4, "1,234"),
        (v.digits, 0, "0"),
        (v.count, 22_713_216, "22.7 M"),
        (v.count, 113_400, "113 k"),
        (v.count, 950, "950"),
        (v.megabytes, 90.87, "90.9 MB"),
        (v.megabytes, 0.0456, "0.0456 MB"),
    ],
)
def test_numbers_are_written_as_a_person_would(form, number, text):
    assert form(number) == text


def test_one_value_keeps_its_quartiles_and_several_become_median_and_range():
    assert v.over_runs([v.Value(2.0, 1.5, 2.5)]) == v.Value(2.0, 1.5, 2.5)
    assert v.over_runs([v.Value(3.0, 0, 9), None, v.Value(1.0), v.Value(2.0)]) == v.Value(2.0, 1.0, 3.0, 3)
    assert v.over_runs([None, None]) is None


def test_bars_reach_to_the_ends_of_an_interval_that_may_miss_the_middle():
    assert v.Value(3.0, 2.5, 4.0).reach == (0.5, 1.0)
    assert v.Value(3.0).reach == (0.0, 0.0) and v.Value(3.0, 3.1, 3.2).reach == (0.0, pytest.approx(0.2))


def test_a_spread_is_written_without_unit_and_left_out_when_it_cannot_be_seen():
    assert v.show_spread(v.Value(3.9, 3.8, 4.0), v.times) == "3.80–4.00"
    assert v.show_spread(v.Value(-0.7, -1.0, -0.5), v.signed) == "−1.0 to −0.5"
    assert v.show_spread(v.Value(4.0, 4.0001, 4.0002), v.times) == ""
    assert v.show_spread(v.Value(4.0), v.times) == ""
    assert v.show_spread(None, v.times) == ""


def test_a_row_holds_the_numbers_of_the_record():
    rows = rows_of(example_record())
    assert list(rows) == ["dense", "2x", "4x", "8x"]
    row = rows["4x"]
    # 23 heads of 32 and 1952 neurons are left of 72 and 9216, at width 384.
    left = 4 * 384 * 32 * 23 + 2 * 384 * 1952
    assert row.encoder_sparsity.mid == pytest.approx(1 - left / 10_616_832)
    assert row.score_points.mid == pytest.approx(90.60)
    assert row.change_points.mid == pytest.approx(90.60 - 91.28)
    assert row.encoder_speedup == v.Value(pytest.approx(3.92), pytest.approx(3.92 * 0.982), pytest.approx(3.92 * 1.014))
    assert row.examples == 872
    assert row.size_mb.mid == pytest.approx(4 * row.parameters.mid / 1e6)
    assert (row.target_kind, row.target_value, row.dense) == ("speedup", 4.0, False)
    assert rows["dense"].dense
    assert rows["dense"].change_points is None


def test_a_row_of_one_run_holds_the_intervals_of_the_record():
    row = rows_of(full_record())["4x"]
    assert (row.score_points.low, row.score_points.high) == pytest.approx((88.6, 92.4))
    assert (row.change_points.low, row.change_points.high) == pytest.approx((100 * (0.9060 - 0.9128 - 0.01), 0.4))
    assert row.encoder_speedup == v.Value(pytest.approx(3.92), pytest.approx(3.92 * 0.98), pytest.approx(3.92 * 1.02))
    # 14.2 ms of the encoder and 0.414 ms beside it.
    assert row.model_speedup.mid == pytest.approx(14.614 / (14.2 / 3.92 + 0.414))
    assert row.baseline_points == pytest.approx(50.92) and row.agreement.mid == pytest.approx(0.99 - 0.0392)
    text = as_markdown(family_table(families([full_record()])))
    assert "90.6% (88.6–92.4)" in text and "3.62× (3.55–3.69)" in text
    assert "Always giving the majority class would score 50.9%." in text
    assert "95% interval by bootstrap over the examples" in text and "95% interval over the rounds" in text


def test_a_wide_interval_is_given_as_a_range():
    text = as_markdown(family_table(families([noisy_record()])))
    assert text.count("about 2–4× (too noisy to say)") == 2
    assert v.show_times(v.Value(3.0, 2.5, 3.2)) == "3.00×" and v.show_times(v.Value(3.0)) == "3.00×"
    assert v.show_times(v.Value(6.6, 3.9, 9.6)) == "about 3.9–9.6×"
    assert v.show_interval(v.Value(3.0, 2.9, 3.2)) == "2.90–3.20"


def test_what_no_model_has_is_no_column():
    untimed = train_record()
    bare = untimed.models[0].model_copy(update={"timings": ()})
    table = family_table(families([untimed.model_copy(update={"models": (bare,)})]))
    assert [column.text for column in table.columns] == ["Model", "Accuracy", "Size", "Params", "GFLOPs", "Sparsity"]
    assert not any("quartiles" in note for note in table.notes)


def test_settings_that_are_not_given_are_no_part_of_a_name():
    labels = [family.label for family in families([example_record(), example_record(train_examples=500)])]
    assert labels == ["all-MiniLM-L6-v2 on sst2", "train_examples=500"]


def also_in_onnx(model: ModelResult) -> ModelResult:
    """Timed as one program too, in 3 ms and 1.5 times as fast as dense."""
    own = {"scope": "model", "backend": "onnx", "median_ms": 3.0, "speedup": 1.5}
    return model.model_copy(update={"timings": (*model.timings, model.timings[0].model_copy(update=own))})


def test_the_headline_is_the_setting_that_the_recipe_asked_for():
    assert rows_of(example_record())["dense"].latency_ms.mid == pytest.approx(14.2 + 0.35 + 0.004 * 128 / 8)
    asked = example_record(measure={"batch": 32, "length": 25})
    assert rows_of(asked)["dense"].latency_ms.mid == pytest.approx(83.5 + 0.35 + 0.004 * 32 * 25 / 8)
    in_onnx = example_record(measure={"runtime": "onnx"})
    assert rows_of(in_onnx)["dense"].latency_ms is None
    rows = rows_of(in_onnx.model_copy(update={"models": tuple(map(also_in_onnx, in_onnx.models))}))
    assert rows["dense"].latency_ms.mid == 3.0 and rows["2x"].encoder_speedup is None
    assert SPEEDUP.reported(rows["2x"]) == 1.5
    never_timed = example_record(measure={"batch": 64})
    assert rows_of(never_timed)["dense"].latency_ms is None


def test_seeds_of_one_recipe_become_median_and_range_of_paired_changes():
    dense, small = (0.90, 0.92, 0.91), (0.89, 0.90, 0.86)
    records = [
        with_accuracy(with_accuracy(example_record(seed), "dense", d), "4x", s)
        for seed, d, s in zip((0, 1, 2), dense, small, strict=True)
    ]
    groups = families(records)
    assert [group.seeds for group in groups] == [(0, 1, 2)]
    row = rows_of(*records)["4x"]
    assert (row.runs, row.seeds) == (3, (0, 1, 2))
    assert (row.score_points.mid, row.score_points.low, row.score_points.high) == pytest.approx((89, 86, 90))
    assert (row.change_points.mid, row.change_points.low, row.change_points.high) == pytest.approx((-2, -5, -1))
    text = as_markdown(family_table(groups))
    assert "89.0% (86.0–90.0)" in text
    assert "−2.0 (−5.0 to −1.0)" in text
    assert "3 seeds (0, 1, 2)" in text


def test_families_are_told_apart_by_what_differs_between_their_recipes():
    records = [example_record(seed, criterion) for criterion in ("obs", "magnitude") for seed in (0, 1)]
    assert [group.label for group in families(records)] == ["obs", "magnitude"]
    layers = example_record(shape="layers", distill={"hidden": 0.0})
    labels = [group.label for group in families([example_record(), layers])]
    assert labels == ["search, distill.hidden=1.0", "layers, distill.hidden=0.0"]
    assert [group.label for group in families([example_record()])] == ["all-MiniLM-L6-v2 on sst2"]
    fewer = example_record(targets=[{"kind": "sparsity", "value": 0.5}, {"kind": "latency_ms", "value": 3}])
    assert [group.label for group in families([example_record(), fewer])] == ["2x 4x 8x", "0.5-sparsity 3ms"]
    named = [example_record(name=None), example_record(name="mine", criterion="magnitude")]
    assert [group.label for group in families(named)] == ["obs", "mine"]
    swept = [example_record(name="mine"), example_record(name="mine", criterion="magnitude"), example_record(name="x")]
    assert [group.label for group in families(swept)] == ["mine, obs", "mine, magnitude", "x"]


def test_runs_on_other_machines_and_failed_runs_are_not_mixed_in():
    other = example_record(1)
    other = other.model_copy(update={"environment": other.environment.model_copy(update={"cpu": "Other"})})
    groups = families([example_record(), other, failed_record()])
    assert [len(group.records) for group in groups] == [1, 1]
    named = [f"all-MiniLM-L6-v2 on sst2, {cpu}, 2 threads" for cpu in ("Example CPU @ 2.60GHz", "Other")]
    assert [group.label for group in groups] == named


def without(record: Record, name: str) -> Record:
    return record.model_copy(update={"models": tuple(model for model in record.models if model.name != name)})


def test_a_model_of_fewer_runs_than_the_family_says_so_in_its_row():
    groups = families([example_record(0), without(example_record(1), "8x"), without(example_record(2), "8x")])
    text = as_markdown(family_table(groups))
    assert "| 8x (8× faster; n = 1 of 3 runs) |" in text and "| 4x (4× faster) |" in text
    assert "quartiles of the rounds of one run" in text
    assert [cell.small for cell in timing_table(groups).sections[0].rows[3][:1]] == ["n = 1 of 3 runs"]
    said = dict(sentences(groups[0]))
    assert said["8x"].endswith(", in 1 of 3 runs.") and "runs" not in said["4x"]
    data = as_json(family_rows(groups))[3]
    assert (data["runs"], data["family_runs"]) == (1, 3)
    whole = families([example_record(seed) for seed in range(3)])
    assert "n = " not in as_markdown(timing_table(whole))
    assert "quartiles" not in as_markdown(family_table(whole))


def test_side_by_side_says_where_a_model_is_of_fewer_runs():
    few = [example_record(0), without(example_record(1), "8x")]
    groups = families([*few, *(example_record(seed, "magnitude") for seed in (0, 1))])
    cells = {row[0].text: row for row in comparison_table(groups).sections[0].rows}["8x"]
    assert "n = 1 of 2 runs" in cells[1].small and "n = " not in cells[2].small


def test_what_is_absent_is_a_dash_in_text_and_no_key_in_json():
    groups = families([sparse_record()])
    data = as_json(family_rows(groups))
    assert data[1]["name"] == "4x"
    assert not {"encoder_speedup", "latency_ms", "gflops", "score_points", "metric"} & set(data[1])
    assert json.loads(json.dumps(data)) == json.loads(json.dumps(data, allow_nan=False))
    small = next(line for line in as_markdown(family_table(groups)).splitlines() if line.startswith("| 4x"))
    assert small.count("| – ") == 3


def test_timings_of_one_setting_stand_together():
    groups = families([example_record()])
    rows = timing_rows(groups)
    assert len(rows) == 4 * 8
    assert [row.name for row in rows[:4]] == ["dense", "2x", "4x", "8x"]
    assert {(row.scope, row.batch, row.length) for row in rows[:4]} == {("model", 1, 128)}
    table = timing_table(groups)
    assert len(table.sections) == 8
    assert table.sections[0].heading == (
        "Whole model · batch 1 · 128 tokens · eager, float32, sdpa attention, 2 threads, 15 rounds"
    )
    assert [cell.text for cell in table.sections[0].rows[0]] == ["dense", "14.6", "1.00×", "8,759"]
    assert as_json(rows)[0]["median_ms"]["mid"] == pytest.approx(14.614)
    assert table.sections[4].heading.startswith("Encoder · batch 1 · 128 tokens")


@pytest.mark.parametrize("seeds", [(0,), (0, 1, 2)])
def test_the_compact_table_fits_80_characters(seeds):
    stream = io.StringIO()
    Console(file=stream, width=80).print(as_rich(family_table(families([example_record(s) for s in seeds]), True)))
    lines = stream.getvalue().splitlines()
    assert "…" not in stream.getvalue()
    assert sum("75.2%" in line for line in lines) == 1
    assert next(line for line in lines if "75.2%" in line).startswith("4x")


def test_texts_of_a_record_are_never_markup():
    name = "[red]a|b_c[/red]<b>"
    groups = families([with_model(example_record(), "4x", name=name)])
    table = family_table(groups)
    stream = io.StringIO()
    Console(file=stream, width=200).print(as_rich(table))
    assert name in stream.getvalue()
    line = next(line for line in as_markdown(table).splitlines() if "red" in line)
    assert line.startswith(r"| \[red\]a\|b\_c\[/red\]&lt;b&gt; (4× faster) |")
    assert "[red]a|b_c[/red]&lt;b&gt;" in as_html(table)


def test_families_stand_side_by_side():
    table = comparison_table(families([example_record(), example_record(criterion="magnitude", accuracy_shift=-0.01)]))
    assert [column.text for column in table.columns] == ["Model", "obs", "magnitude"]
    cells = {row[0].text: row for row in table.sections[0].rows}
    assert [(cell.text, cell.small) for cell in cells["4x"][1:]] == [("90.6%", "3.62×"), ("89.6%", "3.62×")]


def test_the_verdict_says_what_was_gained_and_lost():
    said = dict(sentences(families([example_record()])[0]))
    assert said["4x"] == (
        "3.6× faster than dense on this machine, encoder 3.92×, 0.7 points of accuracy lost, 35% smaller file."
    )


@pytest.mark.parametrize(
    ("speedup", "words"),
    [
        (
            (1.2, 0.9, 1.4),
            "not shown to be faster or slower than dense on this machine (1.20×, noisy: 0.90× to 1.40×)",
        ),
        ((1.02, 1.01, 1.03), "no faster and no slower than dense on this machine (1.02×)"),
        ((0.8, 0.7, 0.9), "slower than dense on this machine (0.80×, noisy: 0.70× to 0.90×)"),
        ((3.6, 2.9, 4.6), "about 2.9–4.6× faster than dense on this machine (too noisy to say)"),
        ((3.6, 3.5, 3.7), "3.6× faster than dense on this machine"),
    ],
)
def test_the_verdict_is_plain_when_the_target_is_missed(speedup, words):
    said = dict(sentences(families([with_speedup(example_record(), "4x", *speedup)])[0]))
    assert said["4x"].startswith(words)
    assert said["4x"].endswith(f"{100 - 25 * speedup[0]:.0f}% short of the target (4× faster).")


@pytest.mark.parametrize(
    ("kind", "value", "short"),
    [
        ("size", 0.5, "23% short of the target (50% of bytes)"),
        ("sparsity", 0.9, "16% short of the target (90% sparse)"),
    ],
)
def test_other_targets_are_checked_too(kind, value, short):
    record = with_model(example_record(), "4x", target_kind=kind, target_value=value)
    assert dict(sentences(families([record])[0]))["4x"].endswith(f"{short}.")
    met = with_model(example_record(), "4x", target_kind="latency_ms", target_value=4.1)
    assert "short" not in dict(sentences(families([met])[0]))["4x"]


def test_reports_load_neither_torch_nor_matplotlib():
    code = "import sys, sparsebert.reports; print({'torch', 'transformers', 'matplotlib'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_curves_stand_beside_the_constant_answer_and_name_what_is_no_better():
    def scored(sparsity: float, seed: int, low: float) -> Record:
        record = train_record(seed, sparsity)
        [model] = record.models
        score = model.scores[0].model_copy(update={"value": 0.6, "low": low, "high": 0.7, "baseline": 0.5})
        return record.model_copy(update={"models": (model.model_copy(update={"scores": (score,)}),)})

    runs = [scored(sparsity, seed, low) for sparsity, low in ((0.5, 0.55), (0.9, 0.45)) for seed in (0, 1)]
    table = curve_table(curves(runs))
    [[_, half, most]] = table.sections[0].rows
    assert "chance" not in half.small and most.small.endswith("n = 2; chance level in 2")
    assert "Always giving the majority class would score 50.0%." in table.notes
    assert table.notes[-1] == "Chance level: no better than that constant answer."

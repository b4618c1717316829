"""What tables, cards and pages say of energy, and of machines that cannot tell it."""

from __future__ import annotations

from typing import Any

import pytest

from example_record import example_record, train_record
from sparsebert.records import EnergyUse, Record, Timing
from sparsebert.reports import as_markdown, families, family_rows, family_table
from sparsebert.reports.card import model_card
from sparsebert.reports.details import detail_table
from sparsebert.reports.methods import methods
from sparsebert.reports.tables import Table

SOURCE = "RAPL package-0, all programs"
WHY = "no RAPL counters in /sys/class/powercap"
JOULES = {"dense": 41.2, "2x": 20.3, "4x": 11.6, "8x": 6.04}
COUNTED = {"energy_kwh": 0.0123, "energy_source": SOURCE}


def use(joules: float, source: str = SOURCE) -> EnergyUse:
    return EnergyUse(source=source, rounds=7, round_s=1, median_j=joules, q25_j=joules - 1, q75_j=joules + 1)


def changed(record: Record, name: str, **found: Any) -> Record:
    """The record with something else in the timings of whole models of that name."""

    def of(timing: Timing) -> Timing:
        return timing.model_copy(update=found) if timing.scope == "model" else timing

    models = [
        model.model_copy(update={"timings": tuple(map(of, model.timings))}) if model.name == name else model
        for model in record.models
    ]
    return record.model_copy(update={"models": tuple(models)})


def measured(seed: int = 0, factor: float = 1.0, source: str = SOURCE) -> Record:
    record = example_record(seed)
    for name, joules in JOULES.items():
        record = changed(record, name, energy=use(factor * joules, source))
    return record


def asked_in_vain() -> Record:
    record = example_record()
    for name in JOULES:
        record = changed(record, name, energy_missing=WHY)
    return record


def trained(**found: Any) -> Record:
    """The phases of a sparse training with these facts."""
    record = train_record()
    [model] = record.models
    phases = {name: run.model_copy(update=found) for name, run in model.phases.items()}
    return record.model_copy(update={"models": (model.model_copy(update={"phases": phases}),)})


def column(table: Table, title: str) -> list[tuple[str, str]]:
    [place] = [place for place, cell in enumerate(table.columns) if cell.text == title]
    return [(row[place].text, row[place].small) for section in table.sections for row in section.rows]


def has(table: Table, title: str) -> bool:
    return any(cell.text == title for cell in table.columns)


def test_energy_has_a_column_where_it_was_measured():
    table = family_table(families([measured()]))
    assert column(table, "Energy") == [
        ("41.2", "40.2–42.2"),
        ("20.3", "19.3–21.3"),
        ("11.6", "10.6–12.6"),
        ("6.04", "5.04–7.04"),
    ]
    assert f"Energy of 1,000 texts ({SOURCE})." in table.notes
    narrow = family_table(families([measured()]), compact=True)
    assert not has(narrow, "Energy")
    assert f"Energy of 1,000 texts ({SOURCE}): dense 41.2 J, 2x 20.3 J, 4x 11.6 J, 8x 6.04 J." in narrow.notes


def test_several_runs_give_the_median_of_their_energies():
    groups = families([measured(0), measured(1, 2.0), measured(2, 4.0)])
    row = family_rows(groups)[1]
    assert row.energy_j is not None
    assert (row.energy_j.mid, row.energy_j.low, row.energy_j.high) == pytest.approx((40.6, 20.3, 81.2))


def test_runs_by_different_counters_are_not_put_together():
    groups = families([measured(0), measured(1, source="NVML Example GPU, all programs")])
    row = family_rows(groups)[0]
    assert (row.energy_j, row.energy_source) == (None, None)
    table = family_table(groups)
    assert not has(table, "Energy")
    [note] = [note for note in table.notes if note.startswith("Energy")]
    assert note.endswith(
        f"not to be compared, as runs had different counters: NVML Example GPU, all programs; {SOURCE}."
    )


@pytest.mark.parametrize("compact", [True, False])
def test_a_machine_that_cannot_tell_is_said_once(compact: bool):
    table = family_table(families([asked_in_vain()]), compact)
    assert not has(table, "Energy")
    notes = [note for note in table.notes if "Energy" in note]
    assert notes == [f"Energy of 1,000 texts: not measurable here: {WHY}."]
    assert not any("Energy" in note for note in family_table(families([example_record()]), compact).notes)


def test_trainings_have_their_energy_or_the_reason():
    table = detail_table(families([trained(**COUNTED)]))
    assert column(table, "Energy") == [("0.0123", ""), ("0.0123", "")] and table.columns[-1].small == "kWh"
    assert table.notes == (f"Energy: {SOURCE}.",)
    without = detail_table(families([trained(energy_missing=WHY)]))
    assert not has(without, "Energy") and without.notes == (f"Energy: not measurable here: {WHY}.",)
    assert detail_table(families([train_record()])).notes == ()
    both = detail_table(families([trained(**COUNTED), train_record(seed=1, sparsity=0.5)]))
    assert [text for text, _ in column(both, "Energy")] == ["0.0123", "0.0123", "–", "–"]


def test_the_card_says_what_energy_is_and_where_it_is_not_known():
    card = model_card(measured(), "2x")
    assert "joules of 1,000 texts" in card and "RAPL package" in card
    told = model_card(trained(**COUNTED), "sparse")
    assert "It took 0.0123 kWh" in told
    assert model_card(trained(energy_missing=WHY), "sparse").count("not measurable here") == 1
    assert "not measurable here" in model_card(asked_in_vain(), "2x")
    for plain in (model_card(example_record(), "2x"), model_card(train_record(), "sparse")):
        assert "kWh" not in plain and "not measurable" not in plain


def test_methods_name_the_source():
    told = dict(methods(families([measured()])[0]))
    assert told["Energy of texts"].startswith("joules of 1,000 texts, batch 1, 128 tokens, by RAPL package-0, all")
    assert dict(methods(families([asked_in_vain()])[0]))["Energy of texts"] == f"not measurable here: {WHY}."
    of_training = dict(methods(families([trained(**COUNTED)])[0]))["Energy of training"]
    assert of_training == f"by {SOURCE}, summed over all starts of a training."
    assert {"Energy of texts", "Energy of training"} & {
        name for name, _ in methods(families([train_record()])[0])
    } == set()


def test_a_record_keeps_it_and_older_records_have_none():
    record = measured()
    again = Record.model_validate_json(record.model_dump_json(exclude_none=True))
    assert again == record and again.models[1].timings[-1].energy is not None
    assert "energy" not in example_record().model_dump_json(exclude_none=True).replace('"energy":false', "")
    assert as_markdown(family_table(families([again])))

"""How masks move, as a film: which looks are frames, what is counted, exact resume, and what the explorer reads."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from safetensors.torch import save_file

from example_record import train_record
from exploring import filmed
from sparsebert.errors import UserError
from sparsebert.explorer.charts import model_charts
from sparsebert.explorer.library import Library
from sparsebert.explorer.models import shown_models
from sparsebert.records import FILE_NAME, MASK_FILM
from sparsebert.reports.film import read_film
from sparsebert.sparse.coarse import coarse
from sparsebert.sparse.film import CELLS, LEVELS, MOST_FRAMES, MaskFilm, steps_apart


def mask(*gone: int) -> dict[str, torch.Tensor]:
    """A matrix of 4 x 2 weights, without those of these numbers."""
    found = torch.ones(8, dtype=torch.bool)
    found[list(gone)] = False
    return {"w": found.view(4, 2), "bias": torch.ones(4, dtype=torch.bool)}


def test_a_frame_says_what_is_pruned_what_went_and_what_came_back() -> None:
    film = MaskFilm()
    for step, gone in ((10, (0, 1)), (20, (1, 2)), (30, (1,))):
        film.look(step, partial(mask, *gone))
    # After the last step masks may change once more.
    film.end(30, mask(1, 3))
    told = [(one.step, one.pruned, one.went, one.returned) for one in film.frames]
    assert told == [(10, 0.25, 0.25, 0.0), (20, 0.25, 0.125, 0.125), (30, 0.25, 0.125, 0.125)]
    assert film.frames[1].pictures["w"].tolist() == [[0, LEVELS], [LEVELS, 0], [0, 0], [0, 0]]
    assert list(film.frames[0].pictures) == ["w"]


def filmed_steps(total: int, saved_at: int | None = None) -> MaskFilm:
    """Every look finds another weight of eight gone, and the one of before back; the film may be saved on the way."""
    film = MaskFilm()
    for step in range(total):
        film.look(step, partial(mask, step % 8, (3 * step) % 8))
        assert len(film.frames) < MOST_FRAMES
        if step == saved_at:
            state, film = film.state(), MaskFilm()
            film.go_on(state, mask())
    film.end(total, mask(0))
    return film


def test_many_looks_leave_few_frames_alike_apart_and_the_last_one() -> None:
    film = filmed_steps(203)
    steps = [one.step for one in film.frames]
    assert steps == [*range(0, 203, 8), 203] and sum(one.returned for one in film.frames) > 1
    # Where nothing is looked at any more nothing is computed.
    film.look(204, lambda: pytest.fail("not due"))


@pytest.mark.parametrize("stop", [0, 7, MOST_FRAMES - 1, MOST_FRAMES, 83, 198])
def test_a_film_that_is_taken_up_again_is_the_one_that_never_stopped(stop: int) -> None:
    expected, found = filmed_steps(200).state(), filmed_steps(200, saved_at=stop).state()
    assert expected.keys() == found.keys() and all(torch.equal(expected[name], found[name]) for name in expected)


def test_nothing_is_seen_where_no_rule_covers_a_matrix() -> None:
    film = MaskFilm()
    film.look(1, lambda: {"bias": torch.ones(3, dtype=torch.bool)})
    again = MaskFilm()
    again.go_on(film.state(), {})
    assert film.frames == again.frames == []


@pytest.mark.parametrize(("total", "apart"), [(1, 1), (79, 1), (80, 2), (1500, 37), (10**6, 50)])
def test_short_trainings_are_looked_at_more_often(total: int, apart: int) -> None:
    assert steps_apart(total) == apart


def test_cells_are_shares_of_zeros_that_together_count_each_weight_once() -> None:
    zero = np.random.default_rng(0).random((31, 50)) < 0.3
    found = coarse(zero, CELLS)
    assert found.shape == (CELLS, CELLS)
    rows, columns = (np.diff([cell * count // CELLS for cell in range(CELLS + 1)]) for count in zero.shape)
    assert (found * np.outer(rows, columns)).sum() == pytest.approx(zero.sum())


def test_the_explorer_shows_every_frame_of_a_run(tmp_path: Path) -> None:
    model = shown_models(Library([filmed(tmp_path / "sparse").parent]).look().runs)[-1]
    (chart,) = (one for one in model_charts(model).charts if one.kind == "film")
    assert [row[0] for row in chart.rows] == [2, 4, 6]
    assert [row[2:] for row in chart.rows] == [(0.0, 0.0, 0.0), (0.25, 0.25, 0.0), (0.375, 0.25, 0.125)]
    (part,) = chart.more["tiles"]
    assert [(tile["layer"], tile["matrix"]) for tile in part] == [("1", "output"), ("2", "output")]
    assert (part[0]["down"], part[0]["across"], chart.more["frames"]) == (4, 2, [3])
    # A film of one frame moves nothing.
    file = tmp_path / "sparse" / MASK_FILM
    short = {key: value[:1] for key, value in load_file(file).items()}
    save_file({key: torch.from_numpy(value) for key, value in short.items()}, file)
    assert "film" not in [one.kind for one in model_charts(model).charts]


DAMAGES = {
    "fewer steps": lambda one: {"steps": one["steps"][:2]},
    "no numbers of steps": lambda one: {"steps": np.array(7)},
    "steps backwards": lambda one: {"steps": one["steps"][::-1]},
    "no frames": lambda one: {key: value[:0] for key, value in one.items()},
    "parts as a column": lambda one: {"pruned": one["pruned"][:, None]},
    "a part that is no number": lambda one: {"went": one["went"] * np.nan},
    "pictures of floats": lambda one: {key: value.astype(float) for key, value in one.items() if "picture" in key},
    "pictures of one line": lambda one: {key: value[:, 0] for key, value in one.items() if "picture" in key},
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_film_is_one_line_and_all_else_is_shown(damage: str, tmp_path: Path) -> None:
    file = filmed(tmp_path / "sparse") / MASK_FILM
    tensors = {key.partition("/")[2]: value for key, value in load_file(file).items()}
    phase = next(iter(train_record().models[-1].phases))
    tensors |= DAMAGES[damage](tensors)
    save_file({f"{phase}/{key}": torch.from_numpy(np.array(value)) for key, value in tensors.items()}, file)
    drawn = model_charts(shown_models(Library([tmp_path]).look().runs)[-1])
    assert [chart.kind for chart in drawn.charts] == ["zeros", "timeline"]
    (problem,) = drawn.problems
    assert "mask_film.safetensors is damaged" in problem and "\n" not in problem


def test_a_film_that_is_cut_short_is_damaged_and_no_film_is_none(tmp_path: Path) -> None:
    file = filmed(tmp_path / "sparse") / MASK_FILM
    model, record = train_record().models[-1], file.parent / FILE_NAME
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(UserError, match=r"mask_film\.safetensors is damaged"):
        read_film(record, model)
    file.unlink()
    assert read_film(record, model) == []

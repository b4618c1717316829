"""Studies of weights: masks, the order of magnitudes, distributions, zeros of heads; numbers by hand or by scipy."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import cohen_kappa_score, jaccard_score

from sparsebert.errors import UserError
from sparsebert.reports.charts import ChartLine, HeatPanel, LinePanel, RangePanel
from sparsebert.reports.study import StudyResult
from sparsebert.studies.head_zeros import TOGETHER, head_zeros
from sparsebert.studies.mask_overlap import Overlap, mask_overlap
from sparsebert.studies.sorting_order import movement, sorting_order
from sparsebert.studies.weight_distribution import distribution, weight_distribution
from sparsebert.studies.weights import EncoderWeights, HeadBlock, MatrixName, smallest

QUERY = MatrixName(0, "attention.self.query")
UP = MatrixName(1, "intermediate.dense")


def weights(name: str, query: list[list[float]], up: list[list[float]], **more: object) -> EncoderWeights:
    matrices = {QUERY: np.array(query, dtype=np.float32), UP: np.array(up, dtype=np.float32)}
    return dataclasses.replace(EncoderWeights(name, "bert", matrices, heads=2), **more)


def rows(found: StudyResult, heading: str) -> dict[str, dict[str, object]]:
    """The rows under a heading by their first value, each by the keys of its columns."""
    keys = [column.key for column in found.columns]
    own = [row for row in found.rows if row.heading == heading]
    return {str(row.values[0]): dict(zip(keys, row.values, strict=True)) for row in own}


FIRST = weights("a", [[0, 0, 1, 2], [0, 3, 4, 5]], [[0, 1]])
SECOND = weights("b", [[0, 1, 0, 2], [0, 3, 4, 5]], [[1, 0]])


def test_overlap_of_two_masks_by_hand():
    found = mask_overlap([FIRST, SECOND])
    own = rows(found, "a vs b")
    query = own["layer 1 attention query"]
    # Zeros at 0 1 4 and 0 2 4 of 8: two of four in both.
    assert query["weights"] == 8 and query["removed_first"] == query["removed_second"] == 3 / 8
    assert query["differ"] == 2 / 8 and query["iou"] == 2 / 4
    assert query["iou_by_chance"] == pytest.approx((9 / 8) / (6 - 9 / 8))
    assert query["differ_by_chance"] == pytest.approx((6 - 2 * 9 / 8) / 8)
    # The second matrix has its zeros at different places; chance is drawn matrix by matrix.
    assert own["all"]["differ"] == 4 / 10 and own["all"]["iou"] == 2 / 6
    assert own["all"]["iou_by_chance"] == pytest.approx((9 / 8 + 1 / 2) / (8 - 9 / 8 - 1 / 2))
    assert "40.0% of all weights are removed in one only" in found.answer and "33.3% in both" in found.answer
    [panel] = found.chart.panels
    assert isinstance(panel, HeatPanel)
    assert (panel.columns, panel.values) == (("attention query", "intermediate"), ((0.5, None), (None, 0.0)))


def test_kappa_and_iou_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    one = rng.random(500) < 0.4
    other = np.where(rng.random(500) < 0.3, rng.random(500) < 0.6, one)
    found = Overlap.of(one, other)
    assert found.kappa == pytest.approx(cohen_kappa_score(one, other))
    assert found.iou == pytest.approx(jaccard_score(one, other))


def test_masks_of_magnitude_at_several_sparsities():
    one = weights("a", [[1, -2, 3, -4], [5, 6, 7, 8]], [[1, 2]])
    other = weights("b", [[-2, 1, 3, 4], [5, 8, 7, -6]], [[1, 2]])
    found = mask_overlap([one, other], [0.5, 0.125])
    assert rows(found, "a vs b, 12% smallest")["layer 1 attention query"]["differ"] == 2 / 8
    assert rows(found, "a vs b, 50% smallest")["layer 1 attention query"]["differ"] == 0
    [panel] = found.chart.panels
    assert isinstance(panel, LinePanel) and [line.label for line in panel.lines] == ["a vs b", "random masks"]
    assert panel.lines[0].x == (12.5, 50.0) and panel.lines[0].y == (pytest.approx(100 * 2 / 10), 0)


def test_smallest_takes_as_many_as_asked_and_of_equal_ones_the_first():
    values = np.array([[3.0, -1.0], [1.0, 2.0]])
    assert smallest(values, 0.25).tolist() == [[False, True], [False, False]]
    assert smallest(values, 0.75).tolist() == [[False, True], [True, True]]
    assert not smallest(values, 0.1).any() and smallest(np.ones(4), 0.5).tolist() == [True, True, False, False]


def test_heads_stand_for_masks_where_shapes_differ():
    cut = weights("cut", [[1, 2, 3, 4]], [[1, 1]], kept_heads=((0,), (0, 1)), shrunk=True)
    other = weights("other", [[1, 2], [3, 4]], [[1, 1]], kept_heads=((1,), (1,)), shrunk=True)
    own = rows(mask_overlap([cut, other]), "cut vs other")
    assert own["layer 1"]["iou"] == 0 and own["layer 2"]["iou"] == 0 and own["all"]["differ"] == 3 / 4
    with pytest.raises(UserError, match=r"Which heads were cut away is not known.*got other"):
        mask_overlap([cut, dataclasses.replace(other, kept_heads=None)])
    with pytest.raises(UserError, match=r"one architecture.*got family: bert in cut, electra in far"):
        mask_overlap([cut, dataclasses.replace(other, name="far", family="electra")])


def test_nothing_removed_is_said_and_more_zeros_than_asked_for_are_refused():
    dense = weights("d", [[1, 2, 3, 4], [5, 6, 7, 8]], [[1, 2]])
    found = mask_overlap([dense, dataclasses.replace(dense, name="e")])
    assert found.answer == "d vs e: nothing is removed in either, so there is no mask to compare."
    assert rows(found, "d vs e")["all"]["iou"] is None and rows(found, "d vs e")["all"]["kappa"] is None
    many = weights("z", np.eye(40).tolist(), [[1, 2]])
    with pytest.raises(UserError, match=r"More of a matrix of z is zero.*got 97.5% of layer 1 attention query"):
        mask_overlap([many, dataclasses.replace(many, name="y")], [0.5])


def test_movement_by_hand():
    # From ranks 1 2 3 4 to 2 1 3 4: two weights move by a quarter.
    one = movement(np.array([1.0, -2.0, 3.0, 4.0]), np.array([-2.0, 1.0, 3.0, 4.0]))
    assert one.whole.mean == 1 / 8 and one.whole.sd == pytest.approx(1 / 8)
    assert [tenth.count for tenth in one.tenths] == [0, 1, 0, 1, 0, 0, 1, 0, 1, 0]
    assert one.tenths[1].mean == 1 / 4 and one.tenths[6].mean == 0 and one.tenths[0].mean is None
    assert one.correlation == pytest.approx(0.8)
    # The first goes to the end, by three quarters, the others by one place: tenths are of the order before.
    turned = movement(np.array([1.0, 2.0, 3.0, 4.0]), np.array([4.0, 1.0, 2.0, 3.0]))
    assert [tenth.mean for tenth in turned.tenths if tenth.count] == [3 / 4, 1 / 4, 1 / 4, 1 / 4]
    # Zeros share the ranks 1 to 3: 1, 2, 3 become 2.
    tied = movement(np.array([1.0, 2.0, 3.0, 4.0]), np.array([0.0, 0.0, 0.0, 4.0]))
    assert tied.whole.mean == pytest.approx((1 + 0 + 1 + 0) / 16)
    assert movement(np.zeros(4), np.ones(4)).correlation is None


def test_movement_of_random_orders_and_rank_correlation():
    rng = np.random.default_rng(0)
    one, other = rng.standard_normal((2, 40_000))
    found = movement(one, other)
    assert found.whole.mean == pytest.approx(1 / 3, abs=0.005) and found.whole.sd == pytest.approx(18**-0.5, abs=0.005)
    moved = np.abs(stats.rankdata(np.abs(one)) - stats.rankdata(np.abs(other))) / len(one)
    assert found.whole.quantile(0.25) == pytest.approx(np.quantile(moved, 0.25), abs=1e-3)
    assert found.correlation == pytest.approx(stats.spearmanr(np.abs(one), np.abs(other))[0])


def test_sorting_order_says_who_moved_and_where():
    before = weights("dense", [[1, 2, 3, 4], [5, 6, 7, 8]], [[1, 2]])
    after = weights("tuned", [[2, 1, 3, 4], [5, 6, 7, 8]], [[1, 2]])
    found = sorting_order([before, after])
    own = rows(found, "dense to tuned")
    assert own["all"]["mean_movement"] == pytest.approx(2 / 8 / 10)
    assert own["tenth 1: 0-10%, smallest"]["mean_movement"] == 1 / 8
    assert own["layer 2 intermediate"]["mean_movement"] == 0
    assert found.answer.startswith("dense to tuned: a weight moves 2.5% of its matrix on average")
    line, heat = found.chart.panels
    assert isinstance(line, LinePanel) and isinstance(heat, HeatPanel) and isinstance(line.lines[0], ChartLine)
    with pytest.raises(UserError, match=r"architecture.*layer 1 attention query: 2x4 in dense, 1x4 in small"):
        sorting_order([before, weights("small", [[1, 2, 3, 4]], [[1, 2]])])


def test_moments_and_distance_are_those_of_scipy():
    rng = np.random.default_rng(0)
    values = rng.gamma(3.0, size=(50, 40)).astype(np.float32)
    found, flat = distribution(values, (1.0,)), values.ravel().astype(np.float64)
    assert found.skewness == pytest.approx(stats.skew(flat)) and found.kurtosis == pytest.approx(stats.kurtosis(flat))
    # Of one of the two the largest difference is above, of the other below.
    for side in (flat, -flat):
        wanted = stats.kstest(side, stats.norm(side.mean(), side.std()).cdf).statistic
        assert distribution(side[None]).distance == pytest.approx(wanted)
    assert found.below == (np.mean(flat < 1.0),)
    drawn = distribution(rng.standard_normal((500, 400)))
    assert drawn.distance is not None and drawn.distance < 0.004


def test_zeros_are_no_part_of_a_distribution_and_constants_have_none():
    found = distribution(np.array([[0.0, 0.0, -1.0, 1.0]]), (0.5, 2.0))
    assert (found.zeros, found.mean, found.sd, found.below) == (0.5, 0.0, 1.0, (0.5, 1.0))
    assert distribution(np.zeros((2, 2))).mean is None and distribution(np.zeros((2, 2))).zeros == 1
    constant = distribution(np.full((2, 2), 0.3))
    assert constant.mean == pytest.approx(0.3) and constant.distance is None and constant.kurtosis is None


def test_weight_distribution_has_other_matrices_too():
    rng = np.random.default_rng(0)
    one = weights("m", rng.standard_normal((30, 20)).tolist(), np.sign(rng.standard_normal((9, 9))).tolist())
    found = weight_distribution([one], {"m": {"embeddings.word_embeddings.weight": np.array([[1.0, 2.0]])}}, (0.7,))
    own = rows(found, "m")
    assert list(own) == ["layer 1 attention query", "layer 2 intermediate", "embeddings.word_embeddings.weight"]
    assert own["embeddings.word_embeddings.weight"]["mean"] == 1.5 and "below_0.7" in own["layer 1 attention query"]
    assert "in layer 2 intermediate" in found.answer and found.answer.startswith("The matrices of m are")
    nothing = weight_distribution([weights("z", [[0.0]], [[0.0]])])
    assert nothing.answer == "No matrix has weights that differ, so there is no distribution."


BLOCKS = [
    HeadBlock(0, "attention query", np.array([[0.0, 0.0, 1.0, 2.0], [3.0, 4.0, 5.0, 6.0]]), "q"),
    HeadBlock(0, "attention key", np.array([[0.0, 1.0, 1.0, 2.0], [0.0, 4.0, 5.0, 6.0]]), "k"),
    HeadBlock(2, "attention query", np.array([[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]]), "q"),
]


def test_zeros_of_heads_by_hand():
    found = head_zeros({"m": BLOCKS})
    own = {row.values[:2]: row.values[2:] for row in found.rows}
    assert own[("layer 1", "attention query")][:4] == (2, 0, 0.25, 0.5)
    # Three and one of eight weights.
    assert own[("layer 1", TOGETHER)][:5] == (2, 1 / 8, 1 / 4, 3 / 8, 1 / 8)
    # By chance: a quarter of each matrix, so the variance of a head of eight weights is 3/16/8.
    assert own[("layer 1", TOGETHER)][5] == pytest.approx((3 / 16 / 8) ** 0.5)
    assert own[("all layers", TOGETHER)][:4] == (4, 0, 1 / 8, 3 / 8)
    assert ("layer 3", "attention key") not in own
    [panel] = found.chart.panels
    assert isinstance(panel, RangePanel) and [one.label for one in panel.ranges] == ["layer 1", "layer 3"]
    assert "of a head 0.0% to 37.5% is zero, 12.5% on average of 4 heads" in found.answer


def test_zeros_of_heads_at_sparsities_that_magnitude_would_give():
    found = head_zeros({"m": BLOCKS[2:]}, [0.5, 0.25])
    own = {(row.heading, row.values[1]): row.values[2:] for row in found.rows if row.values[0] == "all layers"}
    assert own[("m, 50% smallest", TOGETHER)][:4] == (2, 0, 0.5, 1.0)
    assert own[("m, 25% smallest", TOGETHER)][:4] == (2, 0, 0.25, 0.5)
    [panel] = found.chart.panels
    assert isinstance(panel, LinePanel) and panel.lines[0].high == (50.0, 100.0)
    with pytest.raises(UserError, match="The checkpoint has no attention heads; got m"):
        head_zeros({"m": []})
    # Queries and keys in one tensor, of which the keys are the smaller half.
    fused = [
        HeadBlock(0, "attention query", np.full((2, 3), 9.0), "qkv"),
        HeadBlock(0, "attention key", np.ones((2, 3)), "qkv"),
    ]
    shares = {row.values[1]: row.values[4] for row in head_zeros({"m": fused}, [0.5]).rows}
    assert (shares["attention query"], shares["attention key"]) == (0.0, 1.0)
    half = HeadBlock(0, "attention key", np.eye(40), "k")
    with pytest.raises(UserError, match=r"More of a matrix of m is zero.*got 97\.5% of layer 1 attention key"):
        head_zeros({"m": [half]}, [0.5])

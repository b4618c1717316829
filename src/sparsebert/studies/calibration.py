"""How far a classifier's probabilities can be believed: expected calibration error, and Brier score."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

BINS = 15


@dataclass(frozen=True)
class ClassAnswers:
    """What a classifier says of some rows: `chances` [rows, classes] sum to one, `labels` [rows] are what is so."""

    chances: np.ndarray
    labels: np.ndarray

    @classmethod
    def of(cls, logits: np.ndarray, labels: np.ndarray) -> ClassAnswers:
        """By the softmax of logits [rows, classes]."""
        from scipy.special import softmax

        return cls(softmax(logits.astype(np.float64), axis=1), labels)

    @property
    def chosen(self) -> np.ndarray:
        """The most probable class [rows]."""
        return self.chances.argmax(axis=1)

    @property
    def right(self) -> np.ndarray:
        """Whether it is the label [rows]."""
        return self.chosen == self.labels

    @property
    def confidence(self) -> np.ndarray:
        """The probability of the chosen class [rows]."""
        return self.chances.max(axis=1)

    @property
    def bins(self) -> np.ndarray:
        """Which of BINS equal parts of 0 to 1 the confidence is in, its upper end included [rows]."""
        return np.clip(np.ceil(self.confidence * BINS).astype(int) - 1, 0, BINS - 1)

    @property
    def gaps(self) -> np.ndarray:
        """Confidence less what is right [rows]; the calibration error adds up their sums by bin."""
        return self.confidence - self.right

    @property
    def brier(self) -> np.ndarray:
        """Of each row, the squares of the probabilities less 1 for the label and 0 for others, summed [rows].

        Brier 1950: 0 is best, 2 worst.
        """
        wanted = np.eye(self.chances.shape[1])[self.labels]
        return np.square(self.chances - wanted).sum(axis=1)

    @property
    def calibration_error(self) -> float:
        """ECE with BINS bins (Guo et al. 2017, arXiv:1706.04599, equation 3), 0-1."""
        return binned_error(self.bins, self.gaps)

    def by_bin(self) -> list[tuple[float, float, int]]:
        """Mean confidence, part that is right, and rows of each bin with rows."""
        found = []
        for place in range(BINS):
            own = self.bins == place
            if own.any():
                found.append((float(self.confidence[own].mean()), float(self.right[own].mean()), int(own.sum())))
        return found


def binned_error(bins: np.ndarray, gaps: np.ndarray) -> float:
    """Sum over bins of |sum of gaps| by the number of rows: the weighted mean of |confidence - accuracy| of bins."""
    return float(np.abs(np.bincount(bins, gaps, minlength=BINS)).sum() / len(gaps))

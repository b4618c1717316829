"""How far the probabilities of two models lie apart: Kullback-Leibler divergences of softmaxes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def mean_divergence(teacher: np.ndarray, student: np.ndarray) -> float:
    """KL(teacher || student) of logits [answers, classes], in nats, a mean over answers."""
    from scipy.special import log_softmax

    log_teacher, log_student = log_softmax(teacher, axis=-1), log_softmax(student, axis=-1)
    return float(np.mean(np.sum(np.exp(log_teacher) * (log_teacher - log_student), axis=-1)))


def softened_divergence(student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    """T^2 KL(teacher || student) of softened logits [answers, classes], a mean over answers (see `distillation`)."""
    import torch.nn.functional as F

    log_student = F.log_softmax(student / temperature, dim=-1)
    log_teacher = F.log_softmax(teacher / temperature, dim=-1)
    return temperature**2 * F.kl_div(log_student, log_teacher, reduction="batchmean", log_target=True)

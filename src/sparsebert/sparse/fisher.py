"""The optimal BERT surgeon: a block-diagonal empirical Fisher, and the closed-form update of what stays."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from sparsebert.errors import UserError
from sparsebert.sparse.sites import Site
from sparsebert.sparse.views import Criterion, State, View, Views, check_seen

TINY = 1e-30


def fisher(block: int = 50, gradients: int = 32, damping: float = 1e-7) -> Criterion:
    """w^2 / (2 [F^-1]_ww), and an update of the other weights of its block (Kurtic et al. 2022, arXiv:2203.07259).

    F is the mean of g g^T over the last `gradients` steps before a change of masks (where these come more often, the
    sum over those since the last one, divided by `gradients` all the same), plus `damping` on the diagonal, in blocks
    of `block` weights along the rows (their eq. 4-5); its inverse is kept up to date by the Woodbury formula (eq. 6),
    [weights / block, block, block], that is 4 * block bytes a weight. Score: eq. 3 for single weights; a larger unit
    has the sum of its weights' scores, without the cross terms. Update: eq. 2, joint for all that goes
    from a block. Raises ValueError for values out of range.
    """
    if block < 1 or gradients < 1 or damping <= 0:
        raise ValueError("block and gradients must be at least 1 and damping positive")

    def start(weight: torch.Tensor) -> State:
        count = -(-weight.numel() // block)
        eye = torch.eye(block, device=weight.device) / damping
        return {"inverse": eye.expand(count, block, block).clone(), "seen": torch.zeros(1, device=weight.device)}

    def observe(view: View) -> None:
        assert view.grad is not None
        # Weights that are gone have no part in the curvature of those that stay.
        grad = _blocks(view.grad * view.mask, block)
        inverse = view.state["inverse"]
        moved = torch.bmm(inverse, grad[:, :, None]).squeeze(2)
        # One gradient at a time, so that neither F nor the gradients are ever held. F is a mean: the 1 / gradients in
        # front of g g^T becomes this summand of the denominator.
        scale = gradients + (grad * moved).sum(dim=1)
        inverse.sub_(moved[:, :, None] * (moved / scale[:, None])[:, None, :])
        view.state["seen"] += 1

    def score(site: Site, views: Views) -> torch.Tensor:
        for view in views.values():
            check_seen(view, view.state["seen"])
        return site.pool({name: _saliency(view, block) for name, view in views.items()})

    def correct(site: Site, views: Views, keep: torch.Tensor) -> dict[str, torch.Tensor]:
        masks = site.expand(keep)
        return {name: _updated(view, masks[name], block) for name, view in views.items()}

    return Criterion(score, start=start, observe=observe, window=gradients, correct=correct)


def _saliency(view: View, block: int) -> torch.Tensor:
    # Positive in exact arithmetic; the many rank-one updates in single precision may leave zero or less.
    diagonal = view.state["inverse"].diagonal(dim1=1, dim2=2).flatten()[: view.weight.numel()]
    return view.weight.float() ** 2 / (2 * diagonal.view_as(view.weight).clamp_min(TINY))


def _updated(view: View, keep: torch.Tensor, block: int) -> torch.Tensor:
    """W - F^-1_:Q (F^-1_QQ)^-1 w_Q in every block, with Q all that is gone or goes."""
    weights, inverse = _blocks(view.weight, block), view.state["inverse"]
    gone = ~_blocks(keep.float(), block).bool()
    # Rows and columns outside Q become those of the identity, so that one batch of solves does for all blocks.
    pairs = gone[:, :, None] & gone[:, None, :]
    eye = torch.eye(block, device=weights.device)
    inner = torch.where(pairs, inverse, eye)
    solved, failed = torch.linalg.solve_ex(inner, torch.where(gone, weights, 0.0)[:, :, None])
    if bool(failed.any()) or not bool(torch.isfinite(solved).all()):
        raise UserError(
            f"The gradients of {view.name} are too large for the damping of the criterion fisher",
            fix="raise its damping, or clip gradients (max_grad_norm)",
        )
    changed = weights - torch.bmm(inverse, solved).squeeze(2)
    flat = torch.where(gone, 0.0, changed).flatten()[: view.weight.numel()]
    return flat.view_as(view.weight).to(view.weight.dtype)


def _blocks(tensor: torch.Tensor, block: int) -> torch.Tensor:
    """A tensor's entries in rows of `block`, the last one filled with zeros."""
    # The filling has no gradient, so its part of the inverse stays diagonal and changes no weight.
    flat = tensor.float().flatten()
    return F.pad(flat, (0, -len(flat) % block)).view(-1, block)

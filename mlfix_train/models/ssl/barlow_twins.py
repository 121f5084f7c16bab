"""The loss of Barlow Twins: features that agree between two views of an image, and are decorrelated from each other.

Source: Zbontar, Jing, Misra, LeCun and Deny 2021, "Barlow Twins: self-supervised learning via redundancy reduction".

Shapes: N samples of a batch, of all processes together; D features.
"""

import torch
from torch import Tensor

EPS = 1e-5
"""Added to variances."""


def barlow_twins_loss(z_a: Tensor, z_b: Tensor, redundancy: float = 5e-3) -> Tensor:
    """Returns how far the cross-correlation of two views' features is from the identity.

    Args:
        z_a: Float ``(N, D)``, features of the first views.
        z_b: Float ``(N, D)``, features of the second views of the same samples, in the same order.
        redundancy: Weight of the off-diagonal (the paper's lambda), 0 or more.

    Returns:
        A scalar, 0 or more, lower is better: the sum over features of (1 - their correlation between the views)^2, plus
        ``redundancy`` times the sum over pairs of different features of their squared correlation.
    """
    with torch.autocast(z_a.device.type, enabled=False):  # else the product would be in half precision
        z_a, z_b = gather_with_gradient(z_a.float()), gather_with_gradient(z_b.float())
        correlation = standardize(z_a).T @ standardize(z_b) / len(z_a)
    diagonal = correlation.diagonal()
    off_diagonal = correlation.square().sum() - diagonal.square().sum()
    return (1 - diagonal).square().sum() + redundancy * off_diagonal


def standardize(z: Tensor) -> Tensor:
    """Scales each feature of ``(N, D)`` to mean 0 and (biased) variance 1 over the batch."""
    centered = z - z.mean(0)
    return centered * (centered.square().mean(0) + EPS).rsqrt()


def gather_with_gradient(z: Tensor) -> Tensor:
    """Returns the rows of all processes, from ``(n, D)`` to ``(N, D)``; gradients flow through.

    Each process then computes the loss of the whole batch. Backward sums the gradients of all processes' losses, which
    are equal, and DDP averages over processes: the result is the gradient of that one loss.
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return z
    from torch.distributed.nn.functional import all_gather

    return torch.cat(list(all_gather(z)))  # type: ignore[no-untyped-call]

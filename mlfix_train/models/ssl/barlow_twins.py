"""The loss of Barlow Twins: what two views of an image share should be told by features that say nothing twice.

Source: Zbontar, Jing, Misra, LeCun and Deny 2021, "Barlow Twins: self-supervised learning via redundancy reduction".

Shapes: N samples of a batch, of all processes together; D features.
"""

from __future__ import annotations

import torch
from torch import Tensor

EPS = 1e-5
"""Added to variances."""


def barlow_twins_loss(z_a: Tensor, z_b: Tensor, redundancy: float = 5e-3) -> Tensor:
    """Returns how far the cross-correlation of two views' features is from the identity.

    Args:
        z_a: float ``N,D``, features of the first views.
        z_b: float ``N,D``, features of the second views, row by row of the same samples.
        redundancy: weight of the off-diagonal (the paper's lambda).

    Returns:
        A scalar, 0 or more, lower is better: the sum over features of (1 - their correlation between the views)^2, plus
        ``redundancy`` times the sum over pairs of different features of their correlation squared.
    """
    with torch.autocast(z_a.device.type, enabled=False):  # mixed precision would multiply in half precision again
        z_a, z_b = gather_with_gradient(z_a.float()), gather_with_gradient(z_b.float())
        correlation = standardize(z_a).T @ standardize(z_b) / len(z_a)
    diagonal = correlation.diagonal()
    together = (1 - diagonal).square().sum()
    apart = correlation.square().sum() - diagonal.square().sum()
    return together + redundancy * apart


def standardize(z: Tensor) -> Tensor:
    """Brings each feature to mean 0 and variance 1 over the batch (the biased variance, as a batch norm has it)."""
    centred = z - z.mean(0)
    return centred * (centred.square().mean(0) + EPS).rsqrt()


def gather_with_gradient(z: Tensor) -> Tensor:
    """Returns the rows of all processes, own ``n,D`` to ``N,D``, through which gradients flow; alone it is ``z``.

    Each process then computes the loss of the whole batch. Backward sums the gradients of all processes' losses, which
    are equal, and DDP takes the mean over processes: what is left is the gradient of the one loss.
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return z
    from torch.distributed.nn.functional import all_gather

    return torch.cat(list(all_gather(z)))

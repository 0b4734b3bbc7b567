"""Hard negative bags: what a first training mistook for positive, as new negative bags (Li et al. 2019; METHODS §5).

The paper's own: attention pooling, adaptive weighting (`aggregator.adaptive_weight`), and hard negatives by attention
weight. Its authors released no code: that λ is 2 and K is 10, that only *false-positive* bags are looked at, and how
the new bags are drawn, are from an independent re-implementation.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from napari_mil.errors import MethodError
from napari_mil.mil.bag import Bag

NAME = "hard negatives"
"""What the new bags' slide ids begin with."""


def hard_negatives(weights: Tensor | npt.NDArray[np.floating], *, deviations: float = 1.0) -> Tensor:
    """Patches of a negative bag that look positive: w_j ≥ w̄ + d·σ (Li et al. 2019).

    Parameters
    ----------
    weights : (N,) tensor or array
        Attention weights of the bag's patches.
    deviations : float
        d: by how many standard deviations of the bag's weights (divided by N) above their mean; 1 in the paper.

    Returns
    -------
    LongTensor
        Their indices, ascending. All of them where all weights are the same; none where no weight lies so high.
    """
    w = torch.as_tensor(weights).detach().double()
    if w.ndim != 1 or len(w) == 0:
        raise MethodError(f"Weights of shape {tuple(w.shape)}; expected one for each patch of a bag.")
    bound = w.mean() + deviations * w.std(correction=0)
    return (w >= bound - 1e-12 * w.abs().max()).nonzero()[:, 0]  # a mean of equal weights can be rounded up


def hard_negative_bags(
    bags: Sequence[Bag],
    weights: Sequence[Tensor | npt.NDArray[np.floating]],
    *,
    n_clusters: int = 10,
    n_bags: int | None = None,
    deviations: float = 1.0,
    sizes: Sequence[int] | None = None,
    taken: Collection[str] = (),
    generator: torch.Generator | None = None,
) -> list[Bag]:
    """New negative bags of the hard patches of false-positive bags.

    All hard patches are pooled and clustered by k-means on their features. A new bag's size is drawn from N(μ, σ) of
    the training bags' sizes, and each of its patches from a cluster, chosen with probability proportional to its size.
    Taken together every hard patch is drawn equally often: the clusters only order the draws.

    Parameters
    ----------
    bags : sequence of Bag
        Negative training bags that the first training took for positive.
    weights : sequence of (N,) tensors or arrays
        Attention weights of each.
    n_clusters : int
        K of k-means; fewer where there are fewer patches.
    n_bags : int or None
        How many bags to make. None: K.
    deviations : float
        See `hard_negatives`.
    sizes : sequence of int or None
        Patches of each training bag, whose mean and standard deviation the new sizes have. None: those of `bags`.
    taken : collection of str
        Slide ids that the new bags must not have.
    generator : torch.Generator or None
        Of k-means and all draws; a CPU generator.

    Returns
    -------
    list of Bag
        Label 0, all patches known to be 0; none where no patch is hard.
    """
    if len(bags) != len(weights):
        raise MethodError(f"{len(weights)} lists of weights for {len(bags)} bags; expected one for each bag.")
    for bag, values in zip(bags, weights, strict=True):
        if len(values) != len(bag):
            raise MethodError(f"Slide {bag.slide_id}: {len(values)} weights for {len(bag)} patches.")
    pool = _pool(bags, [hard_negatives(values, deviations=deviations) for values in weights])
    if pool is None:
        return []
    order, counts = _clustered(pool, n_clusters, generator)
    starts = counts.cumsum(0) - counts
    wanted = torch.tensor([len(bag) for bag in bags] if sizes is None else list(sizes), dtype=torch.float64)
    mean, deviation = wanted.mean(), wanted.std(correction=0)
    made = []
    for slide_id in _free_names(n_bags or n_clusters, {bag.slide_id for bag in bags} | set(taken)):
        drawn = mean + deviation * torch.randn((), dtype=torch.float64, generator=generator)
        n = max(1, round(float(drawn)))
        cluster = torch.multinomial(counts.double(), n, replacement=True, generator=generator)  # (n,)
        within = torch.rand(n, dtype=torch.float64, generator=generator) * counts[cluster]
        rows = order[starts[cluster] + within.long()]
        made.append(Bag(slide_id, pool[rows.numpy()], label=0, patch_labels=np.zeros(n, dtype=np.int8)))
    return made


def _pool(bags: Sequence[Bag], hard: Sequence[Tensor]) -> npt.NDArray[np.floating] | None:
    """Features (n, D) of all hard patches; half precision where the bags have it, since the new ones copy them."""
    rows = [bag.rows(index.numpy()) for bag, index in zip(bags, hard, strict=True) if len(index)]
    if not rows:
        return None
    half = all("float16" in str(bag.features.dtype) for bag in bags)
    pool: npt.NDArray[np.floating] = torch.cat(rows).numpy()
    return pool.astype(np.float16) if half else pool


def _clustered(
    pool: npt.NDArray[np.floating], n_clusters: int, generator: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    """Rows (n,) sorted by cluster, and the number of rows in each cluster."""
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits

    seed = int(torch.randint(2**31 - 1, (), generator=generator))
    k_means = KMeans(min(n_clusters, len(pool)), n_init=1, random_state=seed)
    with warnings.catch_warnings(), threadpool_limits(1):  # on several threads sums depend on who is first
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct patches than clusters
        labels = torch.from_numpy(k_means.fit_predict(pool.astype(np.float32))).long()
    return labels.argsort(stable=True), torch.bincount(labels)


def _free_names(count: int, taken: Collection[str]) -> list[str]:
    prefix = NAME
    while any(name.startswith(prefix) for name in taken):
        prefix = f"more {prefix}"
    return [f"{prefix} {number}" for number in range(1, count + 1)]

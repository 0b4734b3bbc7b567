"""The stem of MHIM-MIL, which most aggregators stand on."""

from __future__ import annotations

from torch import Tensor, nn

from .base import Aggregator


def linear_stem(in_dim: int, dim: int, dropout: float, activation: str = "relu") -> nn.Sequential:
    """Dropout(act(Linear(x))), (N, in_dim) → (N, dim)."""
    act: nn.Module = nn.GELU() if activation == "gelu" else nn.ReLU()
    return nn.Sequential(nn.Linear(in_dim, dim), act, nn.Dropout(dropout))


class OverStem(Aggregator):
    """An aggregator over h = Dropout(act(W x + b)) (Tang et al. 2023; METHODS §1.2).

    Parameters
    ----------
    activation : "relu" or "gelu"
    stem_dim : int
        Width of h, D'.
    dropout : float
        After the stem.
    threshold : float or None
        T of `threshold_attention`; the aggregator itself says where it acts.
    """

    def __init__(
        self,
        in_dim: int,
        n_classes: int,
        binary_head: str,
        activation: str,
        stem_dim: int,
        dropout: float,
        threshold: float | None = None,
    ) -> None:
        super().__init__(in_dim, n_classes, binary_head)
        self.threshold = threshold
        self.embed = linear_stem(in_dim, stem_dim, dropout, activation)

    def instances(self, x: Tensor) -> Tensor:
        return self.embed(x)  # type: ignore[no-any-return]

    def stem(self) -> nn.Module:
        return self.embed

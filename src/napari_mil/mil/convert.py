"""Published checkpoints, translated to our networks' names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from napari_mil.errors import MethodError

if TYPE_CHECKING:
    from torch import Tensor

_RANK = {
    "adaptor.0.weight": "adaptor_in.weight",
    "adaptor.0.bias": "adaptor_in.bias",
    "adaptor.2.weight": "adaptor_out.weight",
    "adaptor.2.bias": "adaptor_out.bias",
    "attention_layer.linear.weight": "score.weight",
    "attention_layer.linear.bias": "score.bias",
    "classifier.weight": "classifier.weight",
    "classifier.bias": "classifier.bias",
}
_MHIM_V1 = {
    "patch_to_emb.0.weight": "embed.0.weight",
    "patch_to_emb.0.bias": "embed.0.bias",
    "online_encoder.attention.attention.0.weight": "attention.v.weight",
    "online_encoder.attention.attention.2.weight": "attention.w.weight",
    "predictor.weight": "classifier.weight",
    "predictor.bias": "classifier.bias",
}


def convert_state_dict(state: Mapping[str, Tensor], source: str) -> tuple[str, dict[str, Any], dict[str, Tensor]]:
    """A published checkpoint as one of ours.

    Parameters
    ----------
    state : mapping of str to tensor
        As published (read it with `torch.load(…, weights_only=True)`).
    source : "rank_induction" or "mhim_v1"
        Whose code wrote it.

    Returns
    -------
    name, options, state : str, dict, dict
        Of `build_aggregator(name, in_dim, n_classes, **options)`, and what its `load_state_dict` takes strictly.

    Raises
    ------
    MethodError
        Unknown source, or keys that do not fit; all of them are listed.
    """
    names = {"rank_induction": _RANK, "mhim_v1": _MHIM_V1}.get(source)
    if names is None:
        raise MethodError(f"There is no published source {source!r}; expected rank_induction or mhim_v1.")
    missing = [key for key in names if key not in state]
    unknown = [key for key in state if key not in names]
    if missing or unknown:
        raise MethodError(
            f"This is not an AB-MIL checkpoint of {source}: "
            f"missing {', '.join(missing) or 'nothing'}; unknown {', '.join(unknown) or 'nothing'}."
        )
    converted = {new: state[old] for old, new in names.items()}
    head = "single" if len(converted["classifier.weight"]) == 1 else "two"
    if source == "rank_induction":
        return "ab_mil_rank", {"hidden": len(converted["adaptor_in.weight"]), "binary_head": head}, converted
    options = {
        "stem_dim": len(converted["embed.0.weight"]),
        "attention_dim": len(converted["attention.v.weight"]),
        "binary_head": head,
    }
    return "ab_mil_mhim", options, converted

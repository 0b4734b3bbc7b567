"""Published checkpoints, translated to our networks' names."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_mil.errors import MethodError

if TYPE_CHECKING:
    from torch import Tensor


def _both(names: Mapping[str, str]) -> dict[str, str]:
    """Weight and bias of each layer."""
    return {f"{old}.{part}": f"{new}.{part}" for old, new in names.items() for part in ("weight", "bias")}


_RANK = _both(
    {
        "adaptor.0": "adaptor_in",
        "adaptor.2": "adaptor_out",
        "attention_layer.linear": "score",
        "classifier": "classifier",
    }
)
_HEAD = _both({"predictor": "classifier"})
_AB_MIL = {
    "online_encoder.attention.attention.0.weight": "attention.v.weight",
    "online_encoder.attention.attention.2.weight": "attention.w.weight",
    **_HEAD,
}
_GATED = {
    "online_encoder.attention.attention_a.0.weight": "attention.v.weight",
    "online_encoder.attention.attention_b.0.weight": "attention.u.weight",
    "online_encoder.attention.attention_c.weight": "attention.w.weight",
    **_HEAD,
}
_DSMIL = _both(
    {
        "online_encoder.i_classifier.0": "instance_classifier",
        "online_encoder.b_classifier.q.0": "query.0",
        "online_encoder.b_classifier.q.2": "query.2",
        "online_encoder.b_classifier.v.1": "value.1",
        "online_encoder.b_classifier.fcc": "bag_classifier",
    }
)
_TRANS_MIL = {
    "online_encoder.cls_token": "cls_token",
    **_both({f"online_encoder.pos_embedding.{conv}": f"pos_embedding.{conv}" for conv in ("proj", "proj1", "proj2")}),
    **_both({f"online_encoder.layer{k}.norm": f"layer{k}.norm" for k in (1, 2)}),
    **_both({f"online_encoder.layer{k}.attn.to_out.0": f"layer{k}.attn.to_out" for k in (1, 2)}),
    **{
        f"online_encoder.layer{k}.attn.{part}.weight": f"layer{k}.attn.{part}.weight"
        for k in (1, 2)
        for part in ("to_qkv", "res_conv")
    },
    **_both({"online_encoder.norm": "norm"}),
    **_HEAD,
}
# a key that only this model has → our name for the model, its keys
_MHIM = {
    "online_encoder.i_classifier.0.weight": ("dsmil", _DSMIL),
    "online_encoder.cls_token": ("trans_mil", _TRANS_MIL),
    "online_encoder.attention.attention_a.0.weight": ("ab_mil_mhim", _GATED),
    "online_encoder.attention.attention.0.weight": ("ab_mil_mhim", _AB_MIL),
}
_STEMS = {"mhim_v1": "patch_to_emb.0", "mhim_v2": "feature.0"}
SOURCES = ("rank_induction", *_STEMS)


def convert_state_dict(state: Mapping[str, Tensor], source: str) -> tuple[str, dict[str, Any], dict[str, Tensor]]:
    """A published checkpoint as one of ours.

    The model is told by its keys, its sizes by their shapes. Left out is what inference does not need: the recycle
    network of MHIM-MIL's second version (`merge.*`), and the head that its DSMIL carries without using it.

    Parameters
    ----------
    state : mapping of str to tensor
        As published; `read_published` reads a file.
    source : "rank_induction", "mhim_v1" or "mhim_v2"
        Whose code wrote it.

    Returns
    -------
    name, options, state : str, dict, dict
        Of `build_aggregator(name, in_dim, n_classes, **options)`, and what its `load_state_dict` takes strictly.

    Raises
    ------
    MethodError
        Unknown source, or keys or sizes that do not fit; all of them are listed.
    """
    name, converted = renamed(state, source)
    options = _options(name, source, converted)
    _check_sizes(name, options, converted, source)
    return name, options, converted


def renamed(state: Mapping[str, Tensor], source: str) -> tuple[str, dict[str, Tensor]]:
    """Our name of a published model, and its tensors under our keys, whatever their sizes."""
    if source not in SOURCES:
        raise MethodError(f"There is no published source {source!r}; expected {', '.join(SOURCES[:-1])} or mhim_v2.")
    name, names, unused = _keys_of(state, source)
    missing = [key for key in names if key not in state]
    unknown = [key for key in state if key not in names and not key.startswith(unused)]
    if missing or unknown:
        raise MethodError(
            f"This is not a checkpoint of {source} ({name}): "
            f"missing {', '.join(missing) or 'nothing'}; unknown {', '.join(unknown) or 'nothing'}."
        )
    converted = {new: state[old] for old, new in names.items()}
    if name == "trans_mil":
        converted["cls_token"] = converted["cls_token"].flatten(0, -2)
    return name, converted


def read_published(path: Path | str) -> dict[str, Tensor]:
    """The state dict in a file that `torch.save` wrote; nothing but tensors is read, no code is run.

    Raises
    ------
    MethodError
        No such file, or something else than a state dict is in it.
    """
    import torch

    path = Path(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise MethodError(f"There is no file {path}.") from error
    except (pickle.UnpicklingError, RuntimeError, ValueError, EOFError, OSError) as error:
        raise MethodError(
            f"{path} cannot be read as weights alone ({str(error).splitlines()[0]}); expected a state dict written by "
            "torch.save. Whole pickled models can run any code when they are read, so they are refused."
        ) from error
    if isinstance(content, Mapping):
        inner = [content[key] for key in ("state_dict", "model_state_dict", "model") if key in content]
        content = inner[0] if inner else content
    if (
        not isinstance(content, Mapping)
        or not content
        or not all(isinstance(v, torch.Tensor) for v in content.values())
    ):
        raise MethodError(f"{path} holds no state dict; expected names and their tensors, nothing else.")
    return {str(key): value for key, value in content.items()}


def _keys_of(state: Mapping[str, Tensor], source: str) -> tuple[str, dict[str, str], tuple[str, ...]]:
    """Our name of the model, its keys → ours, and beginnings of keys to leave out."""
    if source == "rank_induction":
        return "ab_mil_rank", _RANK, ()
    found = [entry for key, entry in _MHIM.items() if key in state]
    name, inner = found[0] if found else ("ab_mil_mhim", _AB_MIL)
    unused = ("merge.",) if source == "mhim_v2" else ()
    return name, {**_both({_STEMS[source]: "embed.0"}), **inner}, (*unused, "predictor.") if name == "dsmil" else unused


def _options(name: str, source: str, state: Mapping[str, Tensor]) -> dict[str, Any]:
    """What the shapes say, and what differs between the versions."""

    def rows(key: str) -> int:
        return len(state[f"{key}.weight"])

    if name == "ab_mil_rank":
        return {"hidden": rows("adaptor_in"), "binary_head": _head(rows("classifier"))}
    options: dict[str, Any] = {
        "stem_dim": rows("embed.0"),
        "activation": "gelu" if source == "mhim_v2" else "relu",
    }
    if name == "dsmil":
        fusion = "logits" if source == "mhim_v2" else "probabilities"
        return {
            **options,
            "query_dim": rows("query.0"),
            "fusion": fusion,
            "binary_head": _head(rows("instance_classifier")),
        }
    if name == "trans_mil":
        return {**options, "heads": rows("layer1.attn.res_conv"), "binary_head": _head(rows("classifier"))}
    gated = "attention.u.weight" in state
    return {
        **options,
        "attention_dim": rows("attention.v"),
        "gated": gated,
        "binary_head": _head(rows("classifier")),
    }


def _check_sizes(name: str, options: Mapping[str, Any], state: Mapping[str, Tensor], source: str) -> None:
    """Refuse layers whose sizes do not go together."""
    import torch

    from .aggregators import build_aggregator

    first = "adaptor_in" if name == "ab_mil_rank" else "embed.0"
    last = "instance_classifier" if name == "dsmil" else "classifier"
    in_dim, n_classes = state[f"{first}.weight"].shape[1], max(2, len(state[f"{last}.weight"]))
    with torch.device("meta"):  # sizes alone: nothing is drawn
        network = build_aggregator(name, in_dim, n_classes, **options).state_dict()
    wrong = [
        f"{key} {tuple(state[key].shape)}, not {tuple(expected.shape)}"
        for key, expected in network.items()
        if state[key].shape != expected.shape
    ]
    if wrong:
        raise MethodError(f"The sizes in this checkpoint of {source} ({name}) do not go together: {'; '.join(wrong)}.")


def _head(logits: int) -> str:
    return "single" if logits == 1 else "two"

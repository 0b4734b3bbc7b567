"""Published encoders as torch modules: built from timm's parts, filled from their files of weights.

All are vision transformers. CONCH's image tower ends in an attention over its tokens, as in CoCa (Yu et al., TMLR
2022); what it gives before the projection to the space of texts is what its authors recommend as features.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_mil.errors import FeatureError

from .published import PublishedEncoder
from .state_dicts import check_fits, read_state


class PublishedNetwork(nn.Module):
    """Patches scaled with the encoder's mean and std (B, 3, h, w) → (B, D)."""

    def __init__(self, about: PublishedEncoder) -> None:
        super().__init__()
        self.about = about
        self.trunk = _vision_transformer(about)
        if about.pooling == "attention":
            self.attn_pool_contrast = AttentionPool(about.dim, self.trunk.num_features, heads=8)
            self.ln_contrast = nn.LayerNorm(about.dim)

    def forward(self, patches: Tensor) -> Tensor:
        tokens = self.trunk.forward_features(self.fitted(patches))  # (B, prefix + patches, width)
        if self.about.pooling == "attention":
            pooled: Tensor = self.ln_contrast(self.attn_pool_contrast(tokens)[:, 0])
            return pooled
        first: Tensor = tokens[:, 0]
        if self.about.pooling == "class token":
            return first
        return torch.cat([first, tokens[:, self.trunk.num_prefix_tokens :].mean(dim=1)], dim=1)

    def fitted(self, patches: Tensor) -> Tensor:
        """The patches resized and cut as the encoder's own transform does it with PIL.

        PIL resizes along the rows, then along the columns, and keeps colours between black and white each time.
        """
        transform, px = self.about.transform, self.about.input_px
        side, dtype = transform.resize_px, patches.dtype
        # a program that is exported takes patches of other sizes, too
        if side is not None and (torch.compiler.is_compiling() or patches.shape[-1] != side):
            colours = (torch.tensor(v, device=patches.device) for v in (transform.mean, transform.std))
            mean, std = (v.reshape(1, 3, 1, 1) for v in colours)
            matrix = resampling(patches, side, transform.filter)
            patches = patches.float()
            for _ in ("rows", "columns"):
                patches = functional.linear(patches, matrix).clamp(-mean / std, (1 - mean) / std).transpose(2, 3)
            patches = patches.to(dtype)
        start = (patches.shape[-1] - px) // 2
        return patches[..., start : start + px, start : start + px]


def resampling(patches: Tensor, side: int, name: str) -> Tensor:
    """(side, n): what each of n pixels of a row adds to each of `side`, with PIL's filters and antialiasing.

    Made of plain sums, since bf16, Apple's GPUs and OpenVINO have no such resizing; n may be unknown when exported.
    """
    source = torch.arange(patches.shape[-1], device=patches.device) + 0.5
    scale = torch.ones_like(source).sum() / side
    centres = (torch.arange(side, device=patches.device) + 0.5) * scale
    x = (source - centres[:, None]).abs() / scale.clamp(min=1)
    if name == "bilinear":
        weights = (1 - x).clamp(min=0)
    else:  # Keys's cubic with a = -1/2
        near, far = (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
        weights = torch.where(x < 1, near, torch.where(x < 2, far, torch.zeros_like(x)))
    return weights / weights.sum(dim=1, keepdim=True)


class AttentionPool(nn.Module):
    """(B, N, width) → (B, 1, dim): one learnt query looks at all tokens."""

    def __init__(self, dim: int, width: int, heads: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.empty(1, dim).normal_())
        self.attn = nn.MultiheadAttention(dim, heads, kdim=width, vdim=width, batch_first=True)
        self.ln_q = nn.LayerNorm(dim)
        self.ln_k = nn.LayerNorm(width)

    def forward(self, tokens: Tensor) -> Tensor:
        seen = self.ln_k(tokens)
        asked = self.ln_q(self.query).expand(len(tokens), -1, -1)
        answer: Tensor = self.attn(asked, seen, seen, need_weights=False)[0]
        return answer


def load_network(about: PublishedEncoder, path: Path) -> PublishedNetwork:
    """The network with the weights of a file, ready to be used.

    Raises
    ------
    FeatureError
        When the file cannot be read or is of another network.
    """
    with torch.device("meta"):  # nothing is drawn at random only to be replaced
        network = PublishedNetwork(about)
    state = converted(read_state(path), about)
    wanted = network.state_dict()
    if "trunk.pos_embed" in state:
        state["trunk.pos_embed"] = _positions(state["trunk.pos_embed"], network.trunk)
    check_fits(state, wanted, path, about.title, f"{about.file} of {about.url}")
    strange = [key for key in state if key not in wanted]
    if strange:
        raise FeatureError(
            f"{path} does not fit {about.title}: {len(strange)} of its tensors have no place, first {strange[0]!r}. "
            f"Expected {about.file} of {about.url}."
        )
    # copies: nothing holds on to a mapped file that may be replaced
    network.load_state_dict({key: value.to(torch.float32, copy=True) for key, value in state.items()}, assign=True)
    return network.requires_grad_(False).eval()


def converted(state: Mapping[str, Tensor], about: PublishedEncoder) -> dict[str, Tensor]:
    """A published file's tensors by the names of `PublishedNetwork`; those it has no use for are left out."""
    state = {key.removeprefix("module."): value for key, value in state.items()}
    if about.pooling == "attention":
        parts = ("visual.trunk.", "visual.attn_pool_contrast.", "visual.ln_contrast.")
        return {key.removeprefix("visual."): value for key, value in state.items() if key.startswith(parts)}
    if any(key.endswith("embeddings.cls_token") for key in state):
        state = _from_transformers(state)
    return {f"trunk.{key}": value for key, value in state.items() if key != "mask_token"}


# names of the library transformers (Dinov2Model) → timm's; those of the attention's three projections are apart
_NAMES = (
    ("embeddings.cls_token", "cls_token"),
    ("embeddings.mask_token", "mask_token"),
    ("embeddings.position_embeddings", "pos_embed"),
    ("embeddings.patch_embeddings.projection.", "patch_embed.proj."),
    ("encoder.layer.", "blocks."),
    ("attention.output.dense.", "attn.proj."),
    ("layer_scale1.lambda1", "ls1.gamma"),
    ("layer_scale2.lambda1", "ls2.gamma"),
    ("layernorm.", "norm."),
)


def _from_transformers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    renamed: dict[str, Tensor] = {}
    for key, value in state.items():
        key = key.removeprefix("dinov2.")
        for theirs, ours in _NAMES:
            key = key.replace(theirs, ours)
        renamed[key] = value
    for key in [key for key in renamed if ".attention.attention.query." in key]:
        parts = [renamed.pop(key.replace(".query.", f".{part}."), None) for part in ("query", "key", "value")]
        found = [part for part in parts if part is not None]
        renamed[key.replace(".attention.attention.query.", ".attn.qkv.")] = torch.cat(found)
    return renamed


def _positions(positions: Tensor, trunk: Any) -> Tensor:
    """Position embeddings on the trunk's grid: a DINOv2 of 518 px has 37 x 37 of them, for 224 px it needs 16 x 16."""
    from timm.layers import resample_abs_pos_embed

    prefix = 0 if trunk.no_embed_class else trunk.num_prefix_tokens
    if positions.ndim != 3 or positions.shape[1] == trunk.pos_embed.shape[1]:
        return positions
    side = round((positions.shape[1] - prefix) ** 0.5)
    if side * side != positions.shape[1] - prefix:
        return positions  # of another network, which is told of
    grid = list(trunk.patch_embed.grid_size)
    resampled: Tensor = resample_abs_pos_embed(positions, grid, [side, side], num_prefix_tokens=prefix)
    return resampled


def _vision_transformer(about: PublishedEncoder) -> Any:
    import timm
    from timm.layers import SwiGLUPacked

    layers: dict[Any, Any] = {"SwiGLUPacked": SwiGLUPacked, "SiLU": nn.SiLU}
    options = {key: layers.get(value, value) for key, value in about.options.items()}
    return timm.create_model(about.architecture, img_size=about.input_px, num_classes=0, global_pool="token", **options)

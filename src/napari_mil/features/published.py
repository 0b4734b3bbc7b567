"""The encoders people publish with: what each is, what it wants to see, and under which licence it is given out.

The numbers are those of the model cards (``https://huggingface.co/<repo>``), of the code published with them, and, for
the patch that UNI, UNI 2 and CONCH are given, of TRIDENT, their authors' own tool. Nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Triple = tuple[float, float, float]
Pooling = Literal["class token", "class token and mean of patches", "attention"]


@dataclass(frozen=True)
class Licence:
    """Under which terms weights may be used."""

    name: str
    url: str


@dataclass(frozen=True)
class Transform:
    """From a patch to what the network takes: resize the patch, cut out its middle, scale the pixels.

    Parameters
    ----------
    mean, std : (3,) float
        Of rgb/255.
    resize_px : int or None
        Side the patch is resized to; None: the patch must have the network's own size.
    filter : "bilinear" or "bicubic"
        How it is resized, with antialiasing.
    """

    mean: Triple
    std: Triple
    resize_px: int | None = None
    filter: Literal["bilinear", "bicubic"] = "bicubic"


@dataclass(frozen=True)
class PublishedEncoder:
    """One encoder.

    Parameters
    ----------
    name, title : str
        As it is asked for, and as its authors call it.
    repo, file, revision : str
        Where its weights lie on the Hugging Face hub; the revision is a commit, or "main" to take the one there is.
    patch_px, mpp : int, float or None
        The patch it was made for: side in pixels, µm per pixel; None for one of natural images, which have no scale.
    transform : Transform
    input_px : int
        Side of what the network itself takes.
    architecture, options : str, mapping
        ``timm.create_model(architecture, **options)``; names of layers stand for the layers.
    pooling : str
        How its tokens become one vector of `dim` numbers. Register tokens are always left out.
    millions : float
        Parameters that are used, in 10⁶.
    gated : bool
        Whether the hub wants an account that has accepted the terms.
    """

    name: str
    title: str
    repo: str
    file: str
    revision: str
    dim: int
    patch_px: int
    mpp: float | None
    input_px: int
    transform: Transform
    architecture: str
    pooling: Pooling
    millions: float
    licence: Licence
    gated: bool = True
    options: Mapping[str, Any] = field(default_factory=dict)
    file_mb: float = 0.0

    @property
    def url(self) -> str:
        """Its model card."""
        return f"https://huggingface.co/{self.repo}"

    @property
    def megabytes(self) -> float:
        """Size of the file of weights; in float32 unless the table says otherwise."""
        return self.file_mb or round(self.millions * 4)

    @property
    def gmac(self) -> float:
        """10⁹ multiplications for one patch, to within some percent: every parameter once for every token."""
        tokens = (self.input_px // int(self.options["patch_size"])) ** 2
        return self.millions * tokens / 1000

    @property
    def note(self) -> str:
        """What it is, for people."""
        made = "of natural images" if self.mpp is None else f"for patches of {self.patch_px} px at {self.mpp:g} µm/px"
        return f"{self.title}: {self.dim} numbers a patch, {self.millions:.0f} million parameters; made {made}."

    @property
    def terms(self) -> str:
        """The licence in a sentence or two, to be read before the download."""
        asked = " They are given to accounts that have accepted the terms on that page." if self.gated else ""
        return (
            f"The weights of {self.title} ({self.megabytes:.0f} MB from {self.url}) come under {self.licence.name} "
            f"({self.licence.url}).{asked}"
        )

    @property
    def transform_text(self) -> str:
        """What happens to a patch besides the scaling of its pixels, as feature files say it."""
        t = self.transform
        cut = f", middle {self.input_px} px" if t.resize_px not in (None, self.input_px) else ""
        resized = f"{t.filter} to {t.resize_px} px{cut}; " if t.resize_px is not None else ""
        return resized + self.pooling


CC_BY_NC_ND = Licence("CC BY-NC-ND 4.0, no commercial use", "https://creativecommons.org/licenses/by-nc-nd/4.0/")
APACHE = Licence("Apache 2.0", "https://www.apache.org/licenses/LICENSE-2.0")
OWKIN = Licence(
    "Owkin's licence for non-commercial use", "https://huggingface.co/owkin/phikon-v2/blob/main/LICENSE.pdf"
)

IMAGENET: tuple[Triple, Triple] = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CLIP: tuple[Triple, Triple] = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
H_OPTIMUS: tuple[Triple, Triple] = ((0.707223, 0.578729, 0.703617), (0.211883, 0.230117, 0.177517))


def _dinov2(size: str, dim: int, millions: float, file_mb: float) -> PublishedEncoder:
    """A DINOv2 as timm gives it out: trained on natural images, at last of 518 px; here it sees 224 px."""
    return PublishedEncoder(
        name=f"dinov2-{size}",
        title=f"DINOv2 {size}",
        repo=f"timm/vit_{size}_patch14_dinov2.lvd142m",
        file="model.safetensors",
        revision="main",
        dim=dim,
        patch_px=224,
        mpp=None,
        input_px=224,
        transform=Transform(*IMAGENET, resize_px=224),
        architecture=f"vit_{size}_patch14_dinov2",
        options={"patch_size": 14},
        pooling="class token",
        millions=millions,
        licence=APACHE,
        gated=False,
        file_mb=file_mb,
    )


_TABLE = (
    PublishedEncoder(
        name="uni",
        title="UNI",
        repo="MahmoodLab/UNI",
        file="pytorch_model.bin",
        revision="b55a5ec6cade1a39edfe6534189a9b8ca7a022f0",
        dim=1024,
        patch_px=256,
        mpp=0.5,
        input_px=224,
        transform=Transform(*IMAGENET, resize_px=224, filter="bilinear"),
        architecture="vit_large_patch16_224",
        options={"patch_size": 16, "init_values": 1e-5},
        pooling="class token",
        millions=303.4,
        licence=CC_BY_NC_ND,
    ),
    PublishedEncoder(
        name="uni2",
        title="UNI 2",
        repo="MahmoodLab/UNI2-h",
        file="pytorch_model.bin",
        revision="d517a8dd47902dd7c308b3c36f63bce47e7b9a43",
        dim=1536,
        patch_px=256,
        mpp=0.5,
        input_px=224,
        transform=Transform(*IMAGENET, resize_px=224, filter="bilinear"),
        architecture="vit_giant_patch14_224",
        options={
            "patch_size": 14,
            "embed_dim": 1536,
            "depth": 24,
            "num_heads": 24,
            "mlp_ratio": 2.66667 * 2,
            "mlp_layer": "SwiGLUPacked",
            "act_layer": "SiLU",
            "init_values": 1e-5,
            "reg_tokens": 8,
            "no_embed_class": True,
        },
        pooling="class token",
        millions=681.4,
        licence=CC_BY_NC_ND,
    ),
    PublishedEncoder(
        name="virchow2",
        title="Virchow2",
        repo="paige-ai/Virchow2",
        file="pytorch_model.bin",
        revision="3158645804b69e3f3bc4439d4116edddf0840a72",
        dim=2560,
        patch_px=224,
        mpp=0.5,
        input_px=224,
        transform=Transform(*IMAGENET, resize_px=224),
        architecture="vit_huge_patch14_224",
        options={
            "patch_size": 14,
            "mlp_ratio": 5.3375,
            "mlp_layer": "SwiGLUPacked",
            "act_layer": "SiLU",
            "init_values": 1e-5,
            "reg_tokens": 4,
        },
        pooling="class token and mean of patches",
        millions=631.2,
        licence=CC_BY_NC_ND,
    ),
    PublishedEncoder(
        name="h-optimus-0",
        title="H-optimus-0",
        repo="bioptimus/H-optimus-0",
        file="pytorch_model.bin",
        revision="7bb31657b49434acc78732d9e2f393b846619393",
        dim=1536,
        patch_px=224,
        mpp=0.5,
        input_px=224,
        transform=Transform(*H_OPTIMUS),
        architecture="vit_giant_patch14_reg4_dinov2",
        options={"patch_size": 14, "init_values": 1e-5},
        pooling="class token",
        millions=1134.8,
        licence=APACHE,
    ),
    PublishedEncoder(
        name="gigapath",
        title="Prov-GigaPath",
        repo="prov-gigapath/prov-gigapath",
        file="pytorch_model.bin",
        revision="eba85dd46097c3eedfcc2a3a9a930baecb6bcc19",
        dim=1536,
        patch_px=256,
        mpp=0.5,
        input_px=224,
        transform=Transform(*IMAGENET, resize_px=256),
        architecture="vit_giant_patch14_dinov2",
        options={
            "patch_size": 16,
            "embed_dim": 1536,
            "depth": 40,
            "num_heads": 24,
            "mlp_ratio": 5.33334,
        },
        pooling="class token",
        millions=1135.0,
        licence=Licence("Apache 2.0, for research only by its model card", APACHE.url),
    ),
    PublishedEncoder(
        name="conch",
        title="CONCH",
        repo="MahmoodLab/CONCH",
        file="pytorch_model.bin",
        revision="f9ca9f877171a28ade80228fb195ac5d79003357",
        dim=512,
        patch_px=512,
        mpp=0.5,
        input_px=448,
        transform=Transform(*CLIP, resize_px=448),
        architecture="vit_base_patch16_224",
        options={"patch_size": 16},
        pooling="attention",
        millions=87.6,
        licence=CC_BY_NC_ND,
        file_mb=1581,  # with its text encoder and decoder, which are not used
    ),
    PublishedEncoder(
        name="phikon-v2",
        title="Phikon-v2",
        repo="owkin/phikon-v2",
        file="model.safetensors",
        revision="main",
        dim=1024,
        patch_px=224,
        mpp=0.5,
        input_px=224,
        transform=Transform(*IMAGENET),
        architecture="vit_large_patch16_224",
        options={"patch_size": 16, "init_values": 1.0},
        pooling="class token",
        millions=303.4,
        licence=OWKIN,
        gated=False,
    ),
    _dinov2("small", 384, 21.6, file_mb=88),
    _dinov2("base", 768, 85.7, file_mb=346),
    _dinov2("large", 1024, 303.2, file_mb=1217),
)

PUBLISHED: Mapping[str, PublishedEncoder] = {encoder.name: encoder for encoder in _TABLE}

"""Settings of the aggregators: from the patches of a slide to its logits."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Discriminator, Field, Tag

from napari_mil.mil.plugins import BUILT_IN

from .base import BinaryHead, Config, Dropout, Initialisation, NonNegative, PositiveFloat, PositiveInt, named


class _Aggregator(Config):
    has_scores: ClassVar[bool] = True
    """Has a score for each patch that a loss can move."""
    has_attention: ClassVar[bool] = True
    """Has attention that a loss can move and a miner can rank by."""
    class_aware: ClassVar[bool] = False
    """Takes the global rows of MHIM's second version, and ranks patches by class-aware probability."""
    per_class: ClassVar[bool] = False
    """Scores and attention are (patches, classes)."""

    def options(self) -> dict[str, Any]:
        """Keyword options of `build_aggregator`."""
        return self.model_dump(exclude={"name"})


class _Attention(_Aggregator):
    class_aware: ClassVar[bool] = True
    threshold: NonNegative | None = None
    """T: attention below T/(number of patches) is cut to zero and the rest renormalised. None or 0: off."""
    temperature: PositiveFloat = 1.0
    """Divides the raw scores before the softmax; below 1 attention gets sharper."""


class AbMilRankConfig(_Attention):
    """AB-MIL as rank induction uses it (Kim et al. 2025): two-layer adaptor, linear scores."""

    name: Literal["ab_mil_rank"] = "ab_mil_rank"
    hidden: PositiveInt = 256
    """A: width of the adaptor's inner layer."""
    binary_head: BinaryHead = "single"
    """Two classes by one logit and BCE (single) or by two logits and cross-entropy (two)."""
    initialisation: Initialisation = "torch"
    """First weights: PyTorch's own, or Xavier normal with zero biases as in MHIM-MIL."""


class AbMilConfig(_Attention):
    """AB-MIL (Ilse et al. 2018): tanh or gated attention."""

    name: Literal["ab_mil"] = "ab_mil"
    gated: bool = False
    """Gated attention: tanh(V h) ⊙ σ(U h)."""
    stem: Literal["linear", "tabular", "none"] = "linear"
    """Linear to 512; Ilse's 256-128-64 network for tabular sets; or none."""
    attention_dim: PositiveInt | None = None
    """Width of the attention's hidden layer. None: 128, and 64 with the tabular stem."""
    dropout: Dropout | None = None
    """In the stem. None: 0.25, and 0.5 with the tabular stem."""
    adaptive_weight: PositiveFloat | None = None
    """λ of adaptive weighting (Li et al. 2019): patches of at most mean attention count λ times. None: off."""
    binary_head: BinaryHead = "single"
    """Two classes by one logit and BCE (single) or by two logits and cross-entropy (two)."""
    initialisation: Initialisation = "torch"
    """First weights: PyTorch's own, or Xavier normal with zero biases as in MHIM-MIL."""


class _Stem(_Aggregator):
    """What models over MHIM-MIL's stem share: h = Dropout(act(W x + b))."""

    activation: Literal["relu", "gelu"] = "relu"
    """Of the stem: ReLU in MHIM-MIL, GELU in its second version."""
    stem_dim: PositiveInt = 512
    """Width of the stem."""
    dropout: Dropout = 0.25
    """After the stem."""
    threshold: NonNegative | None = None
    """T: attention below T/(number of patches) is cut to zero and the rest renormalised. None or 0: off."""
    binary_head: BinaryHead = "two"
    """Two classes by one logit and BCE (single) or by two logits and cross-entropy (two)."""
    initialisation: Initialisation = "xavier"
    """First weights: PyTorch's own, or Xavier normal with zero biases as in MHIM-MIL."""


class AbMilMhimConfig(_Stem):
    """AB-MIL as MHIM-MIL uses it (Tang et al. 2023): a 512-wide stem, bias-free attention."""

    class_aware: ClassVar[bool] = True
    name: Literal["ab_mil_mhim"] = "ab_mil_mhim"
    gated: bool = False
    """Attention by tanh ⊙ sigmoid instead of one ReLU layer."""
    attention_dim: PositiveInt = 128
    """Width of the attention's hidden layer."""
    temperature: PositiveFloat = 1.0
    """Divides the raw scores before the softmax; below 1 attention gets sharper."""


class DsmilConfig(_Stem):
    """DSMIL (Li et al. 2021): the most suspicious patch asks all others how like it they are."""

    class_aware: ClassVar[bool] = True
    per_class: ClassVar[bool] = True
    name: Literal["dsmil"] = "dsmil"
    query_dim: PositiveInt = 128
    """Width of the queries."""
    value_dropout: Dropout = 0.0
    """Before the values."""
    fusion: Literal["probabilities", "logits"] = "probabilities"
    """Average both streams' probabilities, each with its own loss; or (MHIM-MIL's second version) their logits."""


class TransMilConfig(_Stem):
    """TransMIL (Shao et al. 2021): patches attend to one another by Nyström attention, a class token reads them."""

    class_aware: ClassVar[bool] = True
    name: Literal["trans_mil"] = "trans_mil"
    heads: PositiveInt = 8
    """Attention heads; the stem's width must divide by them."""
    landmarks: PositiveInt | None = None
    """Landmarks m of the Nyström attention. None: half the stem's width."""
    pinv_iterations: PositiveInt = 6
    """Iterations of its pseudo-inverse."""
    attention_dropout: Dropout = 0.1
    """After each attention layer."""


class _Clam(_Stem):
    attention_dim: PositiveInt = 256
    """Width of the gated attention's hidden layer."""
    temperature: PositiveFloat = 1.0
    """Divides the raw scores before the softmax; below 1 attention gets sharper."""
    instance_weight: Annotated[float, Field(ge=0, lt=1)] = 0.3
    """Share of the instance clustering in the loss; the slide's own loss has the rest."""
    instance_patches: PositiveInt = 8
    """B: patches of highest and of lowest attention that the instance classifiers learn from."""
    instance_loss: Literal["svm", "ce"] = "svm"
    """Of the instance classifiers: smooth top-1 SVM or cross-entropy."""
    exclusive: bool = False
    """Classes exclude one another: the highest patches of the other classes are labelled out, too."""


class ClamSbConfig(_Clam):
    """CLAM with one attention branch (Lu et al. 2021)."""

    class_aware: ClassVar[bool] = True
    name: Literal["clam_sb"] = "clam_sb"


class ClamMbConfig(_Clam):
    """CLAM with an attention branch for each class (Lu et al. 2021)."""

    class_aware: ClassVar[bool] = True
    per_class: ClassVar[bool] = True
    name: Literal["clam_mb"] = "clam_mb"


class DtfdConfig(_Stem):
    """DTFD-MIL (Zhang et al. 2022): the bag is split into pseudo-bags, what they distil is pooled once more."""

    name: Literal["dtfd"] = "dtfd"
    attention_dim: PositiveInt = 128
    """Width of the gated attention's hidden layer."""
    temperature: PositiveFloat = 1.0
    """Divides the raw scores before the softmax; below 1 attention gets sharper."""
    pseudo_bags: PositiveInt = 4
    """G: how many pseudo-bags a slide is split into."""
    distillation: Literal["max", "max_min", "mas", "afs"] = "max_min"
    """What a pseudo-bag hands on: its patch of highest probability (MaxS); the highest and the lowest (MaxMinS); the
    patch of highest attention (MAS); its pooled feature (AFS)."""


class _Pooling(_Aggregator):
    has_scores: ClassVar[bool] = False
    has_attention: ClassVar[bool] = False
    stem_dim: PositiveInt = 512
    """Width of the stem."""
    dropout: Dropout = 0.25
    """After the stem."""
    binary_head: BinaryHead = "two"
    """Two classes by one logit and BCE (single) or by two logits and cross-entropy (two)."""
    initialisation: Initialisation = "xavier"
    """First weights: PyTorch's own, or Xavier normal with zero biases as in MHIM-MIL."""


class MeanConfig(_Pooling):
    """Mean of the patches."""

    name: Literal["mean"] = "mean"


class MaxConfig(_Pooling):
    """The patch of the highest logit speaks for the slide."""

    name: Literal["max"] = "max"


class PatchClassifierConfig(_Aggregator):
    """A classifier of single patches; the slide's score is that of its highest patches."""

    has_attention: ClassVar[bool] = False
    name: Literal["patch_classifier"] = "patch_classifier"
    hidden: Annotated[int, Field(ge=0)] = 0
    """0: logistic regression; else the width of one hidden layer."""
    top_k: PositiveInt = 1
    """The slide's logit is the mean of the k highest patch logits; 1 is the maximum."""
    initialisation: Initialisation = "torch"
    """First weights: PyTorch's own, or Xavier normal with zero biases as in MHIM-MIL."""


class CustomAggregatorConfig(_Aggregator):
    """An aggregator of another package, found by the entry point `napari_mil.aggregators`."""

    name: str
    custom_options: dict[str, Any] = Field(default_factory=dict)
    """Handed to the aggregator as keywords."""

    def options(self) -> dict[str, Any]:
        return dict(self.custom_options)


def _aggregator_tag(value: Any) -> str:
    name = value.get("name") if isinstance(value, dict) else getattr(value, "name", None)
    return name if name in BUILT_IN else "custom"


AggregatorConfig = Annotated[
    Annotated[AbMilConfig, Tag("ab_mil")]
    | Annotated[AbMilRankConfig, Tag("ab_mil_rank")]
    | Annotated[AbMilMhimConfig, Tag("ab_mil_mhim")]
    | Annotated[DsmilConfig, Tag("dsmil")]
    | Annotated[TransMilConfig, Tag("trans_mil")]
    | Annotated[ClamSbConfig, Tag("clam_sb")]
    | Annotated[ClamMbConfig, Tag("clam_mb")]
    | Annotated[DtfdConfig, Tag("dtfd")]
    | Annotated[MeanConfig, Tag("mean")]
    | Annotated[MaxConfig, Tag("max")]
    | Annotated[PatchClassifierConfig, Tag("patch_classifier")]
    | Annotated[CustomAggregatorConfig, Tag("custom")],
    Discriminator(_aggregator_tag),
    named("name"),
]

"""The settings of a method's parts: aggregator, supervision, mining, task, training. Free of torch.

Each part is one of several kinds, and each kind has only the settings that change something in it. The docstring under
a setting is what the window and `napari-mil train --help` show.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag

from .plugins import BUILT_IN

PositiveInt = Annotated[int, Field(ge=1)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Dropout = Annotated[float, Field(ge=0, lt=1)]
BinaryHead = Literal["single", "two"]
Initialisation = Literal["torch", "xavier"]


class Config(BaseModel):
    """Frozen, and nothing unknown is accepted."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


# ---------------------------------------------------------------------------------------------------- aggregators
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


class AbMilMhimConfig(_Attention):
    """AB-MIL as MHIM-MIL uses it (Tang et al. 2023): a 512-wide stem, bias-free attention."""

    name: Literal["ab_mil_mhim"] = "ab_mil_mhim"
    gated: bool = False
    """Attention by tanh ⊙ sigmoid instead of one ReLU layer."""
    activation: Literal["relu", "gelu"] = "relu"
    """Of the stem: ReLU in MHIM-MIL, GELU in its second version."""
    stem_dim: PositiveInt = 512
    """Width of the stem."""
    attention_dim: PositiveInt = 128
    """Width of the attention's hidden layer."""
    dropout: Dropout = 0.25
    """After the stem."""
    binary_head: BinaryHead = "two"
    """Two classes by one logit and BCE (single) or by two logits and cross-entropy (two)."""
    initialisation: Initialisation = "xavier"
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
    custom_options: dict[str, Any] = {}
    """Handed to the aggregator as keywords."""

    def options(self) -> dict[str, Any]:
        return dict(self.custom_options)


def _aggregator_tag(value: Any) -> str:
    name = value.get("name") if isinstance(value, dict) else getattr(value, "name", None)
    return name if name in BUILT_IN else "custom"


def _named(key: str) -> BeforeValidator:
    """A bare string is the name of a kind: supervision="rank"."""
    return BeforeValidator(lambda value: {key: value} if isinstance(value, str) else value)


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
    _named("name"),
]


# ---------------------------------------------------------------------------------------------------- supervision
class NoSupervision(Config):
    """Lesions are not used: the slide's label alone teaches."""

    kind: Literal["none"] = "none"


class _Lesions(Config):
    weight: NonNegative = 1.0
    """λ: weight of this loss beside the slide's own."""
    shuffle_labels: bool = False
    """Control: permute the patch labels within each slide, so that outlines carry no information."""


class RankSupervision(_Lesions):
    """Rank induction (Kim et al. 2025): a lesion patch shall score higher than a patch without lesion."""

    kind: Literal["rank"] = "rank"
    sigma: PositiveFloat = 1.0
    """σ_s: steepness of the pair probability."""
    margin: NonNegative = 0.0
    """m: by how much a lesion patch shall score higher (as published in effect: 0)."""
    pairs: Literal["lesion_vs_non", "symmetric", "all"] = "lesion_vs_non"
    """Which pairs: the paper's; the published code's with equal pairs ignored; or its default with all of them."""
    sample: PositiveInt | None = None
    """Draw at most so many lesion and so many other patches each time (published: 1024). None: all pairs, exactly."""
    cross_slide_negatives: Annotated[int, Field(ge=0)] = 0
    """Draw so many patches of negative slides as further partners, so that partly outlined slides still teach."""


class AttentionSupervision(_Lesions):
    """Attention induction: attention shall equal the share of tissue in the outlined lesions."""

    kind: Literal["attention"] = "attention"


class InstanceSupervision(_Lesions):
    """Lesion against non-lesion patches by cross-entropy on the patch scores; negative slides count as lesion-free."""

    kind: Literal["instance_bce"] = "instance_bce"
    bag_weight: NonNegative = 0.0
    """Weight of the slide's own loss; 0 is a pure patch classifier."""
    balanced: bool = True
    """Weigh lesion patches up to the number of the others in the training slides."""


SupervisionConfig = Annotated[
    Annotated[
        NoSupervision | RankSupervision | AttentionSupervision | InstanceSupervision, Field(discriminator="kind")
    ],
    _named("kind"),
]


# --------------------------------------------------------------------------------------------------------- mining
class NoMining(Config):
    """Every patch is seen."""

    kind: Literal["none"] = "none"


class _Teacher(Config):
    """A momentum teacher sees the whole slide and decides what the student is shown."""

    momentum: Fraction = 0.9999
    """m: the teacher follows the student by t ← m t + (1 − m) s. 0: it is the student; 1: it never changes."""
    momentum_schedule: Literal["constant", "cosine"] = "constant"
    """Momentum stays, or rises to 1 along a half cosine."""
    consistency_weight: NonNegative = 0.1
    """α: weight of the consistency loss between the two bag embeddings."""
    consistency_temperature: PositiveFloat = 0.1
    """τ: sharpens the teacher's side of the consistency loss."""
    student_init: Literal["stem", "none"] = "stem"
    """What the student takes from the teacher's first weights."""
    teacher_mode: Literal["eval", "train"] = "eval"
    """Teacher without dropout (the paper's algorithm) or with (the published code)."""
    teacher: Annotated[
        Literal["plain", "copy"] | str, BeforeValidator(lambda value: "copy" if value is None else value)
    ] = "plain"
    """What the teacher starts from: a plain run of the same split and seed, found or trained first (plain); the
    student's copy (copy); or the folder of a trained plain run."""
    spare_lesions: bool = True
    """With outlines that teach, lesion patches are never hidden, and one other patch is always left."""


class MhimMining(_Teacher):
    """Masked hard instance mining (MHIM-MIL, Tang et al. 2023): a teacher hides what is easy from the student."""

    kind: Literal["mhim"] = "mhim"
    high: Fraction = 0.01
    """β_h: share of highest-attention patches to mask."""
    low: Fraction = 0.0
    """β_l: share of lowest-attention patches to mask."""
    random: Fraction = 0.5
    """β_r: share of patches to mask at random."""
    high_random: Annotated[float, Field(gt=0, le=1)] = 0.5
    """r: the high mask is drawn from a candidate set 1/r times as large. 1: exactly the highest."""
    high_decay: Literal["cosine", "none"] = "cosine"
    """β_h falls to 0 along a half cosine over the training, or stays."""
    fusion: Literal["vote", "mean"] = "vote"
    """Several attention heads: each votes for its own patches, or each names its share of them."""


class Mhim2Mining(_Teacher):
    """MHIM-MIL's second version (Tang et al. 2025): ranked by class-aware probability, most hidden patches recycled."""

    kind: Literal["mhim2"] = "mhim2"
    score: Literal["class_aware", "attention"] = "class_aware"
    """What patches are ranked by: their own probability of a class, or attention."""
    high: Fraction = 0.03
    """β_h: share of highest-ranked patches to mask."""
    keep: Annotated[float, Field(gt=0, le=1)] = 0.2
    """Share of the other patches that the student sees, at random; the rest is recycled. 1: no random mask."""
    queries: Annotated[int, Field(ge=0)] = 5
    """k: rows that the recycle network makes of what is hidden at random. 0: no recycle network."""
    query_momentum: Fraction = 0.9999
    """The global queries follow these rows by Q ← m Q + (1 − m) z."""
    recycle_dropout: Dropout = 0.1
    """In the recycle network: of its attention and of its rows."""
    momentum: Fraction = 0.9997
    """m: the teacher follows the student by t ← m t + (1 − m) s. 0: it is the student; 1: it never changes."""
    consistency_weight: NonNegative = 0.5
    """α: weight of the consistency loss between the two bag embeddings."""
    student_init: Literal["stem", "none"] = "none"
    """What the student takes from the teacher's first weights."""


class HardNegativeMining(Config):
    """Hard negative bags (Li et al. 2019): what a first training mistook for positive is learned again as negative."""

    kind: Literal["hard_negative"] = "hard_negative"
    deviations: NonNegative = 1.0
    """Hard is attention of at least the false-positive bag's mean plus so many standard deviations."""
    clusters: PositiveInt = 10
    """K: clusters of the hard patches by k-means."""
    bags: PositiveInt = 10
    """New negative bags that are drawn from the clusters."""
    second: Literal["anew", "continued"] = "anew"
    """The second training starts from the seed again, or from the first one's best weights."""


MiningConfig = Annotated[
    Annotated[NoMining | MhimMining | Mhim2Mining | HardNegativeMining, Field(discriminator="kind")], _named("kind")
]


# ----------------------------------------------------------------------------------------------------------- task
class _Task(Config):
    bags: Literal["slide", "patient"] = "slide"
    """One bag per slide, or all slides of a patient together."""


class BinaryTask(_Task):
    """Two classes; the second is the positive one."""

    kind: Literal["binary"] = "binary"
    classes: tuple[str, str] = ("negative", "positive")
    """Names, the positive one second."""
    class_weight: Literal["none", "balanced", "released"] | PositiveFloat = "balanced"
    """Weight of a positive slide: negatives/positives (balanced), all/positives (as released), or a number."""

    @property
    def n_classes(self) -> int:
        return 2


class MulticlassTask(_Task):
    """Three classes or more, mutually exclusive."""

    kind: Literal["multiclass"] = "multiclass"
    classes: Annotated[tuple[str, ...], Field(min_length=3)]
    """Names in the order of the labels 0, 1, 2, …; the first is the one without lesions."""
    class_weight: Literal["none", "balanced"] | tuple[PositiveFloat, ...] = "none"
    """Equal weights; n / (classes × n of the class); or one number per class."""

    @property
    def n_classes(self) -> int:
        return len(self.classes)


class SurvivalTask(_Task):
    """Time to an event in bins, with slides whose event was not seen (Tang et al. 2025, METHODS §4.6)."""

    kind: Literal["survival"] = "survival"
    n_bins: Annotated[int, Field(ge=3)] = 4
    """Bins of time: quantiles of the seen events' times in training."""
    bags: Literal["slide", "patient"] = "patient"
    """One bag per slide, or all slides of a patient together."""

    @property
    def n_classes(self) -> int:
        return self.n_bins

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(f"bin {k}" for k in range(1, self.n_bins + 1))


TaskConfig = Annotated[
    Annotated[BinaryTask | MulticlassTask | SurvivalTask, Field(discriminator="kind")], _named("kind")
]


# ------------------------------------------------------------------------------------------------------- training
class TrainingConfig(Config):
    """How the weights are found. Defaults: Kim et al. 2025, released scripts."""

    epochs: PositiveInt = 200
    """At most so many passes over the training slides."""
    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    """Adam; Adam with decoupled weight decay; or plain gradient descent."""
    learning_rate: PositiveFloat = 2e-4
    """Of the first epoch."""
    schedule: Literal["constant", "cosine"] = "constant"
    """Learning rate per epoch: constant, or a half cosine from `learning_rate` to `min_learning_rate`."""
    min_learning_rate: NonNegative = 0.0
    """Where the cosine ends."""
    weight_decay: NonNegative = 1e-5
    """Pulls the weights towards zero."""
    accumulate: PositiveInt = 8
    """Slides per step: gradients are averaged over so many."""
    accumulation_tail: Literal["own", "full"] = "own"
    """Divide the epoch's last, shorter group by its own length, or (as published) by `accumulate`."""
    sampler: Literal["shuffled", "balanced", "in_order"] = "shuffled"
    """Every slide once; classes (survival: events seen or not) equally often, with replacement; or the order given."""
    monitor: Literal["val_loss", "val_auroc", "val_balanced_accuracy", "val_c_index"] = "val_loss"
    """What decides which epoch is best."""
    patience: PositiveInt | None = 7
    """Stop after so many epochs without a better one. None: never."""
    min_epochs: Annotated[int, Field(ge=0)] = 20
    """But not before this epoch is over."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Of the networks' layers: float32, or bfloat16 where it is safe (autocast); weights and losses stay float32."""
    deterministic: bool = False
    """Only operations that repeat bit for bit; slower on a GPU, no difference on a CPU."""
    recompute: Literal["auto", "always", "never"] = "auto"
    """Compute parts of a step twice instead of keeping them, for less memory; auto: with very large slides."""

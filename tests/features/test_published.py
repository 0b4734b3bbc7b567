"""Published encoders: the table's facts, networks of their architectures with random weights, files of others."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from napari_mil.errors import FeatureError
from napari_mil.features import Encoder, get_encoder
from napari_mil.features.estimates import estimate
from napari_mil.features.published import PUBLISHED, PublishedEncoder
from napari_mil.features.published_network import PublishedNetwork, converted, load_network

pytestmark = pytest.mark.usefixtures("one_thread")

State = dict[str, torch.Tensor]

# parameters in 10⁶, as the model cards and papers give them
CARDS = {"uni": 303, "uni2": 681, "virchow2": 631, "h-optimus-0": 1135, "gigapath": 1135, "phikon-v2": 303}


def small(name: str, blocks: int = 1, width: int | None = None) -> PublishedEncoder:
    """The encoder with fewer blocks, and thinner where a width is given; everything else is its own."""
    about = PUBLISHED[name]
    thin = {} if width is None else {"embed_dim": width, "num_heads": 4}
    return replace(about, options={**about.options, "depth": blocks, **thin})


def filled(network: torch.nn.Module, seed: int = 0) -> State:
    """A state dict of its names and shapes with numbers that leave no part without effect."""
    generator = torch.Generator().manual_seed(seed)
    return {
        key: torch.randn(value.shape, generator=generator) * 0.05 + (0.5 if value.ndim == 1 else 0.0)
        for key, value in network.state_dict().items()
    }


def on_paper(about: PublishedEncoder) -> PublishedNetwork:
    with torch.device("meta"):
        return PublishedNetwork(about)


def theirs(about: PublishedEncoder) -> State:
    """What the file of such an encoder holds: timm's names, without the prefix that ours puts before them."""
    return {key.removeprefix("trunk."): value for key, value in filled(on_paper(about)).items()}


def as_transformers(state: State) -> State:
    """timm's names → those of Dinov2Model in the library transformers, written down here once more, by hand."""
    named: State = {"embeddings.mask_token": torch.zeros(1, state["cls_token"].shape[2])}
    whole = {
        "cls_token": "embeddings.cls_token",
        "pos_embed": "embeddings.position_embeddings",
        "patch_embed.proj.weight": "embeddings.patch_embeddings.projection.weight",
        "patch_embed.proj.bias": "embeddings.patch_embeddings.projection.bias",
        "norm.weight": "layernorm.weight",
        "norm.bias": "layernorm.bias",
    }
    for key, value in state.items():
        if key in whole:
            named[whole[key]] = value
            continue
        _, block, part = key.split(".", 2)
        layer = f"encoder.layer.{block}."
        if part.startswith("attn.qkv."):
            for name, third in zip(("query", "key", "value"), value.chunk(3), strict=True):
                named[f"{layer}attention.attention.{name}.{part.rsplit('.', 1)[1]}"] = third.clone()
        elif part.startswith("attn.proj."):
            named[f"{layer}attention.output.dense.{part.rsplit('.', 1)[1]}"] = value
        elif part in ("ls1.gamma", "ls2.gamma"):
            named[f"{layer}layer_scale{part[2]}.lambda1"] = value
        else:
            named[layer + part] = value
    return named


def patches(count: int, px: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    coarse = np.random.default_rng(seed).integers(0, 256, (count, px // 8, px // 8, 3), dtype=np.uint8)
    return coarse.repeat(8, axis=1).repeat(8, axis=2)


@pytest.mark.parametrize("about", PUBLISHED.values(), ids=lambda about: about.name)
def test_each_row_of_the_table_is_a_network_of_its_size(about: PublishedEncoder) -> None:
    network = on_paper(about)
    millions = sum(p.numel() for p in network.parameters()) / 1e6
    assert millions == pytest.approx(about.millions, abs=0.06)
    if about.name in CARDS:
        assert round(millions) == CARDS[about.name]
    rows = network(torch.empty(2, 3, about.input_px, about.input_px, device="meta"))
    assert rows.shape == (2, about.dim)
    assert about.megabytes >= 4 * math.floor(about.millions)
    assert about.licence.url.startswith("https://")
    assert about.terms.count("https://") == 2
    assert about.title in about.note


def test_the_tokens_before_the_patches() -> None:
    prefix = {name: on_paper(small(name)).trunk.num_prefix_tokens for name in PUBLISHED}
    assert prefix.pop("uni2") == 9
    assert prefix.pop("virchow2") == prefix.pop("h-optimus-0") == 5
    assert set(prefix.values()) == {1}


@pytest.mark.parametrize("name", ["uni", "phikon-v2", "dinov2-small"])
def test_its_own_file_loads_strictly(name: str, tmp_path: Path) -> None:
    about = small(name, width=64)
    state = theirs(about)
    torch.save(state, tmp_path / "w.bin")
    loaded = load_network(about, tmp_path / "w.bin").state_dict()
    assert {key.removeprefix("trunk.") for key in loaded} == set(state)
    assert all(torch.equal(loaded[f"trunk.{key}"], value) for key, value in state.items())
    save_file({key: value.half() for key, value in state.items()}, tmp_path / "w.safetensors")
    half = load_network(about, tmp_path / "w.safetensors")
    assert all(p.dtype == torch.float32 and not p.requires_grad for p in half.parameters())
    assert not half.training


def test_files_of_another_network(tmp_path: Path) -> None:
    about, state = small("dinov2-small", 2), theirs(small("dinov2-small", 2))
    file = tmp_path / "w.bin"

    def refused(state: State) -> str:
        torch.save(state, file)
        with pytest.raises(FeatureError) as caught:
            load_network(about, file)
        return str(caught.value)

    assert "1 of 34 tensors are missing, first 'trunk.norm.bias'" in refused(
        {key: value for key, value in state.items() if key != "norm.bias"}
    )
    assert "has shape (1, 1, 768), expected (1, 1, 384)" in refused(theirs(small("dinov2-base", 2)))
    sentence = refused(theirs(small("dinov2-small", 3)))
    assert "14 of its tensors have no place, first 'trunk.blocks.2." in sentence
    assert f"Expected model.safetensors of {about.url}" in sentence
    file.with_suffix(".safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0cut shor")
    with pytest.raises(FeatureError, match="cannot be read as weights"):
        load_network(about, file.with_suffix(".safetensors"))


def test_uni2_takes_the_class_token_and_virchow2_the_patches_too(tmp_path: Path) -> None:
    for name in ("uni2", "virchow2"):
        about = small(name, width=48)
        torch.save(theirs(about), tmp_path / "w.bin")
        network = load_network(about, tmp_path / "w.bin")
        image = torch.randn(2, 3, 224, 224)
        with torch.inference_mode():
            rows, tokens = network(image), network.trunk.forward_features(image)
        registers = about.options["reg_tokens"]
        assert tokens.shape == (2, 1 + registers + 256, 48)
        assert torch.equal(rows[:, :48], tokens[:, 0])
        if name == "virchow2":
            assert rows.shape == (2, 96)
            assert torch.allclose(rows[:, 48:], tokens[:, 5:].mean(1))
            assert not torch.allclose(rows[:, 48:], tokens[:, 1:].mean(1), atol=1e-4)  # the registers are left out
        else:
            assert rows.shape == (2, 48)
        assert network.trunk.reg_token.shape == (1, registers, 48)


def test_phikon_v2_is_read_in_the_names_of_transformers(tmp_path: Path) -> None:
    about = small("phikon-v2", blocks=2, width=64)
    state = theirs(about)
    renamed = as_transformers(state)
    assert "encoder.layer.1.attention.attention.key.weight" in renamed
    save_file(renamed, tmp_path / "model.safetensors")
    torch.save(state, tmp_path / "timm.pth")
    one, other = (load_network(about, tmp_path / name) for name in ("model.safetensors", "timm.pth"))
    assert all(torch.equal(value, other.state_dict()[key]) for key, value in one.state_dict().items())
    prefixed = converted({f"dinov2.{key}": value for key, value in renamed.items()}, about)
    assert set(prefixed) == set(one.state_dict())
    del renamed["encoder.layer.0.attention.attention.key.weight"]
    save_file(renamed, tmp_path / "model.safetensors")
    with pytest.raises(FeatureError, match=r"blocks.0.attn.qkv.weight has shape \(128, 64\), expected \(192, 64\)"):
        load_network(about, tmp_path / "model.safetensors")


def test_dinov2s_positions_go_from_518_to_224_px(tmp_path: Path) -> None:
    about = small("dinov2-small")
    state = theirs(about)
    y, x = torch.meshgrid(torch.linspace(-1, 1, 37), torch.linspace(-1, 1, 37), indexing="ij")
    plane = (y + 2 * x).reshape(1, -1, 1).expand(1, 37 * 37, 384)
    state["pos_embed"] = torch.cat([torch.full((1, 1, 384), 7.0), plane], dim=1)
    state["mask_token"] = torch.zeros(1, 384)
    torch.save(state, tmp_path / "w.pth")
    found = load_network(about, tmp_path / "w.pth").trunk.pos_embed
    assert found.shape == (1, 257, 384)
    assert torch.equal(found[:, 0], torch.full((1, 384), 7.0))
    grid = found[0, 1:, 0].reshape(16, 16)
    steps = grid[4:12, 4:12].diff(dim=1)
    assert torch.allclose(steps, torch.full_like(steps, 2 * 2 * 37 / 36 / 16), atol=1e-3)  # a plane stays a plane


def conch_by_hand(state: State, tokens: torch.Tensor) -> torch.Tensor:
    """What stands behind CONCH's tokens, written in plain sums."""

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / torch.sqrt(centred.pow(2).mean(-1, keepdim=True) + 1e-5)
        return scaled * state[f"visual.{name}.weight"] + state[f"visual.{name}.bias"]

    pool = "visual.attn_pool_contrast."
    seen = norm(tokens, "attn_pool_contrast.ln_k")
    asked = norm(state[f"{pool}query"], "attn_pool_contrast.ln_q")
    bias = state[f"{pool}attn.in_proj_bias"].chunk(3)
    query = (asked @ state[f"{pool}attn.q_proj_weight"].T + bias[0]).reshape(8, 64)
    keys = (seen @ state[f"{pool}attn.k_proj_weight"].T + bias[1]).unflatten(-1, (8, 64))
    values = (seen @ state[f"{pool}attn.v_proj_weight"].T + bias[2]).unflatten(-1, (8, 64))
    share = torch.einsum("hd,bnhd->bhn", query, keys).div(8).softmax(-1)
    mixed = torch.einsum("bhn,bnhd->bhd", share, values).flatten(1)
    answer = mixed @ state[f"{pool}attn.out_proj.weight"].T + state[f"{pool}attn.out_proj.bias"]
    return norm(answer, "ln_contrast")


def test_conch_is_its_image_tower_before_the_projection(tmp_path: Path) -> None:
    about = small("conch")
    state = {f"visual.{key}": value for key, value in filled(on_paper(about)).items()}
    unused = {
        "visual.proj_contrast": torch.zeros(512, 512),
        "visual.attn_pool_caption.query": torch.zeros(256, 768),
        "visual.ln_caption.weight": torch.zeros(768),
        "text.token_embedding.weight": torch.zeros(7, 768),
        "text_decoder.text_projection": torch.zeros(768, 7),
        "logit_scale": torch.zeros(()),
    }
    torch.save({"state_dict": {**state, **unused}}, tmp_path / "pytorch_model.bin")
    network = load_network(about, tmp_path / "pytorch_model.bin")
    image = torch.randn(2, 3, 448, 448)
    with torch.inference_mode():
        tokens = network.trunk.forward_features(image)
        rows = network(image)
    assert tokens.shape == (2, 28 * 28 + 1, 768)
    assert torch.allclose(rows, conch_by_hand(state, tokens), atol=1e-4)
    torch.save({f"module.{key}": value for key, value in state.items()}, tmp_path / "parallel.bin")
    assert set(load_network(about, tmp_path / "parallel.bin").state_dict()) == set(network.state_dict())


PILS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "uni": lambda image: image.resize((224, 224), Image.Resampling.BILINEAR),
    "gigapath": lambda image: image.resize((256, 256), Image.Resampling.BICUBIC).crop((16, 16, 240, 240)),
    "virchow2": lambda image: image.resize((224, 224), Image.Resampling.BICUBIC),
    "conch": lambda image: image.resize((448, 448), Image.Resampling.BICUBIC),
    "h-optimus-0": lambda image: image,
}


@pytest.mark.parametrize("name", PILS)
@pytest.mark.parametrize("px", [224, 256, 512])
def test_the_transform_is_the_published_one(name: str, px: int) -> None:
    """As torchvision's Resize, CenterCrop, ToTensor and Normalize do it with PIL, to the rounding of PIL."""
    about = PUBLISHED[name]
    if about.transform.resize_px is None:
        px = about.patch_px
    batch = patches(1, px)
    mean, std = (torch.tensor(v).reshape(1, 3, 1, 1) for v in (about.transform.mean, about.transform.std))
    pixels = torch.from_numpy(batch).permute(0, 3, 1, 2) / 255
    found = on_paper(small(name)).fitted((pixels - mean) / std) * std + mean
    wanted = np.stack([np.asarray(PILS[name](Image.fromarray(patch))) for patch in batch])
    assert found.shape == (1, 3, about.input_px, about.input_px)
    difference = np.abs(found.permute(0, 2, 3, 1).numpy() * 255 - wanted)
    assert difference.max() < 1.1  # it rounds twice
    assert difference.mean() < 0.35


def test_colours_of_h_optimus_are_its_own() -> None:
    about = PUBLISHED["h-optimus-0"]
    assert about.transform.mean == (0.707223, 0.578729, 0.703617)
    assert about.transform.std == (0.211883, 0.230117, 0.177517)
    assert PUBLISHED["conch"].transform.mean[0] == 0.48145466
    imagenet = {name for name, a in PUBLISHED.items() if a.transform.mean == (0.485, 0.456, 0.406)}
    assert imagenet == set(PUBLISHED) - {"h-optimus-0", "conch"}


@pytest.fixture(scope="module")
def dinov2_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    save_file(theirs(PUBLISHED["dinov2-small"]), path)
    return path


def test_an_encoder_of_a_local_file(dinov2_file: Path) -> None:
    from napari_mil.features.weights import file_sha256

    ours = get_encoder("dinov2-small", weights=dinov2_file)
    assert isinstance(ours, Encoder)
    assert (ours.name, ours.dim, ours.input_px, ours.any_size) == ("dinov2-small", 384, 224, True)
    assert (ours.revision, ours.weights_sha256) == ("local", file_sha256(dinov2_file))
    assert ours.target_mpp is None
    assert "bicubic to 224 px; class token" in ours.transform
    batch = patches(3, 224)
    rows = ours.encode(batch)
    assert rows.shape == (3, 384)
    network = load_network(PUBLISHED["dinov2-small"], dinov2_file)
    shift, factor = torch.tensor((0.485, 0.456, 0.406)), torch.tensor((0.229, 0.224, 0.225))
    scaled = ((torch.from_numpy(batch) / 255 - shift) / factor).permute(0, 3, 1, 2)
    with torch.inference_mode():
        wanted = network.trunk.forward_head(network.trunk.forward_features(scaled)).numpy()
    assert np.allclose(rows, wanted, atol=1e-4 * np.abs(wanted).max())
    assert np.allclose(rows[1:2], ours.encode(batch[1:2]), atol=1e-4 * np.abs(wanted).max())
    assert ours.encode(patches(1, 256)).shape == (1, 384)


def test_features_of_a_slide_with_a_local_file(dinov2_file: Path, slide: Any, grid: Any, tmp_path: Path) -> None:
    from napari_mil.features import extract, read_features

    few = type(grid)(grid.coords[:6], grid.patch_px_level0, grid.stride_px_level0, grid.mpp)
    ours = get_encoder("dinov2-small", weights=dinov2_file)
    for _ in extract(slide, few, ours, tmp_path / "s.h5", patch_px=64):
        pass
    found = read_features(tmp_path / "s.h5")
    assert found.features.shape == (6, 384)
    assert found.provenance["encoder"] == "dinov2-small"
    assert found.provenance["weights_sha256"] == ours.weights_sha256


@pytest.mark.parametrize("backend", ["torch", "openvino"])
def test_faster_ways_take_patches_that_are_resized(backend: str) -> None:
    from napari_mil.features.openvino_network import OpenvinoNetwork, has_openvino
    from napari_mil.features.precision import least_cosine

    if backend == "openvino" and not has_openvino():
        pytest.skip("OpenVINO is not installed")
    ours = get_encoder("dinov2-small", weights="random")
    plain: Any = ours.network  # type: ignore[attr-defined]
    way = plain.in_bf16() if backend == "torch" else OpenvinoNetwork(plain, 224, "fp32", any_size=True)
    for px in (224, 256):
        rows = way.submit(patches(3, px))()
        assert least_cosine(rows, ours.encode(patches(3, px))) > 0.999


def test_random_weights_say_so() -> None:
    one = get_encoder("dinov2-small", weights="random")
    assert one.name == "dinov2-small-random"
    assert "RANDOM WEIGHTS" in one.note
    assert one.revision == "random"
    rows = one.encode(patches(1, 224))
    assert np.array_equal(rows, get_encoder("dinov2-small", weights="random").encode(patches(1, 224)))


def test_one_that_takes_its_own_size_only_and_devices_that_are_not_there() -> None:
    assert PUBLISHED["phikon-v2"].transform.resize_px is None
    with pytest.raises(FeatureError, match="no device 'cuda:99' here"):
        get_encoder("uni", device="cuda:99")


def test_large_encoders_are_reckoned_slower() -> None:
    speeds = [estimate(1000, 1024, name).patches_per_second for name in ("resnet50", "dinov2-small", "uni", "gigapath")]
    assert speeds[1] > speeds[2] > speeds[3]
    assert speeds[0] > speeds[2]
    assert 0.05 < speeds[3] < 1

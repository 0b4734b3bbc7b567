from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from napari_mil.errors import FeatureError
from napari_mil.features import get_encoder, precision
from napari_mil.features.precision import LEAST_COSINE, in_precision, least_cosine, textured_patches
from napari_mil.features.torch_encoder import TorchEncoder
from napari_mil.features.torch_network import TorchNetwork

pytestmark = pytest.mark.usefixtures("one_thread", "own_cache")


class Pooled(torch.nn.Module):
    """A convolution, a non-linearity, and the mean over the patch."""

    def __init__(self, offset: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.conv = torch.nn.Conv2d(3, 32, 5, 2)
        self.offset = torch.nn.Parameter(torch.tensor(offset))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # a large offset that is taken away again: what is left of the pixels is what the precision can hold
        return (self.conv(x).relu() + self.offset - self.offset).mean(dim=(2, 3))


def encoder(offset: float = 0.0, *, any_size: bool = False) -> TorchEncoder:
    return TorchEncoder(
        Pooled(offset).eval(),
        name="pooled",
        dim=32,
        input_px=64,
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        device="cpu",
        revision="",
        weights_sha256=f"{offset}",
        note="",
        any_size=any_size,
    )


@pytest.fixture
def no_openvino(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("napari_mil.features.openvino_network.has_openvino", lambda: False)


def test_the_patches_look_the_same_each_time_and_differ_from_each_other() -> None:
    one, other = textured_patches(4, 48), textured_patches(4, 48)
    assert one.shape == (4, 48, 48, 3)
    assert np.array_equal(one, other)
    means = one.mean(axis=(1, 2, 3))
    assert len(set(means.round(1))) == 4
    assert one.std(axis=(1, 2)).min() > 2


def test_the_least_cosine() -> None:
    rows = np.array([[1.0, 0.0], [1.0, 1.0]], np.float32)
    assert least_cosine(rows, rows) == pytest.approx(1, abs=2e-6)
    assert least_cosine(rows, np.array([[1.0, 0.0], [1.0, 0.0]], np.float32)) == pytest.approx(0.707106, abs=2e-6)
    assert least_cosine(rows, np.zeros((2, 2), np.float32)) == 0


def test_bf16_rows_are_near_those_of_float32_and_independent_of_the_batch(no_openvino: None) -> None:
    plain = get_encoder("resnet18", weights="random")
    fast = in_precision(plain, "bf16")
    assert isinstance(fast, TorchEncoder)
    assert (fast.precision, fast.backend, plain.precision) == ("bf16", "torch", "fp32")
    patches = np.random.default_rng(0).integers(0, 256, (9, 64, 64, 3), dtype=np.uint8)
    rows = fast.encode(patches)
    assert rows.dtype == np.float32
    assert least_cosine(rows, plain.encode(patches)) >= LEAST_COSINE["bf16"]
    assert not np.array_equal(rows, plain.encode(patches))
    alone = np.concatenate([fast.encode(patch[None]) for patch in patches])
    # sums may be taken in another order: a bit of bfloat16 here and there, never another patch's pixels
    assert least_cosine(rows, alone) > 0.9999
    assert fast.precision_cosine is not None
    assert LEAST_COSINE["bf16"] <= fast.precision_cosine < 1


def test_auto_is_bf16_where_the_device_gains_by_it(monkeypatch: pytest.MonkeyPatch, no_openvino: None) -> None:
    monkeypatch.setattr(precision, "gains_from_bf16", lambda device: True)
    assert in_precision(encoder()).precision == "bf16"
    monkeypatch.setattr(precision, "gains_from_bf16", lambda device: False)
    plain = encoder()
    assert in_precision(plain) is plain
    assert in_precision(plain, "bf16").precision == "bf16"  # asked for: kept to where it is no faster, too


def test_a_network_that_bf16_spoils_stays_in_float32(monkeypatch: pytest.MonkeyPatch, no_openvino: None) -> None:
    monkeypatch.setattr(precision, "gains_from_bf16", lambda device: True)
    spoilt = encoder(1000.0)
    assert in_precision(spoilt) is spoilt
    with pytest.raises(FeatureError, match=r"pooled in bf16 by torch does not agree with float32: the least cosine"):
        in_precision(spoilt, "bf16")


class Insisting(Pooled):
    """One that wants float32 at one place, as exported programs often do."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x.float()).mean(dim=(2, 3))


def test_a_network_that_insists_on_float32_has_it(monkeypatch: pytest.MonkeyPatch, no_openvino: None) -> None:
    monkeypatch.setattr(precision, "gains_from_bf16", lambda device: True)
    plain = encoder()
    plain.network = TorchNetwork(Insisting().eval(), (0.5,) * 3, (0.25,) * 3, "cpu")
    assert in_precision(plain) is plain
    with pytest.raises(FeatureError, match=r"pooled cannot be computed in bf16 by torch \(.*\)\. Choose the precision"):
        in_precision(plain, "bf16")


def test_the_check_is_done_once_for_each_network(
    monkeypatch: pytest.MonkeyPatch, own_cache: Path, no_openvino: None
) -> None:
    first = in_precision(encoder(), "bf16")
    remembered = json.loads((own_cache / "precision.json").read_text(encoding="utf-8"))
    assert list(remembered.values()) == [first.precision_cosine]  # type: ignore[attr-defined]
    monkeypatch.setattr(precision, "textured_patches", lambda *_: pytest.fail("checked again"))
    assert in_precision(encoder(), "bf16").precision_cosine == first.precision_cosine  # type: ignore[attr-defined]
    with pytest.raises(pytest.fail.Exception, match="checked again"):
        in_precision(encoder(1.0), "bf16")  # other weights


def test_what_cannot_be_had_is_a_sentence(no_openvino: None) -> None:
    with pytest.raises(FeatureError, match=r"no precision 'fp16'. Choose one of auto, fp32, bf16"):
        in_precision(encoder(), "fp16")
    with pytest.raises(FeatureError, match=r"no backend 'onnx'. Choose one of auto, torch, openvino"):
        in_precision(encoder(), backend="onnx")
    with pytest.raises(FeatureError, match=r"OpenVINO is not installed.*fast-cpu"):
        in_precision(encoder(), backend="openvino")
    elsewhere = encoder()
    elsewhere.device = "mps"
    with pytest.raises(FeatureError, match="OpenVINO computes on the CPU here, not on mps"):
        in_precision(elsewhere, "fp32", backend="openvino")


def test_an_encoder_without_torch_computes_as_it_does() -> None:
    texture = get_encoder("texture")
    assert in_precision(texture, "bf16") is texture


def test_which_devices_gain(monkeypatch: pytest.MonkeyPatch) -> None:
    capability: dict[str, tuple[int, int]] = {"cuda": (7, 5), "cuda:1": (8, 0)}
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability[device])
    assert not precision.gains_from_bf16("cuda")
    assert precision.gains_from_bf16("cuda:1")
    assert not precision.gains_from_bf16("mps")
    for avx512, amx in ((False, False), (True, False), (False, True)):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda found=avx512: found, raising=False)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda found=amx: found, raising=False)
        assert precision.gains_from_bf16("cpu") == (avx512 or amx)


@pytest.mark.parametrize("any_size", [False, True])
def test_openvino_gives_the_rows_of_torch(any_size: bool) -> None:
    pytest.importorskip("openvino")
    plain = encoder(any_size=any_size)
    fast = in_precision(plain, "fp32", "openvino")
    assert (fast.precision, fast.backend) == ("fp32", "openvino")
    rng = np.random.default_rng(1)
    for px in (64, 96) if any_size else (64,):
        patches = rng.integers(0, 256, (5, px, px, 3), dtype=np.uint8)
        wanted = plain.encode(patches)
        assert np.allclose(fast.encode(patches), wanted, atol=1e-5 * np.abs(wanted).max())
    if not any_size:
        with pytest.raises(FeatureError, match="takes 64 x 64 px"):
            fast.encode(np.zeros((1, 96, 96, 3), np.uint8))


def test_openvino_sends_nothing_about_its_use() -> None:
    pytest.importorskip("openvino")
    import subprocess
    import sys

    code = (
        "import sys; from napari_mil.features.openvino_network import _openvino; ov = _openvino(); ov.convert_model;"
        "assert sys.modules['openvino_telemetry'] is None; import openvino.tools.ovc.telemetry_utils as used;"
        "assert used.tm.__name__.endswith('telemetry_stub'), used.tm"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_openvino_in_bf16_where_the_processor_has_it() -> None:
    pytest.importorskip("openvino")
    try:
        fast: Any = in_precision(get_encoder("resnet18", weights="random"), "bf16", "openvino")
    except FeatureError as error:
        assert "has no bf16 on this processor" in str(error)  # noqa: PT017
        return
    assert fast.precision_cosine >= LEAST_COSINE["bf16"]


def test_what_openvino_cannot_take_is_left_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openvino")
    monkeypatch.setattr(precision, "gains_from_bf16", lambda device: False)
    bare = encoder()
    bare.network.function = lambda x: x.mean(dim=(2, 3))  # type: ignore[attr-defined]
    assert in_precision(bare) is bare
    with pytest.raises(FeatureError, match="OpenVINO takes torch modules only"):
        in_precision(bare, backend="openvino")


def test_real_weights_in_bf16(shared_data: Path, no_openvino: None) -> None:
    plain = get_encoder(shared_data / "weights" / "resnet50_layer3.pt2")
    fast = in_precision(plain, "bf16")
    patches = textured_patches(3, 224)
    assert least_cosine(fast.encode(patches), plain.encode(patches)) >= LEAST_COSINE["bf16"]


def test_int8_is_for_who_asks_and_says_how_near_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openvino")
    pytest.importorskip("nncf")
    plain = encoder()
    fast = in_precision(plain, "int8")
    assert isinstance(fast, TorchEncoder)
    assert (fast.precision, fast.backend) == ("int8", "openvino")
    assert fast.precision_cosine is not None
    assert LEAST_COSINE["int8"] <= fast.precision_cosine < 1
    patches = textured_patches(4, fast.input_px, seed=9)
    assert 0.95 < least_cosine(fast.encode(patches), plain.encode(patches)) < 1
    # measured on patches that are always the same: made again it is the same network
    np.testing.assert_array_equal(in_precision(encoder(), "int8").encode(patches), fast.encode(patches))
    assert in_precision(encoder(), "auto").precision != "int8"
    with pytest.raises(FeatureError, match="int8 is computed by OpenVINO only"):
        in_precision(encoder(), "int8", "torch")
    monkeypatch.setattr("napari_mil.features.openvino_network.find_spec", lambda name: None if name == "nncf" else 1)
    with pytest.raises(FeatureError, match="int8 wants nncf, which is not installed"):
        in_precision(encoder(), "int8")

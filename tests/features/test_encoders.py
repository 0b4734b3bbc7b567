from __future__ import annotations

import copy
import hashlib
import json
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from napari_mil.errors import FeatureError
from napari_mil.features import Encoder, encoder, get_encoder, list_encoders, weights
from napari_mil.features.torch_encoder import TorchEncoder

pytestmark = pytest.mark.usefixtures("one_thread")


def patches(count: int, px: int = 64) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (count, px, px, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def state18() -> dict[str, torch.Tensor]:
    import torchvision

    torch.manual_seed(1)
    return dict(torchvision.models.resnet18(weights=None).state_dict())


def test_the_list_names_size_download_and_licence() -> None:
    infos = {info.name: info for info in list_encoders()}
    assert (infos["resnet50"].dim, infos["resnet18"].dim) == (1024, 512)
    assert infos["resnet50"].needs_download
    assert not infos["texture"].needs_download
    assert all(info.note and info.licence for info in infos.values())


@pytest.mark.parametrize(("name", "dim"), [("resnet50", 1024), ("resnet18", 512)])
def test_random_weights_are_loud_and_the_same_each_time(name: str, dim: int) -> None:
    before = torch.random.get_rng_state()
    one, other = get_encoder(name, weights="random"), get_encoder(name, weights="random")
    assert torch.equal(before, torch.random.get_rng_state())
    assert isinstance(one, Encoder)
    assert one.name == f"{name}-random"  # so that its features never mix with those of real weights
    assert "RANDOM WEIGHTS" in one.note
    assert one.weights_sha256 == other.weights_sha256
    rows = one.encode(patches(2))
    assert rows.shape == (2, dim)
    assert np.array_equal(rows, other.encode(patches(2)))


def test_the_rows_are_torchvisions_with_the_imagenet_transform(
    tmp_path: Path, state18: dict[str, torch.Tensor]
) -> None:
    import torchvision
    from torchvision.transforms.functional import normalize, to_tensor

    file = tmp_path / "mine.pth"
    torch.save(state18, file)
    ours = get_encoder("resnet18", weights=file)
    network = torchvision.models.resnet18(weights=None)
    network.load_state_dict(state18)
    network.fc = torch.nn.Identity()
    batch = patches(3, 224)
    tensor = torch.stack([normalize(to_tensor(p), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)) for p in batch])
    with torch.inference_mode():
        wanted = network.eval()(tensor).numpy()
    assert np.allclose(ours.encode(batch), wanted, atol=1e-4 * np.abs(wanted).max())
    assert ours.weights_sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert ours.revision == "local"


def test_resnet50_is_cut_after_its_third_stage(tmp_path: Path) -> None:
    import torchvision

    torch.manual_seed(2)
    network = torchvision.models.resnet50(weights=None).eval()
    state = {key: value for key, value in network.state_dict().items() if not key.startswith(("layer4", "fc"))}
    from safetensors.torch import save_file

    save_file(state, tmp_path / "w.safetensors")
    ours = get_encoder("resnet50", weights=tmp_path / "w.safetensors")
    found: list[torch.Tensor] = []
    network.layer3.register_forward_hook(lambda _m, _i, out: found.append(out.mean(dim=(2, 3))))
    batch = patches(2)
    shift, factor = torch.tensor((0.485, 0.456, 0.406)), torch.tensor((0.229, 0.224, 0.225))
    tensor = ((torch.from_numpy(batch) / 255 - shift) / factor).permute(0, 3, 1, 2)
    with torch.inference_mode():
        network(tensor)
    assert np.allclose(ours.encode(batch), found[0].numpy(), atol=1e-4 * float(found[0].abs().max()))


def test_a_row_does_not_depend_on_its_batch() -> None:
    ours, batch = get_encoder("resnet18", weights="random"), patches(5)
    rows = ours.encode(batch)
    alone = np.concatenate([ours.encode(patch[None]) for patch in batch])
    assert np.allclose(rows, alone, atol=1e-5 * np.abs(rows).max())
    assert ours.encode(patches(0)).shape == (0, 512)


def test_weights_files_that_do_not_fit(tmp_path: Path, state18: dict[str, torch.Tensor]) -> None:
    with pytest.raises(FeatureError, match="no weights file"):
        get_encoder("resnet18", weights=tmp_path / "absent.pth")
    file = tmp_path / "w.pth"
    file.write_bytes(b"no tensors here")
    with pytest.raises(FeatureError, match="cannot be read as weights"):
        get_encoder("resnet18", weights=file)
    torch.save({key: value for key, value in state18.items() if key != "layer4.1.bn2.weight"}, file)
    with pytest.raises(FeatureError, match=r"1 of \d+ tensors are missing, first 'layer4.1.bn2.weight'"):
        get_encoder("resnet18", weights=file)
    torch.save({**state18, "conv1.weight": torch.zeros(64, 1, 7, 7)}, file)
    with pytest.raises(FeatureError, match=r"conv1.weight has shape \(64, 1, 7, 7\), expected \(64, 3, 7, 7\)"):
        get_encoder("resnet18", weights=file)
    torch.save([1, 2], file)
    with pytest.raises(FeatureError, match="not a state dict"):
        get_encoder("resnet18", weights=file)


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    trap = tmp_path / "ran"

    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (trap,))

    torch.save({"conv1.weight": Trap()}, tmp_path / "w.pth")
    with pytest.raises(FeatureError, match="cannot be read as weights"):
        get_encoder("resnet18", weights=tmp_path / "w.pth")
    assert not trap.exists()


def test_download_into_the_cache_with_progress_and_checksum(
    tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch, state18: dict[str, torch.Tensor]
) -> None:
    source = tmp_path / "resnet18-x.pth"
    torch.save(state18, source)
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    published = weights.Weights("resnet18", source.as_uri(), digest[:8], 45.0)
    monkeypatch.setitem(weights._WEIGHTS, "resnet18", published)
    seen: list[tuple[int, int]] = []
    ours = get_encoder("resnet18", progress=lambda done, total: seen.append((done, total)))
    size = source.stat().st_size
    assert seen[-1] == (size, size)
    assert ours.weights_sha256 == digest
    assert ours.revision == "IMAGENET1K_V1"
    kept = own_cache / "weights" / "resnet18-x.pth"
    assert kept.is_file()
    assert list(kept.parent.iterdir()) == [kept]
    assert not {i.name: i for i in list_encoders()}["resnet18"].needs_download
    source.unlink()  # the second time it comes from the cache
    assert get_encoder("resnet18").weights_sha256 == digest
    assert get_encoder("resnet18", weights=kept).revision == "IMAGENET1K_V1"
    kept.write_bytes(b"damaged")
    with pytest.raises(FeatureError, match=r"is damaged.*Delete the file"):
        get_encoder("resnet18")


def test_offline_says_which_url_where_to_and_what_instead(
    own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = (tmp_path / "nowhere" / "resnet50-x.pth").as_uri()
    monkeypatch.setitem(weights._WEIGHTS, "resnet50", weights.Weights("resnet50", url, "0" * 8, 98.0))
    with pytest.raises(FeatureError) as caught:
        get_encoder("resnet50")
    sentence = str(caught.value)
    assert url in sentence
    assert str(own_cache / "weights" / "resnet50-x.pth") in sentence
    assert "'texture'" in sentence
    assert list((own_cache / "weights").iterdir()) == []


def test_unknown_names_and_devices() -> None:
    with pytest.raises(FeatureError, match=r"no encoder 'uni9'. Choose one of resnet50, resnet18, texture"):
        get_encoder("uni9")
    with pytest.raises(FeatureError, match=r"no device 'cuda:99' here. Choose one of cpu"):
        get_encoder("resnet18", weights="random", device="cuda:99")


def test_wrong_arrays_and_wrong_outputs() -> None:
    ours = get_encoder("resnet18", weights="random")
    with pytest.raises(FeatureError, match=r"float32; expected \(B, h, w, 3\) uint8"):
        ours.encode(np.zeros((1, 64, 64, 3), np.float32))  # type: ignore[arg-type]
    odd = _plain_encoder(lambda x: x.mean(dim=(2, 3)), dim=4)
    with pytest.raises(FeatureError, match=r"array of shape \(2, 3\); expected \(2, 4\)"):
        odd.encode(patches(2, 32))
    with pytest.raises(FeatureError, match="takes 32 x 32 px"):
        odd.encode(patches(2, 40))


def _plain_encoder(function: Any, dim: int = 3) -> TorchEncoder:
    return TorchEncoder(
        function,
        name="plain",
        dim=dim,
        input_px=32,
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        device="cpu",
        revision="",
        weights_sha256="",
        note="",
    )


def test_a_batch_too_large_for_the_memory_is_halved() -> None:
    sizes: list[int] = []

    def greedy(x: torch.Tensor) -> torch.Tensor:
        sizes.append(len(x))
        if len(x) > 3:
            raise torch.OutOfMemoryError("full")
        return x.mean(dim=(2, 3))

    batch = patches(10, 32)
    rows = _plain_encoder(greedy).encode(batch)
    assert np.allclose(rows, batch.mean(axis=(1, 2)) / 255, atol=1e-5)
    assert sizes[0] == 8  # a CPU takes a batch in eights

    def hopeless(_: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("full")

    with pytest.raises(FeatureError, match="does not suffice for one patch"):
        _plain_encoder(hopeless).encode(batch)


class _Point:
    """An entry point of another package."""

    def __init__(self, name: str, made: Any) -> None:
        self.name, self.value, self.dist, self._made = name, "other_package:make", None, made

    def load(self) -> Any:
        if isinstance(self._made, Exception):
            raise self._made
        return self._made


def test_the_registry_is_open(monkeypatch: pytest.MonkeyPatch) -> None:
    def make(*, weights: Any, device: str, revision: str | None, progress: Any) -> Encoder:
        assert (weights, device, revision) == ("w", "cpu", "r2")
        return get_encoder("texture")

    points = [_Point("mine", make), _Point("broken", ImportError("no timm")), _Point("texture", make)]
    monkeypatch.setattr(metadata, "entry_points", lambda group: points if group == encoder.ENTRY_POINT_GROUP else [])
    infos = list_encoders()
    assert [info.name for info in infos].count("texture") == 1  # ours is not replaced
    assert {info.name: info.dim for info in infos}["mine"] is None
    assert get_encoder("mine", weights="w", revision="r2").name == "texture"
    with pytest.raises(FeatureError, match=r"'broken' of other_package:make cannot be loaded \(no timm\)"):
        get_encoder("broken")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    class Small(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cat([x.mean(dim=(2, 3)), x.amax(dim=(2, 3))], dim=1)

    path = tmp_path_factory.mktemp("program") / "own net.pt2"
    batch = torch.export.Dim("batch", min=1, max=512)
    exported = torch.export.export(Small(), (torch.zeros(2, 3, 32, 32),), dynamic_shapes={"x": {0: batch}})
    torch.export.save(exported, path)
    about = {
        "name": "small",
        "dim": 6,
        "input_px": 32,
        "mean": [0.5, 0.5, 0.5],
        "std": [0.25, 0.25, 0.25],
        "weights": "none",
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }
    path.with_suffix(".json").write_text(json.dumps(about), encoding="utf-8")
    return path


def test_a_persons_own_program(program: Path) -> None:
    ours = get_encoder(str(program))
    assert isinstance(ours, Encoder)
    assert (ours.name, ours.dim, ours.input_px, ours.any_size) == ("small", 6, 32, False)
    batch = patches(5, 32)
    scaled = (batch / 255 - 0.5) / 0.25
    wanted = np.concatenate([scaled.mean(axis=(1, 2)), scaled.max(axis=(1, 2))], axis=1)
    assert np.allclose(ours.encode(batch), wanted, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"sha256": "0" * 64}, "not the file its description was written for"),
        ({"sha256": "xyz"}, "sha256"),
        ({"dim": 0}, "dim"),
        ({"mean": [0.5]}, "mean"),
        ({"std": None}, "std"),
    ],
)
def test_descriptions_that_are_wrong(program: Path, tmp_path: Path, change: dict[str, Any], sentence: str) -> None:
    copy = tmp_path / "net.pt2"
    copy.write_bytes(program.read_bytes())
    about = json.loads(program.with_suffix(".json").read_text(encoding="utf-8"))
    copy.with_suffix(".json").write_text(json.dumps({**about, **change}), encoding="utf-8")
    with pytest.raises(FeatureError, match=sentence):
        get_encoder(copy)


def test_programs_that_are_absent_bare_or_something_else(program: Path, tmp_path: Path) -> None:
    with pytest.raises(FeatureError, match="no encoder program"):
        get_encoder(tmp_path / "absent.pt2")
    bare = tmp_path / "bare.pt2"
    bare.write_bytes(program.read_bytes())
    with pytest.raises(FeatureError, match=r"has no description .*bare\.json"):
        get_encoder(bare)
    bare.with_suffix(".json").write_text("{", encoding="utf-8")
    with pytest.raises(FeatureError, match="Expected JSON"):
        get_encoder(bare)
    other = tmp_path / "other.pt2"
    other.write_bytes(b"something else")
    about = json.loads(program.with_suffix(".json").read_text(encoding="utf-8"))
    about["sha256"] = hashlib.sha256(b"something else").hexdigest()
    other.with_suffix(".json").write_text(json.dumps(about), encoding="utf-8")
    with pytest.raises(FeatureError, match=r"cannot be loaded as a torch.export program"):
        get_encoder(other)


def test_real_weights(shared_data: Path) -> None:
    ours = get_encoder(shared_data / "weights" / "resnet50_layer3.pt2")
    rows = ours.encode(patches(2, 224))
    assert rows.shape == (2, 1024)
    assert np.isfinite(rows).all()
    assert rows.std() > 0.1
    assert np.allclose(rows[:1], ours.encode(patches(2, 224)[:1]), atol=1e-4 * np.abs(rows).max())


def test_a_folded_network_answers_as_the_plain_one() -> None:
    import torchvision

    from napari_mil.features.torch_network import fold_batch_norm

    torch.manual_seed(3)
    plain = torchvision.models.resnet18(weights=None).eval()
    for module in plain.modules():
        if isinstance(module, torch.nn.BatchNorm2d):  # as after training: fresh ones would fold away unseen
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            module.weight.data.uniform_(0.5, 2)
            module.bias.data.normal_()
    folded = fold_batch_norm(copy.deepcopy(plain))
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in folded.modules())
    x = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        wanted = plain(x)
        assert torch.allclose(folded(x), wanted, atol=1e-4 * float(wanted.abs().max()))


def test_a_stream_gives_the_rows_of_each_batch_in_order() -> None:
    ours, batch = get_encoder("resnet18", weights="random"), patches(7)
    parts = [batch[:3], batch[3:3], batch[3:]]
    rows = list(ours.encode_stream(iter(parts)))  # type: ignore[attr-defined]
    assert [len(some) for some in rows] == [3, 0, 4]
    assert np.allclose(np.concatenate(rows), ours.encode(batch), atol=1e-5)


def test_a_device_that_copies_ahead_has_the_next_batch_before_it_is_waited_for() -> None:
    happened: list[str] = []

    class Ahead:
        """As a graphics card does it: begun at once, waited for later."""

        backend, precision, ahead = "torch", "fp32", 1

        def submit(self, some: npt.NDArray[np.uint8]) -> Any:
            happened.append(f"begin {len(some)}")

            def wait() -> npt.NDArray[np.float32]:
                happened.append(f"rows {len(some)}")
                return some.mean(axis=(1, 2), dtype=np.float32)

            return wait

    ours = _plain_encoder(lambda x: x).with_network(Ahead(), None)
    batch = patches(6, 32)
    rows = np.concatenate(list(ours.encode_stream([batch[:1], batch[1:3], batch[3:]])))
    assert happened == ["begin 1", "begin 2", "rows 1", "begin 3", "rows 2", "rows 3"]
    assert np.allclose(rows, batch.mean(axis=(1, 2)))

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import pytest

from napari_mil.errors import FeatureError
from napari_mil.features import find_importable, import_features, read_features

from .conftest import FakeSlide

COORDS = np.array([[x * 512, y * 512] for y in range(3) for x in range(4)] + [[100, 1700], [612, 1700]])


def features(count: int = len(COORDS), dim: int = 16, dtype: str = "float32") -> npt.NDArray[Any]:
    return np.random.default_rng(2).normal(size=(count, dim)).astype(dtype)


def big_slide() -> FakeSlide:
    slide = FakeSlide((64, 64))
    slide.dimensions, slide.mpp, slide.path = (2600, 2400), (0.25, 0.251), Path("s1.svs")
    return slide


def clam(root: Path, name: str = "s1", *, patch_attrs: dict[str, Any] | None = None, pt: bool = False) -> Path:
    """A CLAM folder: patches of 256 px at level 1 (downsample 2), features without attributes."""
    for folder in ("patches", "h5_files", "pt_files"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    attrs = {
        "patch_size": 256,
        "patch_level": 1,
        "downsample": np.array([2.0, 2.0]),
        "level_dim": np.array([1300, 1200]),
    }
    with h5py.File(root / "patches" / f"{name}.h5", "w") as file:
        file.create_dataset("coords", data=COORDS).attrs.update(attrs if patch_attrs is None else patch_attrs)
    if pt:
        import torch

        torch.save(torch.from_numpy(features()), root / "pt_files" / f"{name}.pt")
        return root / "pt_files" / f"{name}.pt"
    with h5py.File(root / "h5_files" / f"{name}.h5", "w") as file:
        file["features"], file["coords"] = features(), COORDS
    return root / "h5_files" / f"{name}.h5"


TRIDENT = {
    "patch_size": 256,
    "patch_size_level0": 512,
    "level0_magnification": 40,
    "target_magnification": 20,
    "overlap": 0,
    "level0_width": 2600,
    "level0_height": 2400,
    "name": "s1",
}


def trident(root: Path, attrs: dict[str, Any] | None = None, matrix: npt.NDArray[Any] | None = None) -> Path:
    folder = root / "20x_256px_0px_overlap" / "features_uni_v1"
    folder.mkdir(parents=True, exist_ok=True)
    with h5py.File(folder / "s1.h5", "w") as file:
        file["features"] = features() if matrix is None else matrix
        file.create_dataset("coords", data=COORDS).attrs.update(TRIDENT if attrs is None else attrs)
    return folder / "s1.h5"


def test_clam_with_a_slide(tmp_path: Path) -> None:
    path = import_features(clam(tmp_path), tmp_path / "out" / "mine.h5", slide=big_slide(), encoder="resnet50-clam")
    found = read_features(path)
    assert np.array_equal(found.features, features())
    assert np.array_equal(found.grid.coords, COORDS)
    assert found.grid.patch_px_level0 == (512, 512)
    assert found.grid.stride_px_level0 == (512, 512)
    assert found.grid.mpp == (0.25, 0.251)
    assert found.encoder == "resnet50-clam"
    assert found.fingerprint == "fake-0"
    assert found.patch_px == 256
    assert found.target_mpp == pytest.approx(0.501, abs=1e-3)
    assert found.attrs["imported_from"] == "CLAM"
    assert found.attrs["mpp_source"] == "file"


def test_clam_tensors_without_a_slide(tmp_path: Path) -> None:
    path = import_features(clam(tmp_path, pt=True), tmp_path / "out", mpp=0.25)
    found = read_features(path)
    assert path == tmp_path / "out" / "s1.h5"
    assert np.array_equal(found.features, features())
    assert found.grid.patch_px_level0 == (512, 512)
    assert found.encoder == "clam-16"
    assert found.fingerprint == ""
    assert found.attrs["mpp_source"] == "user"


def test_clam_takes_the_coordinates_that_belong_to_the_rows(tmp_path: Path) -> None:
    path = clam(tmp_path)
    kept = np.array([5, 2, 9])
    with h5py.File(path, "w") as file:
        file["features"], file["coords"] = features(3), COORDS[kept]
    found = read_features(import_features(path, tmp_path / "a.h5", mpp=0.25))
    assert np.array_equal(found.grid.coords, COORDS[kept])
    import torch

    torch.save(torch.from_numpy(features(3)), tmp_path / "pt_files" / "s1.pt")
    found = read_features(import_features(tmp_path / "pt_files" / "s1.pt", tmp_path / "b.h5", mpp=0.25))
    assert np.array_equal(found.grid.coords, COORDS[kept])


def test_clam_overlap_is_seen_in_the_coordinates(tmp_path: Path) -> None:
    path = clam(tmp_path)
    coords = np.array([[x * 256, y * 300] for y in range(4) for x in range(5)])
    for file_path in (path, tmp_path / "patches" / "s1.h5"):
        with h5py.File(file_path, "r+") as file:
            attrs = dict(file["coords"].attrs)
            del file["coords"]
            file.create_dataset("coords", data=coords).attrs.update(attrs)
            if "features" in file:
                del file["features"]
                file["features"] = features(len(coords))
    assert read_features(import_features(path, tmp_path / "o.h5", mpp=1)).grid.stride_px_level0 == (256, 300)


def test_clam_without_its_patch_size_is_refused_until_it_is_told(tmp_path: Path) -> None:
    path = clam(tmp_path, patch_attrs={})
    with pytest.raises(FeatureError, match="patch size is unknown"):
        import_features(path, tmp_path / "o.h5", mpp=0.25)
    found = read_features(import_features(path, tmp_path / "o.h5", mpp=0.25, patch_px_level0=400))
    assert found.grid.patch_px_level0 == (400, 400)
    (tmp_path / "patches" / "s1.h5").unlink()
    with pytest.raises(FeatureError, match="patch size is unknown"):
        import_features(path, tmp_path / "p.h5", mpp=0.25)
    elsewhere = clam(tmp_path / "other").parent.parent / "patches"
    found = read_features(import_features(path, tmp_path / "p.h5", mpp=0.25, patches=elsewhere))
    assert found.grid.patch_px_level0 == (512, 512)
    with pytest.raises(FeatureError, match=r"patch of 400 level-0 px was given, its file says 512"):
        import_features(path, tmp_path / "q.h5", mpp=0.25, patches=elsewhere, patch_px_level0=400)


def test_clam_files_that_contradict_each_other(tmp_path: Path) -> None:
    path = clam(tmp_path)
    with h5py.File(path, "w") as file:
        file["features"], file["coords"] = features(), COORDS + 7
    with pytest.raises(FeatureError, match="different runs"):
        import_features(path, tmp_path / "o.h5", mpp=0.25)
    with h5py.File(path, "w") as file:
        file["features"], file["coords"] = features(5), COORDS
    with pytest.raises(FeatureError, match=r"has 5 rows, but 14 coordinates"):
        import_features(path, tmp_path / "o.h5", mpp=0.25)
    lone = tmp_path / "lone" / "pt_files" / "s9.pt"
    lone.parent.mkdir(parents=True)
    lone.write_bytes(clam(tmp_path / "x", pt=True).read_bytes())
    with pytest.raises(FeatureError, match=r"has no coordinates.*s9\.h5"):
        import_features(lone, tmp_path / "o.h5", mpp=0.25)


def test_the_wrong_slide_is_noticed(tmp_path: Path) -> None:
    slide = big_slide()
    slide.dimensions = (2600, 9000)
    for path in (clam(tmp_path / "c"), trident(tmp_path / "t")):
        with pytest.raises(FeatureError, match=r"slide of 2600 x 2400 px, s1.svs has 2600 x 9000"):
            import_features(path, tmp_path / "o.h5", slide=slide)
    slide.dimensions = (1500, 1500)
    bare = clam(tmp_path / "d", patch_attrs={"patch_size": 256, "patch_level": 0, "downsample": [1.0, 1.0]})
    with pytest.raises(
        FeatureError, match=r"5 of 14 patches lie outside s1.svs \(1500 x 1500 px\), first at \(1536, 0\)"
    ):
        import_features(bare, tmp_path / "o.h5", slide=slide)
    assert list(tmp_path.glob("o.h5*")) == []


def test_the_slides_own_scale_goes_before_a_persons(tmp_path: Path) -> None:
    found = read_features(import_features(clam(tmp_path), tmp_path / "o.h5", slide=big_slide(), mpp=0.5))
    assert found.grid.mpp == (0.25, 0.251)
    assert found.attrs["mpp_source"] == "file"


def test_mpp_is_never_invented(tmp_path: Path) -> None:
    slide = big_slide()
    slide.mpp = None
    for path in (clam(tmp_path / "c"), trident(tmp_path / "t")):
        with pytest.raises(FeatureError, match="µm per pixel is unknown"):
            import_features(path, tmp_path / "o.h5")
        with pytest.raises(FeatureError, match="µm per pixel is unknown"):
            import_features(path, tmp_path / "o.h5", slide=slide)
        assert read_features(import_features(path, tmp_path / "o.h5", slide=slide, mpp=0.3)).grid.mpp == (0.3, 0.3)


def test_trident(tmp_path: Path) -> None:
    half = features(dtype="float16")
    path = import_features(trident(tmp_path, matrix=half[None]), tmp_path / "o.h5", slide=big_slide())
    found = read_features(path, dtype=None)
    assert found.features.dtype == np.float16
    assert np.array_equal(found.features, half)
    assert np.array_equal(found.grid.coords, COORDS)
    assert found.grid.patch_px_level0 == found.grid.stride_px_level0 == (512, 512)
    assert found.encoder == "uni_v1"
    assert found.attrs["imported_from"] == "TRIDENT"
    assert found.coords_attrs["level0_magnification"] == 20  # the slide's own


def test_trident_overlap_and_none_strings(tmp_path: Path) -> None:
    attrs = {**TRIDENT, "overlap": 64, "level0_magnification": "None", "level0_width": "None"}
    found = read_features(import_features(trident(tmp_path, attrs), tmp_path / "o.h5", mpp=0.25))
    assert found.grid.stride_px_level0 == (384, 384)
    assert found.coords_attrs["level0_magnification"] == "None"
    assert found.coords_attrs["level0_width"] == 0
    lacking = {**TRIDENT, "patch_size_level0": "None"}
    with pytest.raises(FeatureError, match="patch size is unknown"):
        import_features(trident(tmp_path, lacking), tmp_path / "o.h5", mpp=0.25)


def test_trident_geometry_from_its_patches_file(tmp_path: Path) -> None:
    path = trident(tmp_path, {})
    (path.parent.parent / "patches").mkdir()
    beside = path.parent.parent / "patches" / "s1_patches.h5"
    with h5py.File(beside, "w") as file:
        file.create_dataset("coords", data=COORDS).attrs.update(TRIDENT)
    found = read_features(import_features(path, tmp_path / "o.h5", mpp=0.25))
    assert found.grid.patch_px_level0 == (512, 512)
    with h5py.File(beside, "w") as file:
        file.create_dataset("coords", data=COORDS[::-1]).attrs.update(TRIDENT)
    with pytest.raises(FeatureError, match="different patches"):
        import_features(path, tmp_path / "o.h5", mpp=0.25)


def test_trident_unfinished_is_refused(tmp_path: Path) -> None:
    path = trident(tmp_path)
    path.with_name("s1.h5.lock").touch()
    with pytest.raises(FeatureError, match=r"unfinished: s1.h5.lock"):
        import_features(path, tmp_path / "o.h5", mpp=0.25)
    assert find_importable(tmp_path)[0].unfinished


def test_damaged_files_are_sentences(tmp_path: Path) -> None:
    path = trident(tmp_path)
    matrix = features()
    matrix[3, 1] = np.nan
    with pytest.raises(FeatureError, match=r"patch 3 at \(1536, 0\) are not finite"):
        import_features(trident(tmp_path, matrix=matrix), tmp_path / "o.h5", mpp=0.25)
    assert list(tmp_path.glob("o.h5*")) == []
    with pytest.raises(FeatureError, match=r"shape \(14,\)"):
        import_features(trident(tmp_path, matrix=np.zeros(14)), tmp_path / "o.h5", mpp=0.25)
    with pytest.raises(FeatureError, match="has 3 rows but 14 coordinates"):
        import_features(trident(tmp_path, matrix=features(3)), tmp_path / "o.h5", mpp=0.25)
    empty = trident(tmp_path, matrix=features(0))
    with h5py.File(empty, "r+") as file:
        del file["coords"]
        file.create_dataset("coords", data=np.zeros((0, 2))).attrs.update(TRIDENT)
    with pytest.raises(FeatureError, match="has no patches"):
        import_features(empty, tmp_path / "o.h5", mpp=0.25)
    with h5py.File(path, "w") as file:
        file.create_dataset("features", data=features())
        file.create_dataset("coords", data=COORDS / 3).attrs.update(TRIDENT)
    with pytest.raises(FeatureError, match="not whole level-0 pixels"):
        import_features(path, tmp_path / "o.h5", mpp=0.25)
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(FeatureError, match="cut off"):
        import_features(path, tmp_path / "o.h5", mpp=0.25)
    with pytest.raises(FeatureError, match="no file"):
        import_features(tmp_path / "features_x" / "absent.h5", tmp_path / "o.h5", mpp=0.25)


def test_tensors_are_never_unpickled(tmp_path: Path) -> None:
    import torch

    trap = tmp_path / "ran"

    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (trap,))

    path = clam(tmp_path, pt=True)
    torch.save({"features": Trap()}, path)
    with pytest.raises(FeatureError, match="not a plain tensor"):
        import_features(path, tmp_path / "o.h5", mpp=0.25)
    assert not trap.exists()
    torch.save({"features": torch.from_numpy(features())[None].bfloat16()}, path)
    found = read_features(import_features(path, tmp_path / "o.h5", mpp=0.25))
    assert np.allclose(found.features, features(), atol=0.02)


def test_what_a_file_is_when_its_folder_does_not_say(tmp_path: Path) -> None:
    plain = tmp_path / "s1.h5"
    plain.write_bytes(trident(tmp_path / "t").read_bytes())
    found = read_features(import_features(plain, tmp_path / "o.h5", mpp=0.25))
    assert found.encoder == "trident-16"
    with pytest.raises(FeatureError, match="needs no import"):
        import_features(tmp_path / "o.h5", tmp_path / "p.h5", mpp=0.25)
    plain.write_bytes(clam(tmp_path / "c").read_bytes())
    with pytest.raises(FeatureError, match=r"could be of CLAM or of TRIDENT"):
        import_features(plain, tmp_path / "p.h5", mpp=0.25)
    found = read_features(import_features(plain, tmp_path / "p.h5", mpp=0.25, source="clam", patch_px_level0=512))
    assert found.attrs["imported_from"] == "CLAM"


def test_finding_what_can_be_imported(tmp_path: Path) -> None:
    h5 = clam(tmp_path / "clam", "b")
    clam(tmp_path / "clam", "b", pt=True)  # the same slide again: one entry
    pt = clam(tmp_path / "clam", "c", pt=True)
    uni = trident(tmp_path / "trident")
    slide_level = uni.parent.parent / "slide_features_titan"
    slide_level.mkdir()
    (slide_level / "s1.h5").write_bytes(uni.read_bytes())
    found = find_importable(tmp_path)
    assert [(item.slide_id, item.source, item.path) for item in found] == [
        ("b", "clam", h5),
        ("c", "clam", pt),
        ("s1", "trident", uni),
    ]
    assert found[0].patches == tmp_path / "clam" / "patches" / "b.h5"
    assert found[2].encoder == "uni_v1"

"""Weights of published encoders from a stand-in hub: the licence first, then the download or a clear sentence."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from napari_mil.errors import FeatureError
from napari_mil.features import EncoderInfo, get_encoder, hub, list_encoders, published_encoder
from napari_mil.features.licences import accept, is_accepted
from napari_mil.features.published import PUBLISHED

pytestmark = pytest.mark.usefixtures("one_thread")

COMMIT = "0123456789abcdef0123456789abcdef01234567"
GATED, OPEN = PUBLISHED["uni"], PUBLISHED["dinov2-small"]


class StandIn(BaseHTTPRequestHandler):
    """Answers as the hub does to who asks for a file."""

    content = b""
    refusal = ""  # the hub's X-Error-Code
    asked: list[str]

    def do_HEAD(self) -> None:
        self.answer(b"")

    def do_GET(self) -> None:
        self.answer(self.content)

    def answer(self, body: bytes) -> None:
        type(self).asked.append(f"{self.command} {self.path}")
        if self.refusal:
            status = {"GatedRepo": 403, "RevisionNotFound": 404, "EntryNotFound": 404, "": 500}[self.refusal]
            self.send_response(status)
            self.send_header("X-Error-Code", self.refusal)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{hashlib.sha256(self.content).hexdigest()}"')
        self.send_header("Content-Length", str(len(self.content)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(autouse=True)
def own_hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HUGGINGFACE_HUB_CACHE", "HF_HUB_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "hf" / "token"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    return tmp_path / "hf" / "hub"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[StandIn]]:
    handler = type("Handler", (StandIn,), {"asked": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.05,))
        thread.start()
        _points_at(monkeypatch, f"http://127.0.0.1:{running.server_port}")
        yield handler
        running.shutdown()
        thread.join()


def _points_at(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", endpoint)
    template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)


def info(name: str) -> EncoderInfo:
    return {i.name: i for i in list_encoders()}[name]


def test_nothing_is_downloaded_before_the_licence_was_accepted(server: type[StandIn], own_cache: Path) -> None:
    with pytest.raises(FeatureError) as caught:
        get_encoder("uni")
    sentence = str(caught.value)
    assert "CC BY-NC-ND 4.0" in sentence
    assert "https://creativecommons.org/licenses/by-nc-nd/4.0/" in sentence
    assert "napari-mil encoders uni --accept-licence" in sentence
    assert server.asked == []
    assert info("uni").terms == GATED.terms
    accept(GATED)
    assert is_accepted(GATED)
    assert not is_accepted(OPEN)
    assert info("uni").terms == ""
    kept = json.loads((own_cache / "licences.json").read_text(encoding="utf-8"))
    assert kept["uni"]["licence"] == GATED.licence.name
    kept["uni"]["licence"] = "another one"  # its authors changed it: to be accepted anew
    (own_cache / "licences.json").write_text(json.dumps(kept), encoding="utf-8")
    assert not is_accepted(GATED)
    (own_cache / "licences.json").write_text("{", encoding="utf-8")
    assert not is_accepted(GATED)


def test_a_download_with_progress_and_the_next_time_without(
    server: type[StandIn], tmp_path: Path, own_hub_cache: Path, own_cache: Path
) -> None:
    import torch
    from safetensors.torch import save_file

    from napari_mil.features.published_network import PublishedNetwork

    source = tmp_path / "w.safetensors"
    torch.manual_seed(0)
    state = PublishedNetwork(OPEN).state_dict()
    save_file({key.removeprefix("trunk."): value for key, value in state.items()}, source)
    server.content = source.read_bytes()
    accept(OPEN)
    seen: list[tuple[int, int]] = []
    ours = get_encoder("dinov2-small", progress=lambda done, total: seen.append((done, total)))
    size = len(server.content)
    assert seen[-1] == (size, size)
    assert ours.revision == COMMIT  # what "main" was then
    assert ours.weights_sha256 == hashlib.sha256(server.content).hexdigest()
    kept = hub.cached_file(OPEN)
    assert kept is not None
    assert kept.is_relative_to(own_hub_cache)
    assert kept.read_bytes() == server.content
    assert not info("dinov2-small").needs_download
    before = list(server.asked)
    assert get_encoder("dinov2-small").weights_sha256 == ours.weights_sha256
    assert server.asked == before  # the hub is not even asked
    assert hub.cached_file(OPEN, "another") is None
    placed = hub.place_by_hand(OPEN)  # one put there by hand goes first
    assert placed.is_relative_to(own_cache)
    placed.parent.mkdir(parents=True)
    placed.write_bytes(kept.read_bytes())
    kept.unlink()
    assert not info("dinov2-small").needs_download
    again = get_encoder("dinov2-small")
    assert (again.revision, again.weights_sha256) == ("local", ours.weights_sha256)


def test_a_pinned_revision_is_the_one_asked_for(server: type[StandIn]) -> None:
    server.refusal = "RevisionNotFound"
    with pytest.raises(FeatureError, match=f"has no revision {GATED.revision}.*download pytorch_model.bin there"):
        hub.download(GATED)
    assert server.asked == [f"HEAD /MahmoodLab/UNI/resolve/{GATED.revision}/pytorch_model.bin"]
    assert len(GATED.revision) == 40


def test_a_gated_encoder_says_what_to_do(server: type[StandIn], monkeypatch: pytest.MonkeyPatch) -> None:
    server.refusal = "GatedRepo"
    with pytest.raises(FeatureError) as caught:
        hub.download(GATED)
    sentence = str(caught.value)
    assert "not logged in" in sentence
    assert "Open https://huggingface.co/MahmoodLab/UNI in a browser" in sentence
    assert "hf auth login" in sentence
    assert "HF_TOKEN" in sentence
    monkeypatch.setenv("HF_TOKEN", "hf_of_a_person")
    with pytest.raises(FeatureError) as caught:
        hub.download(GATED)
    assert "your Hugging Face account has no access yet" in str(caught.value)
    assert "hf_of_a_person" not in str(caught.value)
    server.refusal = "EntryNotFound"
    with pytest.raises(FeatureError, match=r"has no file pytorch_model\.bin at revision"):
        hub.download(GATED)


def test_offline_says_what_to_fetch_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    _points_at(monkeypatch, "http://127.0.0.1:9")  # nobody listens
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # the hub's library tries again and again
    with pytest.raises(FeatureError) as caught:
        hub.download(GATED)
    sentence = str(caught.value)
    assert "UNI (1214 MB) cannot be downloaded from https://huggingface.co/MahmoodLab/UNI" in sentence
    assert f"download pytorch_model.bin there with a browser and put it at {hub.place_by_hand(GATED)}" in sentence
    assert "\n" not in sentence
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(FeatureError, match="cannot be downloaded"):
        hub.download(GATED)


def test_a_full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_args: object, **_options: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", full)
    with pytest.raises(FeatureError, match=r"No space left on device.*the room on the disk"):
        hub.download(GATED)


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(published_encoder, "find_spec", lambda name: None)
    assert info("uni").missing == "timm and huggingface_hub"
    assert info("resnet50").missing == ""
    with pytest.raises(FeatureError, match=r'needs timm and huggingface_hub.*pip install "napari-mil\[encoders\]"'):
        get_encoder("uni", weights="random")


def test_a_scale_that_is_not_its_own_is_told() -> None:
    uni = info("uni")
    assert (uni.target_mpp, uni.patch_px) == (0.5, 256)
    assert uni.scale_note(0.5, 256) == ""
    assert uni.scale_note(0.504, 256) == ""
    assert "UNI was made for patches of 256 px at 0.5 µm/px. Here they are 224 px at 1" in uni.scale_note(1.0, 224)
    assert info("resnet50").scale_note(2.0, 99) == ""
    assert info("dinov2-small").scale_note(2.0, 99) == ""

"""The encoder on the page Features: which one, its licence before anything is downloaded, and the scale it wants."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QComboBox, QFileDialog, QLabel

from .parts import ACCENT, Action, Note, Section, labelled, row

if TYPE_CHECKING:
    from napari_mil.features import EncoderInfo
    from napari_mil.study.config import ProjectConfig
    from napari_mil.viewer.session import Session

OWN_FILE = "My own network (.pt2)…"
RECOMMENDED = "Recommended"
PUBLISHED = "Published encoders (licences of their own)"
OTHERS = "Of other packages"
PRECISIONS = {
    "auto": "Automatic",
    "fp32": "Full (32 bit)",
    "bf16": "Half (bfloat16)",
    "int8": "Quarter (int8, OpenVINO)",
}
WEIGHT_FILES = "Weights (*.safetensors *.bin *.pth *.pt)"


class EncoderSection(Section):
    """Shows and chooses the project's encoder; calls `refresh` when the person chose something."""

    def __init__(self, session: Session, refresh: Callable[[], None]) -> None:
        super().__init__("Encoder")
        self._session, self._refresh = session, refresh
        self._infos: dict[str, EncoderInfo] = {}
        self._chosen = ""
        self.choice = QComboBox()
        self.choice.setMaxVisibleItems(20)
        self.note = Note()
        self.scale_note = Note()
        self.use_scale = Action("Use its scale", self._use_scale, tip="Cut patches as this encoder was made for")
        self.licence = _links()
        self.accept = Action("I accept this licence", self._accept, tip="Asked once, for all projects")
        self.weights_file = Action(
            "Weights file…", self._choose_file, tip="A file of its weights that you have already, instead of a download"
        )
        self.no_file = Action("Download instead", lambda: self._configure(weights=""))
        self.problem = Note()
        self.add(self.choice)
        self.add(self.note)
        self.add(self.licence)
        self.buttons = self.add(row(self.accept, self.weights_file, self.no_file))
        self.add(self.problem)
        self.add(self.scale_note)
        self.scale_row = self.add(row(self.use_scale))
        self.precision = QComboBox()
        self.precision.setToolTip(
            "Automatic: half where this computer gains by it and the features agree with those of full precision; all "
            "slides of a project are then done so."
        )
        for name, text in PRECISIONS.items():
            self.precision.addItem(text, name)
        self.precision_row = self.add(labelled("Precision", self.precision))
        self.choice.activated.connect(self._choose)
        self.precision.activated.connect(lambda i: self._configure(precision=self.precision.itemData(i)))

    @property
    def reason(self) -> str:
        """Why features cannot be prepared with this encoder yet; empty when they can."""
        info, project = self._infos.get(self._chosen), self._session.project
        if info is None or project is None:
            return ""
        if info.missing:
            return f"{info.title} needs {info.missing}: see Encoder."
        if info.terms and project.config.encoder_weights is None:
            return f"Read the licence of {info.title} under Encoder and accept it first."
        return ""

    def show_encoder(self, config: ProjectConfig) -> None:
        """Show the encoder of these settings, and what there is to say about it."""
        self._infos = {info.name: info for info in self._session.preparation.encoders}
        self._chosen = config.encoder
        self._show_choices()
        info = self._infos.get(config.encoder)
        self.note.setText(info.note if info else "A network of your own; its JSON says how to feed it.")
        scale = info.scale_note(config.tile.target_mpp, config.tile.patch_px) if info else ""
        self.scale_note.setText(scale)
        self.scale_row.setVisible(bool(scale))
        self.precision.setCurrentIndex(self.precision.findData(config.precision))
        self.precision_row.setVisible(config.encoder != "texture")  # it has no weights
        self._show_licence(info, config.encoder_weights)

    def _show_choices(self) -> None:
        wanted = _grouped(list(self._infos.values()))
        if self._chosen not in [name for name, _ in wanted]:
            wanted.append((self._chosen, Path(self._chosen).name))
        wanted.append((OWN_FILE, OWN_FILE))
        names = [name for name, _ in wanted]
        if [self.choice.itemData(i) or "" for i in range(self.choice.count())] != names:
            self.choice.clear()
            for name, text in wanted:
                self.choice.addItem(text, name or None)
                if not name:
                    self._make_heading(self.choice.count() - 1)
        self.choice.setCurrentIndex(names.index(self._chosen))

    def _make_heading(self, index: int) -> None:
        self.choice.setItemData(index, 0, Qt.ItemDataRole.UserRole - 1)  # not to be chosen
        font = self.choice.font()
        font.setBold(True)
        self.choice.setItemData(index, font, Qt.ItemDataRole.FontRole)

    def _show_licence(self, info: EncoderInfo | None, weights: str | None) -> None:
        published = info is not None and bool(info.url)
        self.licence.setVisible(published)
        self.buttons.setVisible(published)
        self.problem.setText("")
        if info is None or not published:
            return
        self.licence.setText(_licence_text(info, weights))
        self.accept.setVisible(bool(info.terms) and weights is None)
        self.weights_file.setVisible(weights is None)
        self.no_file.setVisible(weights is not None)
        if info.missing:
            self.problem.setText(
                f'Not installed: {info.missing}. Close napari, run: pip install "napari-mil[encoders]", open it again.'
            )

    def _choose(self, index: int) -> None:
        name = self.choice.itemData(index)
        if name == OWN_FILE:
            path, _ = QFileDialog.getOpenFileName(self, "A frozen network with its JSON beside", "", "Networks (*.pt2)")
            name = str(Path(path)) if path else None
        self._configure(encoder=name)

    def _choose_file(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "Weights of the encoder", "", WEIGHT_FILES)
        if path:
            self._configure(weights=str(Path(path)))

    def _accept(self) -> None:
        self._session.preparation.accept_licence(self._chosen)
        self._configure()

    def _use_scale(self) -> None:
        info = self._infos[self._chosen]
        tile = {"target_mpp": info.target_mpp, "patch_px": info.patch_px, "stride_px": None}
        self._session.preparation.configure(tile=tile)

    def _configure(
        self, *, encoder: str | None = None, weights: str | None = None, precision: str | None = None
    ) -> None:
        self._session.preparation.configure(encoder=encoder, weights=weights, precision=precision)
        self._refresh()  # also where nothing changed: the list shows what was clicked


def _grouped(infos: list[EncoderInfo]) -> list[tuple[str, str]]:
    """(name, text) of every encoder under headings, which have no name."""
    groups: dict[str, list[tuple[str, str]]] = {RECOMMENDED: [], PUBLISHED: [], OTHERS: []}
    for info in infos:
        if info.url:
            groups[PUBLISHED].append((info.name, f"{info.title} ({info.dim} numbers, {_size(info)})"))
        else:
            groups[RECOMMENDED if info.source == "napari-mil" else OTHERS].append((info.name, info.name))
    return [entry for heading, entries in groups.items() if entries for entry in [("", heading), *entries]]


def _licence_text(info: EncoderInfo, weights: str | None) -> str:
    licence = f"Licence: {_link(info.licence_url, info.licence)}."
    page = _link(info.url, info.url.removeprefix("https://"))
    if weights is not None:
        return f"{licence} Weights of your file {Path(weights).name}; see {page}."
    if not info.needs_download:
        return f"{licence} Its weights are here already; see {page}."
    if not info.terms:
        licence += " You accepted it."
    asked = ""
    if info.gated:
        asked = " They are given to accounts that accepted the terms there: do that, then log in with “hf auth login”."
    return f"{licence} {_size(info)} will be downloaded from {page}.{asked}"


def _size(info: EncoderInfo) -> str:
    return f"{info.download_mb / 1000:.1f} GB" if info.download_mb >= 1000 else f"{info.download_mb:.0f} MB"


def _link(url: str, text: str) -> str:
    return f'<a href="{url}" style="color: {ACCENT}">{text}</a>'


def _links() -> QLabel:
    label = QLabel()
    label.setWordWrap(True)
    label.setTextFormat(Qt.TextFormat.RichText)
    label.setOpenExternalLinks(True)
    label.setStyleSheet("QLabel { font-size: 11px; }")
    return label

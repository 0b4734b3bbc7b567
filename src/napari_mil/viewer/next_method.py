"""The method of the next training: a preset for the slides of the open project, and what was changed in it."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from napari_mil.errors import MilError

from .words import count

if TYPE_CHECKING:
    from napari_mil.mil import Method

    from .method_form import MethodForm
    from .session import Session


class NextMethod:
    """What is to be trained next."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._labels: tuple[str, ...] = ()
        session.slides.changed.connect(self._follow_labels)

    @property
    def presets(self) -> dict[str, Any]:
        """Named methods with their explanations, the recommended one first."""
        from napari_mil.mil import Method

        infos = Method.presets()
        return dict(sorted(infos.items(), key=lambda item: not item[1].recommended))

    @cached_property
    def form(self) -> MethodForm:
        """Settings of the next training."""
        from .method_form import MethodForm

        return MethodForm()

    @property
    def recommended(self) -> str:
        """The preset to begin with: the recommended one, or one of survival where slides have times, but no labels."""
        presets = self.presets
        survival = [name for name in presets if "survival" in name] if self._session.slides.survival else []
        return next(iter([*survival, *presets]))

    def choose(self, preset: str) -> None:
        """Take a preset for the next training."""
        self._labels = tuple(self._session.slides.label_names)
        self.form.begin(preset, self._method_of(preset))

    def _method_of(self, preset: str) -> Method:
        """A preset for the labels of this project's slides, as far as it can be."""
        from napari_mil.mil import Method
        from napari_mil.study.train import method_for

        project = self._session.project
        if project is None or len(self._labels) < 2:
            return Method.preset(preset)
        try:
            return method_for(project, preset)
        except MilError:  # one of two classes, say, where the slides have three labels
            return Method.preset(preset)

    def _follow_labels(self, _: object = None) -> None:
        """Other labels of the slides are other classes."""
        if "form" not in self.__dict__ or not self.form.preset:
            return
        if tuple(self._session.slides.label_names) != self._labels:
            changes = {key: value for key, value in self.form.changes.items() if not key.startswith("task.")}
            self.choose(self.form.preset)
            self.form.put_all(changes)

    @property
    def obstacle(self) -> str:
        """Why the settings of the form can't be trained with, or nothing."""
        method, labels = self.form.method, self._labels
        if method is None:
            return self.form.obstacle
        kind = method.task.kind
        if kind == "binary" and len(labels) > 2:
            return f"The slides have {len(labels)} labels ({', '.join(labels)}); this task has two classes."
        if kind == "multiclass" and len(labels) < 3:
            return f"The slides have {count(len(labels), 'label')}; this task has three classes or more."
        return ""

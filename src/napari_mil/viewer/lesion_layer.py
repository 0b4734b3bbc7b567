"""Lesions as a Shapes layer: the LesionSet is the truth, the layer its view, every edit one step that can be undone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from psygnal import Signal

from . import lesion_view as view
from .history import History
from .lesion_edits import apply_event
from .lesion_state import State, absorbed, outlines_for, redrawn
from .tags import tag

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Shapes

    from napari_mil.lesion import Lesion, LesionSet

MODES = {
    "polygon": "add_polygon",
    "lasso": "add_polygon_lasso",
    "rectangle": "add_rectangle",
    "ellipse": "add_ellipse",
    "select": "select",
    "vertices": "direct",
    "pan": "pan_zoom",
}
"""Our names of the tools → napari's modes."""

KEYS = "123456789"


class LesionLayer:
    """The outlines of one slide.

    Parameters
    ----------
    viewer : napari viewer
    lesions : LesionSet or None
        What is there already.
    mpp : (x, y) or None
        The slide's µm per level-0 pixel.
    slide_id : str
    classes : mapping of str to (r, g, b), optional
        Classes in the order of keys 1–9; QuPath's by default.
    name : str

    Signals
    -------
    changed(LesionSet)
        After every edit, undo and redo.
    selection_changed(list of str)
        Ids of the selected lesions.
    class_changed(str)
        The class that new outlines get.
    message(str)
        What a person should know ("… is locked").
    """

    changed = Signal(object)
    selection_changed = Signal(list)
    class_changed = Signal(str)
    message = Signal(str)

    def __init__(
        self,
        viewer: ViewerModel,
        lesions: LesionSet | None = None,
        *,
        mpp: Sequence[float] | None,
        slide_id: str,
        classes: Mapping[str, tuple[int, int, int]] | None = None,
        name: str = "Lesions",
    ) -> None:
        from napari_mil.lesion import LESION_CLASSES, LesionSet

        self.viewer = viewer
        self.slide_id = slide_id
        self._classes: dict[str, tuple[int, int, int]] = dict(LESION_CLASSES if classes is None else classes)
        self._current = next(iter(self._classes), "Tumor")
        self._busy = False
        self._drawing = False
        self._mended: set[str] = set()  # lesions whose shape must be drawn anew from the truth
        self._history: History[State] = History(State(LesionSet(), ()))
        self.layer: Shapes = view.make_layer(name, mpp, tag("lesions", slide_id, mpp=mpp))
        self._width = view.WidthFollower(viewer, self.layer)
        self._later = view.Later(self._render)
        self.layer.events.data.connect(self._on_data)
        self.layer.events.features.connect(self._on_features)
        self.layer.selected_data.events.items_changed.connect(self._on_selection)
        self._bind_keys()
        self._apply_current_colors()
        viewer.add_layer(self.layer)
        if lesions is not None:
            self.reset(lesions)

    # ---- the truth

    @property
    def lesions(self) -> LesionSet:
        """All lesions of the slide."""
        return self._history.present.lesions

    def reset(self, lesions: LesionSet) -> None:
        """Show these lesions and forget the past (a slide was opened)."""
        self._history.reset(State(lesions, outlines_for(lesions)))
        self._render()

    def set_lesions(self, lesions: LesionSet, label: str = "edit") -> None:
        """Show these lesions instead, as one step that can be undone (an import)."""
        self._commit(label, State(lesions, outlines_for(lesions, self._history.present)))
        self._render()

    def add(self, lesions: Iterable[Lesion], label: str = "import") -> None:
        """Add lesions, as one step; 300 of them in one batch."""
        self.set_lesions(self._with([*self.lesions, *lesions]), label)

    def update(self, lesion_id: str, label: str = "edit", **fields: Any) -> None:
        """Change fields of a lesion (name, label, locked, properties, geometry), as one step."""
        changed = [replace(x, **fields) if x.id == lesion_id else x for x in self.lesions]
        self.set_lesions(self._with(changed), label)

    def set_locked(self, ids: Iterable[str], locked: bool = True) -> None:
        """Lock lesions against editing, or free them, as one step."""
        wanted = set(ids)
        changed = [replace(x, locked=locked) if x.id in wanted else x for x in self.lesions]
        self.set_lesions(self._with(changed), "lock" if locked else "unlock")
        if locked:
            self._drop_locked_from_selection()

    def delete(self, ids: Iterable[str] | None = None) -> None:
        """Delete lesions, the selected ones by default, as one step; locked ones stay."""
        wanted = set(self.selected_ids if ids is None else ids)
        locked = [x for x in self.lesions if x.id in wanted and x.locked]
        if locked:
            self._say_locked(locked)
        kept = [x for x in self.lesions if x.id not in wanted or x.locked]
        if len(kept) < len(self.lesions):
            self.set_lesions(self._with(kept), "delete")

    # ---- undo and redo

    @property
    def undo_label(self) -> str | None:
        """What Ctrl+Z would undo ("draw", "move", "delete", "class", …); None for nothing."""
        return self._history.undo_label

    @property
    def redo_label(self) -> str | None:
        """What Ctrl+Shift+Z would do again; None for nothing."""
        return self._history.redo_label

    def undo(self, *_: object) -> str | None:
        """Take back the last step; what it was, or None."""
        return self._travel(self._history.undo, "undid")

    def redo(self, *_: object) -> str | None:
        """Do the last undone step again; what it was, or None."""
        return self._travel(self._history.redo, "redid")

    def _travel(self, step: Callable[[], str | None], word: str) -> str | None:
        if self._drawing:
            self.message.emit("Finish the outline first (double-click or Enter), then undo.")
            return None
        label = step()
        if label is None:
            self.message.emit("Nothing to undo." if word == "undid" else "Nothing to redo.")
            return None
        self._render()
        self.changed.emit(self.lesions)
        self.message.emit(f"{word.capitalize()}: {label}.")
        return label

    # ---- classes

    @property
    def classes(self) -> dict[str, tuple[int, int, int]]:
        """Class names and colours, in the order of keys 1–9."""
        return dict(self._classes)

    def set_classes(self, classes: Mapping[str, tuple[int, int, int]]) -> None:
        """Other classes or colours; shapes are recoloured, keys follow."""
        self._classes = dict(classes)
        if self._current not in self._classes and self._classes:
            self._current = next(iter(self._classes))
            self.class_changed.emit(self._current)
        self._apply_current_colors()
        self._decorate()

    @property
    def current_class(self) -> str:
        """The class that new outlines get."""
        return self._current

    def set_class(self, name: str) -> None:
        """Give the selected lesions this class (one step), and all outlines drawn from now on."""
        if name != self._current:
            self._current = name
            self.class_changed.emit(name)
        ids = set(self.selected_ids)
        if ids and not self._drawing:
            changed = [replace(x, label=name, color=None) if x.id in ids else x for x in self.lesions]
            if any(old is not new and old.label != name for old, new in zip(self.lesions, changed, strict=True)):
                state = State(self._with(changed), self._history.present.outlines)
                self._commit("class", state)
                self._decorate()
        self._apply_current_colors(update_selected=self._drawing)

    # ---- tools and selection

    @property
    def tool(self) -> str:
        """The tool in hand: one of MODES."""
        mode = str(self.layer.mode)
        return next((name for name, value in MODES.items() if value == mode), mode)

    def set_tool(self, tool: str) -> None:
        """Take up a tool: polygon, lasso, rectangle, ellipse, select, vertices or pan."""
        if self.layer not in self.viewer.layers:  # someone took it out of the list
            self.viewer.add_layer(self.layer)
        self.viewer.layers.selection.active = self.layer
        if tool in ("polygon", "lasso", "rectangle", "ellipse"):
            self.layer.selected_data = set()
            self._apply_current_colors()
        self.layer.mode = MODES[tool]

    @property
    def selected_ids(self) -> list[str]:
        """Ids of the selected lesions."""
        outlines = self._history.present.outlines
        chosen = [outlines[i].lesion_id for i in sorted(self.layer.selected_data) if i < len(outlines)]
        return list(dict.fromkeys(chosen))

    def select(self, ids: Iterable[str]) -> None:
        """Select lesions on the canvas; locked ones can't be."""
        wanted = set(ids)
        self.layer.selected_data = {
            i for i, outline in enumerate(self._history.present.outlines) if outline.lesion_id in wanted
        }

    def center_of(self, lesion_id: str) -> tuple[float, float]:
        """World position (y, x) of the middle of a lesion's box, in µm."""
        lesion = next(x for x in self.lesions if x.id == lesion_id)
        x0, y0, x1, y1 = lesion.geometry.bounds
        y, x = self.layer.data_to_world(((y0 + y1) / 2, (x0 + x1) / 2))
        return float(y), float(x)

    def set_mpp(self, mpp: Sequence[float] | None) -> None:
        """Follow the slide when its scale becomes known."""
        view.place(self.layer, mpp)

    # ---- the view's events

    def _on_data(self, event: Any) -> None:
        action = str(event.action).lower()
        if self._busy:
            return
        if action == "adding":
            self._drawing = True
            self._apply_current_colors()
        elif action in ("added", "removed", "changed"):
            self._drawing = False
            self._absorb(action, event)

    def _on_features(self, _: Any = None) -> None:
        # pasting adds shapes without a data event
        quiet = not (self._busy or self._drawing or self._later.waiting)
        if quiet and self.layer.nshapes > len(self._history.present.outlines):
            self._absorb("added", None)

    def _absorb(self, action: str, event: Any) -> None:
        """Take an edit of the layer over into the truth."""
        state = self._history.present
        locked = {lesion.id for lesion in state.lesions if lesion.locked}
        edit = apply_event(self.layer, state.outlines, action, event)
        touched = edit.touched_ids & locked
        if touched:
            self._say_locked([x for x in state.lesions if x.id in touched])
            self._later.call()
            return
        if edit.label is not None:
            self._commit(edit.label, absorbed(state, edit, self._current))
        if edit.off:
            self._mended |= edit.touched_ids | set(edit.new_ids)
        if edit.off or edit.label is None:
            self._later.call()
        else:
            self._decorate()
        if edit.note:
            self.message.emit(edit.note)

    def _on_selection(self, *_: object) -> None:
        if self._busy:
            return
        self._drop_locked_from_selection()
        self.selection_changed.emit(self.selected_ids)

    def _drop_locked_from_selection(self) -> None:
        chosen = set(self.selected_ids)
        locked = [x for x in self.lesions if x.locked and x.id in chosen]
        if locked:
            names = {x.id for x in locked}
            outlines = self._history.present.outlines
            keep = {i for i in self.layer.selected_data if i >= len(outlines) or outlines[i].lesion_id not in names}
            self.layer.selected_data = keep
            self._say_locked(locked)

    def _say_locked(self, lesions: Sequence[Lesion]) -> None:
        names = ", ".join(x.name or x.label for x in lesions[:3])
        text = f"{names} is locked; unlock it in the list to edit it."
        self.viewer.status = text
        self.message.emit(text)

    # ---- from the truth to the view

    def _with(self, lesions: Iterable[Lesion]) -> LesionSet:
        return self.lesions.with_lesions(lesions)

    def _commit(self, label: str, state: State) -> None:
        self._history.do(label, state)
        self.changed.emit(state.lesions)

    def _render(self) -> None:
        """Make the layer show the truth; shapes that do already are left alone."""
        chosen = set(self.selected_ids)
        self._busy = True
        try:
            target = self._history.present
            outlines = view.render(self.layer, redrawn(target, self._mended))
            self._mended.clear()
            self._history.replace(State(target.lesions, outlines))
            self._decorate()
            self.layer.selected_data = {i for i, o in enumerate(outlines) if o.lesion_id in chosen}
        finally:
            self._busy = False

    def _decorate(self) -> None:
        busy, self._busy = self._busy, True
        try:
            by_id = {lesion.id: lesion for lesion in self.lesions}
            shown = [by_id[outline.lesion_id] for outline in self._history.present.outlines]
            view.decorate(self.layer, shown, self._classes)
            self._width.update()
        finally:
            self._busy = busy

    def _apply_current_colors(self, update_selected: bool = False) -> None:
        from napari_mil.lesion import class_color

        color = class_color(self._current, self._classes)
        view.set_current_colors(self.layer, color, update_selected)

    # ---- keys

    def _bind_keys(self) -> None:
        # on this instance: in napari itself 3 removes what is being edited
        for number, key in enumerate(KEYS):
            self.layer.bind_key(key, self._class_key(number), overwrite=True)
        self.layer.bind_key("Control-Z", lambda _: self.undo() and None, overwrite=True)
        self.layer.bind_key("Control-Shift-Z", lambda _: self.redo() and None, overwrite=True)
        self.layer.bind_key("Control-Y", lambda _: self.redo() and None, overwrite=True)

    def _class_key(self, number: int) -> Callable[[Shapes], None]:
        def pressed(_: Shapes) -> None:
            names = list(self._classes)
            if number < len(names):
                self.set_class(names[number])
                self.message.emit(f"Class: {names[number]}.")

        return pressed

    def close(self) -> None:
        """Let go of the layer; it stays in the viewer, as a plain one."""
        self._later.close()
        self._width.close()
        self.layer.events.data.disconnect(self._on_data)
        self.layer.events.features.disconnect(self._on_features)
        self.layer.selected_data.events.items_changed.disconnect(self._on_selection)
        for key in (*KEYS, "Control-Z", "Control-Shift-Z", "Control-Y"):
            self.layer.bind_key(key, None)

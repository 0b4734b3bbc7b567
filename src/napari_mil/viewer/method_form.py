"""The settings of the next training as a person is filling them in; they need not make sense at every moment."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from psygnal import Signal

from napari_mil.errors import MethodError

if TYPE_CHECKING:
    from napari_mil.mil import Method
    from napari_mil.mil.described import Part, Setting


class MethodForm:
    """A preset and what was changed in it.

    Attributes
    ----------
    preset : str
        Name of the preset; empty before one is chosen.
    method : Method or None
        The settings as a method; None while they make no sense.
    obstacle : str
        Why they make none.

    Signals
    -------
    changed()
        Another preset, or another value.
    """

    changed = Signal()

    def __init__(self) -> None:
        from napari_mil.mil.described import describe_method

        self.parts: dict[str, Part] = {part.name: part for part in describe_method()}
        self.preset = ""
        self.method: Method | None = None
        self.obstacle = ""
        self._base: dict[str, Any] = {}
        self._data: dict[str, Any] = {}

    def begin(self, preset: str, method: Method) -> None:
        """Take a preset; what was changed in another one is gone."""
        self.preset = preset
        self._base = method.model_dump()
        self._data = copy.deepcopy(self._base)
        self._check()

    def settings_of(self, part: str) -> tuple[Setting, ...]:
        """Settings of a part as it stands."""
        return self.parts[part].kind(self.kind(part)).settings

    def kind(self, part: str) -> str:
        """The kind that a part is of; empty where it has but one."""
        key = self.parts[part].key
        return str(self.value(key)) if key else ""

    def value(self, key: str) -> Any:
        """A setting's value."""
        part, _, name = key.partition(".")
        return self._data[part][name]

    def values(self) -> dict[str, Any]:
        """Every setting by its dotted key."""
        return _flat(self._data)

    def put(self, key: str, value: Any) -> None:
        """Change a setting; with another kind, what both kinds have and was set is kept."""
        from napari_mil.mil import Method

        if self.value(key) == value:
            return
        part = key.partition(".")[0]
        Method.put(self._data, key, value)
        for setting in self.settings_of(part):
            self._data[part].setdefault(setting.key.partition(".")[2], setting.default)
        self._check()

    def put_all(self, settings: dict[str, Any]) -> None:
        """Change several; those that the form's kinds lack are passed over."""
        kinds = {part.key for part in self.parts.values()}
        for key in sorted(settings, key=lambda key: key not in kinds):
            if key in self.values():
                self.put(key, settings[key])

    def is_changed(self, key: str) -> bool:
        """Whether a setting is another than the preset's."""
        return key in self.changes

    @property
    def changes(self) -> dict[str, Any]:
        """What is another than in the preset, by dotted key; settings of another kind are held against its defaults."""
        return {key: value for key, value in self.values().items() if value != self._unchanged(key)}

    def _unchanged(self, key: str) -> Any:
        part, _, name = key.partition(".")
        kind = self.parts[part].key
        if key == kind or not kind or self.kind(part) == self._base[part][kind.partition(".")[2]]:
            return self._base[part].get(name)
        return next((setting.default for setting in self.settings_of(part) if setting.key == key), None)

    def reset(self, key: str) -> None:
        """Put a setting back; with a kind, all settings of its part."""
        from napari_mil.mil import Method

        part, _, name = key.partition(".")
        if key == self.parts[part].key:
            Method.put(self._data, key, self._base[part][name])  # what goes with a kind goes back, too
            self._data[part] = copy.deepcopy(self._base[part])
        else:
            self._data[part][name] = copy.deepcopy(self._unchanged(key))
        self._check()

    def reset_all(self) -> None:
        """Back to the preset."""
        self._data = copy.deepcopy(self._base)
        self._check()

    def _check(self) -> None:
        from napari_mil.mil import Method

        try:
            self.method = Method.model_validate(self._data)
            self.obstacle = ""
        except MethodError as error:
            self.method = None
            self.obstacle = str(error)
        self.changed.emit()


def _flat(data: dict[str, Any]) -> dict[str, Any]:
    return {
        f"{part}.{name}": value
        for part, values in data.items()
        if isinstance(values, dict)
        for name, value in values.items()
    }

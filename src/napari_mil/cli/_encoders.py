"""Encoders on the command line: which there are, and the licences of those that people publish."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_mil.errors import MilError

from ._app import Json, app
from ._terminal import print_facts, say

if TYPE_CHECKING:
    from napari_mil.features import EncoderInfo

AcceptLicence = Annotated[bool, typer.Option("--accept-licence", help="Accept the licence of the encoder's weights.")]


@app.command()
def encoders(
    name: Annotated[str | None, typer.Argument(metavar="ENCODER", help="Only this one, and all about it.")] = None,
    accept_licence: AcceptLicence = False,
    as_json: Json = False,
) -> None:
    """The encoders there are: their patches, licence and size. Licences are accepted here, too."""
    from napari_mil.features import list_encoders

    if name is None:
        if accept_licence:
            raise MilError("--accept-licence: name the encoder whose licence you accept")
        infos = list_encoders()
        print_facts([_facts(i) for i in infos] if as_json else {i.name: i.note for i in infos}, as_json=as_json)
        return
    if accept_licence:
        agree_to_licence(name, accepted=True)
    print_facts(_facts(info_of(name)), as_json=as_json)


def _facts(info: EncoderInfo) -> dict[str, Any]:
    return {
        "encoder": info.name,
        "note": info.note,
        "numbers": info.dim,
        "target_mpp": info.target_mpp,
        "patch_px": info.patch_px,
        "licence": info.licence,
        "source": info.url or info.source,
        "needs_download": info.needs_download,
        "download_mb": info.download_mb,
        "licence_to_accept": bool(info.terms),
        "missing": info.missing or "nothing",
    }


def info_of(name: str) -> EncoderInfo:
    """What is known of an encoder by its name.

    Raises
    ------
    MilError
        If there is none of this name.
    """
    from napari_mil.features import list_encoders

    infos = {info.name: info for info in list_encoders()}
    if name not in infos:
        raise MilError(f"there is no encoder {name!r}; choose one of {', '.join(infos)}, or give a .pt2 file")
    return infos[name]


def own_tiling(name: str) -> dict[str, Any]:
    """The fields of a TileConfig that an encoder was made for; empty where it takes any."""
    if name.lower().endswith(".pt2"):
        return {}
    info = info_of(name)
    found = {"target_mpp": info.target_mpp, "patch_px": info.patch_px}
    return {} if info.target_mpp is None else found


def tell_of_scale(name: str, target_mpp: float, patch_px: int, change: str = "") -> None:
    """Say so when patches are cut otherwise than an encoder was made for."""
    note = "" if name.lower().endswith(".pt2") else info_of(name).scale_note(target_mpp, patch_px)
    if note:
        say(f"Note: {note} {change}".rstrip())


def agree_to_licence(name: str, *, accepted: bool) -> None:
    """Show the licence of weights that are to be downloaded, and have it accepted: by the option, or by a yes.

    Raises
    ------
    MilError
        If it is not accepted, or nobody is there to be asked.
    """
    if name.lower().endswith(".pt2") or not (terms := info_of(name).terms):
        return
    from napari_mil.features.licences import accept
    from napari_mil.features.published import PUBLISHED

    say(terms)
    if not accepted and not sys.stdin.isatty():
        raise MilError(f"the licence of {name} was not accepted, nothing is downloaded; add --accept-licence if you do")
    if not accepted and not typer.confirm("Do you accept this licence?", err=True):
        raise MilError(f"the licence of {name} was not accepted, nothing is downloaded; choose another encoder")
    accept(PUBLISHED[name])

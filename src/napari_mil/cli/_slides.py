"""Commands about slides, their tissue, features and outlines."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from napari_mil.errors import MilError

from ._app import Json, app
from ._encoders import AcceptLicence, agree_to_licence, own_tiling, tell_of_scale
from ._projects import checked_encoder, open_project
from ._terminal import finish, print_facts, run_job, say, say_error, warnings_as_lines

if TYPE_CHECKING:
    from napari_mil.slide import Slide, TissueMask
    from napari_mil.study.config import Precision

Slides = Annotated[list[Path], typer.Argument(help="Slide files, or folders of them.")]
lesions = typer.Typer(help="Outlines of lesions.", rich_markup_mode=None)
app.add_typer(lesions, name="lesions")


@app.command()
def info(slides: Slides, as_json: Json = False) -> None:
    """Size, scale, levels and maker of slides."""
    from napari_mil.slide import open_slide

    facts: list[dict[str, Any]] = []
    for path in slide_files(slides):
        try:
            with warnings_as_lines(), open_slide(path) as slide:
                facts.append(_describe(slide))
        except MilError as error:
            facts.append({"path": path, "error": str(error)})
    failed = [str(row["error"]) for row in facts if "error" in row]
    shown = facts if as_json else [row for row in facts if "error" not in row]
    if shown:
        print_facts(shown if len(facts) > 1 else shown[0], as_json=as_json)
    for sentence in failed:
        say_error(sentence)
    if failed:
        raise typer.Exit(2)


def _describe(slide: Slide) -> dict[str, Any]:
    from napari_mil.slide.icc import profile_title

    slide.thumbnail(512)  # what the pixels tell stands among the problems
    return {
        "path": slide.path,
        "vendor": slide.vendor,
        "dimensions": slide.dimensions,
        "mpp": slide.mpp,
        "mpp_source": slide.mpp_source,
        "objective_power": slide.objective_power,
        "color_profile": profile_title(slide.path),
        "level_dimensions": [f"{width} × {height}" for width, height in slide.level_dimensions],
        "level_downsamples": list(slide.level_downsamples),
        "associated": list(slide.associated),
        "fingerprint": slide.fingerprint,
        "megabytes": slide.path.stat().st_size / 1e6 if slide.path.is_file() else None,
        "problems": list(slide.problems),
    }


@app.command()
def tissue(
    slide_file: Annotated[Path, typer.Argument(metavar="SLIDE", help="A slide file.")],
    out: Annotated[Path | None, typer.Option(help="Write a PNG: the slide with all that is no tissue dimmed.")] = None,
    method: Annotated[str, typer.Option(help="multi_otsu, otsu or manual.")] = "multi_otsu",
    threshold: Annotated[float | None, typer.Option(help="Grey 0-255 for the manual method.")] = None,
    mpp: Annotated[float | None, typer.Option(help="µm per pixel of a slide that does not say it.")] = None,
    srgb: Annotated[bool, typer.Option("--srgb", help="Convert colours by the file's ICC profile to sRGB.")] = False,
    as_json: Json = False,
) -> None:
    """Find tissue, and count the patches on it."""
    from pydantic import ValidationError

    from napari_mil.slide import TissueConfig, open_slide, tile, tissue_mask

    try:
        config = TissueConfig(method=method, threshold=threshold)
    except ValidationError as error:
        found = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise MilError(f"--method {method}: {found}") from error
    with warnings_as_lines(), open_slide(slide_file, mpp=mpp, srgb=srgb) as slide:
        mask = tissue_mask(slide, config)
        share = float(mask.array.mean())
        width, height = slide.dimensions
        facts: dict[str, Any] = {"path": slide.path, "tissue_share": share, "downsample": mask.downsample}
        if slide.mpp is not None:
            facts["tissue_mm2"] = share * width * height * slide.mpp[0] * slide.mpp[1] / 1e6
            facts["patches"] = len(tile(slide, tissue=mask))
        else:
            say("Note: µm per pixel are unknown, so patches cannot be counted; give --mpp.")
        if out is not None:
            _write_picture(out, slide, mask)
            facts["picture"] = out
        problems = list(slide.problems)
    for problem in problems:
        say(f"Note: {problem}")
    print_facts({**facts, "problems": problems} if as_json else facts, as_json=as_json)


def _write_picture(out: Path, slide: Slide, mask: TissueMask) -> None:
    import numpy as np
    from matplotlib.image import imsave

    from napari_mil.whole import written_whole

    picture = slide.thumbnail(2048).astype(np.float32)
    rows = np.linspace(0, mask.array.shape[0] - 1, picture.shape[0]).round().astype(int)
    columns = np.linspace(0, mask.array.shape[1] - 1, picture.shape[1]).round().astype(int)
    picture[~mask.array[np.ix_(rows, columns)]] *= 0.35
    with written_whole(out) as part:
        imsave(part, picture.astype(np.uint8), format="png")


@app.command()
def extract(
    what: Annotated[list[Path], typer.Argument(metavar="PROJECT|SLIDE…", help="A project folder, or slide files.")],
    encoder: Annotated[
        str | None, typer.Option(help="texture, resnet50, uni, … (see: napari-mil encoders), or a .pt2 file.")
    ] = None,
    weights: Annotated[Path | None, typer.Option(help="A local file of the encoder's weights.")] = None,
    accept_licence: AcceptLicence = False,
    precision: Annotated[
        str | None, typer.Option(help="auto (half where the machine gains by it), fp32, bf16, or int8 (OpenVINO).")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the feature files (for slide files).")] = None,
    target_mpp: Annotated[float | None, typer.Option(help="µm per pixel of the patches (for slide files).")] = None,
    patch_px: Annotated[int | None, typer.Option(help="Side of a patch in pixels (for slide files).")] = None,
    mpp: Annotated[float | None, typer.Option(help="µm per pixel of slides that do not say it.")] = None,
    srgb: Annotated[
        bool | None,
        typer.Option(
            "--srgb/--as-stored",
            help="Colours: converted by each file's ICC profile to sRGB, or as stored. A project remembers it.",
            show_default=False,
        ),
    ] = None,
    slide_id: Annotated[list[str] | None, typer.Option("--slide", help="Only this slide of the project.")] = None,
    retry_failed: Annotated[bool, typer.Option(help="Try again slides that failed before.")] = False,
    device: Annotated[
        str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps; cuda:0,cuda:1 or cuda:all for a project's slides.")
    ] = "auto",
    as_json: Json = False,
) -> None:
    """Compute features: tissue, patches, encoder. What is done already is kept."""
    from napari_mil.features.precision import PRECISIONS
    from napari_mil.jobs import ExtractJob

    if precision is not None and precision not in PRECISIONS:
        raise MilError(f"--precision {precision}: expected {', '.join(PRECISIONS)}")
    if len(what) == 1 and (what[0] / "project.json").is_file():
        of_files = {"--out": out, "--target-mpp": target_mpp, "--patch-px": patch_px}
        given = [name for name, value in of_files.items() if value is not None]
        if given:
            raise MilError(f"{' and '.join(given)}: for slide files only; a project keeps its own in project.json")
        if encoder is not None or weights is not None:
            _choose_encoder(what[0], encoder, weights, accept_licence)
        if precision is not None:
            _choose_precision(what[0], precision)
        if srgb is not None:
            _choose_color(what[0], srgb)
        if mpp is not None:
            _tell_mpp(what[0], mpp)
            retry_failed = True  # they may have failed for want of it
        _ready_encoder(what[0], accept_licence)
        spec = ExtractJob(project=str(what[0]), slide_ids=slide_id, device=device, retry_failed=retry_failed)
    else:
        encoder = checked_encoder(encoder or "texture")
        if precision is not None:
            _refuse_precision_of(encoder)
        spec = ExtractJob(
            slides=[str(path) for path in slide_files(what)],
            out=str(out or Path("features")),
            tile=_tiling(encoder, target_mpp, patch_px),
            slide_mpp=mpp,
            srgb=bool(srgb),
            precision=precision or "auto",
            encoder=encoder,
            weights=None if weights is None else str(weights),
            device=device,
        )
        if weights is None:
            agree_to_licence(encoder, accepted=accept_licence)
    result = run_job(spec)
    if result.get("passed_over"):
        say("Note: slides that failed before and whose files are the same are tried again with --retry-failed.")
    finish(result, as_json=as_json)


def _tiling(encoder: str, target_mpp: float | None, patch_px: int | None) -> dict[str, Any]:
    """The fields of a TileConfig: those that were given, else what the encoder was made for."""
    from pydantic import ValidationError

    from napari_mil.slide import TileConfig

    given = {"target_mpp": target_mpp, "patch_px": patch_px}
    tiling = own_tiling(encoder) | {name: value for name, value in given.items() if value is not None}
    try:
        tile = TileConfig.model_validate(tiling)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        found = first["msg"].removeprefix("Value error, ")
        raise MilError(f"--{name.replace('_', '-')} {tiling[name]}: {found}") from error
    tell_of_scale(encoder, tile.target_mpp, tile.patch_px)
    return tiling


def _choose_encoder(folder: Path, encoder: str | None, weights: Path | None, accept_licence: bool) -> None:
    """Make it the project's own, once its licence is accepted: features of two encoders are never mixed."""
    project = open_project(folder)
    if encoder is not None:
        project.config.encoder = checked_encoder(encoder)
    if weights is None:
        agree_to_licence(project.config.encoder, accepted=accept_licence)
    project.config.encoder_weights = None if weights is None else str(weights.absolute())
    project.save()
    say(f"Note: the project uses the encoder {project.config.encoder} from now on.")


def _ready_encoder(folder: Path, accept_licence: bool) -> None:
    """Have the licence of the project's encoder accepted, and tell of patches that it was not made for."""
    project = open_project(folder)
    name, tile = project.config.encoder, project.config.tile
    tell_of_scale(name, tile.target_mpp, tile.patch_px, change="Change it on the page Features or in project.json.")
    if project.encoder_weights is None:
        agree_to_licence(name, accepted=accept_licence)


def _choose_precision(folder: Path, precision: str) -> None:
    """Make it the project's own: features of two precisions are never mixed."""
    project = open_project(folder)
    _refuse_precision_of(project.config.encoder)
    project.config.precision = cast("Precision", precision)  # checked by `extract`
    project.save()
    say(f"Note: the project's encoder computes in the precision {precision} from now on.")


def _refuse_precision_of(encoder: str) -> None:
    if encoder == "texture":
        raise MilError("--precision: the encoder texture is no network and has none; leave the option out")


def _choose_color(folder: Path, srgb: bool) -> None:
    """Make it the project's own: features of two colour treatments are never mixed."""
    project = open_project(folder)
    project.config.color = "srgb" if srgb else "as stored"
    project.save()
    how = "in sRGB, by each file's ICC profile" if srgb else "as they are stored"
    say(f"Note: the project takes the slides' colours {how} from now on.")


def _tell_mpp(folder: Path, mpp: float) -> None:
    """Record a person's scale for the slides whose files do not say theirs."""
    project = open_project(folder)
    one_of_each = {project.slide_path(slide_id).parent: slide_id for slide_id in project.slide_ids}
    for slide_id in one_of_each.values():
        project.set_mpp(slide_id, mpp, folder=True)
    say(f"Note: in this project a slide that does not say its scale has {mpp:g} µm per pixel from now on.")


@app.command("import-features")
def import_features(
    files: Annotated[list[Path], typer.Argument(metavar="FILE|FOLDER…", help="Feature files of CLAM or TRIDENT.")],
    out: Annotated[Path | None, typer.Option(help="Folder of the written files.")] = None,
    project: Annotated[Path | None, typer.Option(help="Import into this project, matched by slide name.")] = None,
    source: Annotated[str, typer.Option(help="auto, clam or trident.")] = "auto",
    slides: Annotated[Path | None, typer.Option(help="Folder of the slides, to check the geometry against.")] = None,
    patches: Annotated[Path | None, typer.Option(help="CLAM's folder of patch files.")] = None,
    mpp: Annotated[
        float | None, typer.Option(help="µm per pixel of the slides' level 0, where no file says it.")
    ] = None,
    encoder: Annotated[str | None, typer.Option(help="The encoder's name, where no file says it.")] = None,
    as_json: Json = False,
) -> None:
    """Take over features that CLAM or TRIDENT made, with their geometry checked."""
    from ._importing import import_all

    if source not in ("auto", "clam", "trident"):
        raise MilError(f"--source {source}: expected auto, clam or trident")
    if (out is None) == (project is None):
        raise MilError("give either --out FOLDER or --project FOLDER: where the features shall go")
    options: dict[str, Any] = {"source": source, "patches": patches, "mpp": mpp, "encoder": encoder}
    written, refused = import_all(files, out, project, slides, options)
    for name, reason in refused.items():
        say(f"{name}: {reason}")
    facts = {"imported": len(written), "refused": len(refused), "files": [str(path) for path in written]}
    print_facts({**facts, "reasons": refused} if as_json else facts, as_json=as_json)
    if refused:
        raise typer.Exit(2)


@lesions.command()
def convert(
    source: Annotated[Path, typer.Argument(metavar="SRC", help="An annotation file.")],
    target: Annotated[Path, typer.Argument(metavar="DST", help="The file to write; its suffix says the format.")],
    to: Annotated[
        str | None, typer.Option("--to", help="geojson, asap, aperio or dsa, where the suffix is not enough.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Convert outlines between GeoJSON (QuPath), ASAP, Aperio and DSA files."""
    from napari_mil.lesion.files import convert as convert_file

    summary = convert_file(source, target, to)
    facts = summary.to_dict()
    problems = facts.pop("problems")
    for problem in problems:
        say(f"Note: {problem}")
    print_facts({**facts, "problems": problems} if as_json else facts, as_json=as_json)


def slide_files(paths: list[Path]) -> list[Path]:
    """The slide files that `paths` name, folders looked through.

    Raises
    ------
    MilError
        If there are none.
    """
    from napari_mil.slide import find_slides

    found: list[Path] = []
    for path in paths:
        found += find_slides(path) if path.is_dir() else [path]
    if not found:
        raise MilError(f"{', '.join(map(str, paths))}: no slides found; expected slide files or a folder of them")
    return found

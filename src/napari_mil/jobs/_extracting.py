"""In the child: features of a project's slides, and of slide files without a project."""

from __future__ import annotations

import warnings
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_mil.errors import JobError, MilError

from ._context import JobContext
from ._devices import devices_of, extract_on
from ._specs import ExtractJob

if TYPE_CHECKING:
    from napari_mil.features import Encoder, ExtractReport
    from napari_mil.study import Project
    from napari_mil.study.prepare import PrepareSummary


def of_project(spec: ExtractJob, context: JobContext) -> Generator[ExtractReport, None, dict[str, Any]]:
    """All slides of a project, or those named; a bad one is recorded and the others go on."""
    from napari_mil.study import Project
    from napari_mil.study.prepare import PrepareSummary, failed_unchanged, prepare_all, resolve_device

    assert spec.project is not None
    project = Project.open(spec.project)
    devices = [resolve_device(name, project.config.encoder) for name in devices_of(spec.device)]
    context.note(device=", ".join(devices))
    wanted = project.slide_ids if spec.slide_ids is None else spec.slide_ids
    todo = [slide_id for slide_id in wanted if not project.has_features(slide_id)]
    if len(devices) > 1 and len(todo) > 1:
        named = spec.slide_ids is not None or spec.retry_failed
        passed_over = [] if named else [slide_id for slide_id in todo if slide_id in failed_unchanged(project)]
        untried = [slide_id for slide_id in todo if slide_id not in passed_over]
        outcome = yield from extract_on(devices, project, untried, spec, context)
        there = [slide_id for slide_id in wanted if slide_id not in todo]
        return _told(PrepareSummary(**(outcome | {"there": there, "passed_over": passed_over})), project)
    device = devices[0]
    reports = prepare_all(project, spec.slide_ids, device=device, retry_failed=spec.retry_failed)
    slide_id, index = "", -1
    while True:
        try:
            report = next(reports)
        except StopIteration as stop:
            summary = stop.value
            break
        if report.slide_id != slide_id:
            slide_id, index = report.slide_id, index + 1
            context.part(min(index, len(todo) - 1), len(todo), slide_id)
        try:
            yield report
        except GeneratorExit:
            reports.close()
            raise
    return _told(summary, project)


def _told(summary: PrepareSummary, project: Project) -> dict[str, Any]:
    return {
        "message": summary.sentence,
        "done": summary.done,
        "there": summary.there,
        "passed_over": summary.passed_over,
        "busy": summary.busy,
        "failed": summary.failed,
        "folder": project.feature_folder,
    }


def of_files(spec: ExtractJob, context: JobContext) -> Generator[ExtractReport, None, dict[str, Any]]:
    """Slide files, one feature file each; a bad one is told of and the others go on."""
    from napari_mil.features import get_encoder, in_precision, kept_precision
    from napari_mil.study.prepare import is_busy, resolve_device
    from napari_mil.study.words import counted

    assert spec.encoder is not None
    assert spec.out is not None
    stems = [Path(name).stem for name in spec.slides]
    twice = sorted({stem for stem in stems if stems.count(stem) > 1})
    if twice:
        raise JobError(f"{', '.join(twice)}: two slides of this name would write one file; extract them one by one")
    if len(devices_of(spec.device)) > 1:
        raise JobError(f"device {spec.device}: several devices are for the slides of a project; choose one")
    device = resolve_device(spec.device, spec.encoder)
    context.note(device=device)
    encoder = get_encoder(spec.encoder, weights=spec.weights, device=device)
    # a folder's features are all in one precision, as a project's are
    kept = kept_precision(Path(spec.out)) if spec.precision == "auto" else None
    encoder = in_precision(encoder, kept or spec.precision)
    done: list[Path] = []
    failed: dict[str, str] = {}
    busy: list[str] = []
    for index, name in enumerate(spec.slides):
        path = Path(name)
        context.part(index, len(spec.slides), path.name)
        try:
            done.append((yield from _of_file(spec, path, encoder)))
        except (MilError, OSError) as error:
            if is_busy(error):
                busy.append(path.stem)
            else:
                failed[str(path)] = str(error)
    if failed and not done and not busy:
        raise JobError(next(iter(failed.values())))
    sentence = counted(len(done), "slide") + " done"
    if busy:
        sentence += f", {len(busy)} passed over (another process works on {'it' if len(busy) == 1 else 'them'})"
    sentence += f", {len(failed)} failed." if failed else "."
    return {"message": sentence, "done": done, "failed": failed, "busy": busy, "folder": spec.out}


def _of_file(spec: ExtractJob, path: Path, encoder: Encoder) -> Generator[ExtractReport, None, Path]:
    from napari_mil.features import ExtractReport, extract
    from napari_mil.slide import TileConfig, open_slide, tile, tissue_mask

    assert spec.out is not None
    config = TileConfig(**spec.tile)
    with open_slide(path, srgb=spec.srgb) as slide:
        if slide.mpp is None and spec.slide_mpp is not None:
            slide.set_mpp(spec.slide_mpp)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            mask = tissue_mask(slide)
            grid = tile(slide, config, mask)
        for sentence in dict.fromkeys([*(str(warning.message) for warning in caught), *slide.problems]):
            yield ExtractReport(path.stem, 0, len(grid), 0.0, None, sentence)
        tissue = {"tissue": mask.to_dict(), "tile": config.model_dump(mode="json")}
        out = Path(spec.out) / f"{path.stem}.h5"
        px, um = config.patch_px, config.target_mpp
        return (yield from extract(slide, grid, encoder, out, patch_px=px, target_mpp=um, tissue=tissue))

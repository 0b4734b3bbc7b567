"""The application that the commands belong to."""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer(
    name="napari-mil",
    help="Multiple-instance learning on whole-slide images. Without a command it opens the window. Research use only.",
    no_args_is_help=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Json = Annotated[bool, typer.Option("--json", help="Print facts as JSON.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")]

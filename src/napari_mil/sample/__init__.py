"""The sample cohort: small synthetic slides that look like stained tissue, with known tumour.

Nothing in them comes from a person; they are for trying the program out, not for judging a method.
"""

from __future__ import annotations

from .cohort import SAMPLE_VERSION, create_sample, sample_folder

__all__ = ["SAMPLE_VERSION", "create_sample", "sample_folder"]

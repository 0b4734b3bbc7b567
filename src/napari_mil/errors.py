"""Every error a person can meet, each a sentence: what was found, what was expected, what to do."""


class MilError(Exception):
    """Base of all errors that are shown to a person as they stand, without a stack trace."""


class SlideError(MilError):
    """A slide cannot be opened or read."""


class SlideClosed(SlideError):
    """A slide was closed and is still asked for pixels."""


class LesionError(MilError):
    """An annotation file or an outline cannot be used."""


class FeatureError(MilError):
    """Features, their file or their encoder cannot be used."""


class MethodError(MilError):
    """A method, its options or their combination makes no sense."""


class TrainingError(MilError):
    """Training or prediction cannot go on with these data."""


class ProjectError(MilError):
    """A project folder or its slide table cannot be used."""


class JobError(MilError):
    """A background job failed, or its process died."""


class Cancelled(Exception):
    """Raised inside a long job when its person asked it to stop."""

"""What can be wrong before or around a run; `str(error)` is meant for the person at the terminal."""


class LoadTestError(Exception):
    """The run could not be made or read."""


class UsageError(LoadTestError):
    """The command, a scenario file or a setting is wrong: what, where, and what would be right."""


class RecordingError(LoadTestError):
    """A sample file is not one, or is damaged before its end."""

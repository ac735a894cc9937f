"""Every error a user can meet, with its exit code and its remedy.

VidgruError                   exit code 2 unless said otherwise
├── SourceError               nothing to work on: no such file, a folder without videos
├── SettingsError             a flag or YAML value that cannot be
├── WeightsError              detector weights missing or not readable
├── MissingDependencyError              an optional package that is needed and not installed
├── AnnotationError           an annotation file that cannot be used (names file and line)
├── CacheError                a cache entry that is not sound, or not the one asked for
│   ├── SettingsMismatchError      features made with other settings than the model's
│   └── LockLostError            another process took over the entry that was being written
├── ModelError                a model file that is not one, or of another version
├── OutputError               the output cannot be written: read-only, full, not a folder
└── RecordingError            one recording cannot be read; the run goes on without it (exit code 1)
    └── RecordingChangedError      the file changed while it was read
"""

from __future__ import annotations


class VidgruError(Exception):
    """What went wrong and where (`message`), and what to do about it (`remedy`, may be empty)."""

    exit_code = 2

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message}\n  {self.remedy}" if self.remedy else self.message


class SourceError(VidgruError):
    """Nothing to work on: no such file, a folder without videos."""


class SettingsError(VidgruError):
    """A flag or a YAML value that cannot be."""


class WeightsError(VidgruError):
    """Detector weights that are missing or cannot be read."""


class MissingDependencyError(VidgruError):
    """An optional package that is needed is not installed; the remedy is the line that installs it."""


class AnnotationError(VidgruError):
    """An annotation file that cannot be used."""


class CacheError(VidgruError):
    """A cache entry that is not sound, or not the one asked for."""


class SettingsMismatchError(CacheError):
    """Features made with other settings than the model's."""


class LockLostError(CacheError):
    """Another process took over the entry that was being written; what this one did of it is not lost, but theirs."""


class ModelError(VidgruError):
    """A model file that is not one, or of another version."""


class OutputError(VidgruError):
    """The output cannot be written."""


class RecordingError(VidgruError):
    """One recording cannot be read. It ends as `failed` with this message, and the run goes on."""

    exit_code = 1


class RecordingChangedError(RecordingError):
    """The file changed while it was read."""

"""Every error a user can meet, with its exit code and remedy.

VidgruError                        exit code 2 unless noted otherwise
├── SourceError                    nothing to process: no such file, a folder without videos
├── SettingsError                  an invalid flag or YAML value
├── WeightsError                   detector weights are missing or unreadable
├── MissingDependencyError         a required optional package is not installed
├── AnnotationError                an unusable annotation file (names file and line)
├── CacheError                     a cache entry that is missing, corrupt or not the requested one
│   ├── PartChangedError           the bytes of an entry are not those that were written
│   ├── SettingsMismatchError      features were extracted with settings other than the model's
│   └── LockLostError              another process took over the entry being written
├── ModelError                     not a model file, or one of another version
├── OutputError                    output cannot be written: read-only, full, not a folder
└── RecordingError                 one recording cannot be read; the run continues without it (exit code 1)
    └── RecordingChangedError      the file changed while it was read
"""

from __future__ import annotations

import re

# Passwords may contain any character but white space, so everything up to the last `@` is hidden. `Path` joins slashes.
_CREDENTIALS = re.compile(r"(\w{2,}:/+)\S*@")


class VidgruError(Exception):
    """Base of all errors: `message` says what is wrong and where, `remedy` (possibly empty) what to do about it.

    Users and passwords in URLs are hidden in both.
    """

    exit_code = 2

    def __init__(self, message: str, remedy: str = "") -> None:
        self.message = _CREDENTIALS.sub(r"\1***@", message)
        self.remedy = _CREDENTIALS.sub(r"\1***@", remedy)
        super().__init__(self.message)

    def __str__(self) -> str:
        return f"{self.message}\n  {self.remedy}" if self.remedy else self.message


class SourceError(VidgruError):
    """Nothing to process: no such file, a folder without videos."""


class SettingsError(VidgruError):
    """An invalid flag or YAML value."""


class WeightsError(VidgruError):
    """Detector weights are missing or unreadable."""


class MissingDependencyError(VidgruError):
    """A required optional package is not installed; the remedy is the command that installs it."""


class AnnotationError(VidgruError):
    """An unusable annotation file."""


class CacheError(VidgruError):
    """A cache entry is missing, corrupt or not the requested one."""


class PartChangedError(CacheError):
    """The bytes of an entry are not those that were written."""


class SettingsMismatchError(CacheError):
    """Features were extracted with settings other than the model's."""


class LockLostError(CacheError):
    """Another process took over the entry being written. It continues from what was written, so nothing is lost."""


class ModelError(VidgruError):
    """Not a model file, or one of another version."""


class OutputError(VidgruError):
    """Output cannot be written."""


class RecordingError(VidgruError):
    """One recording cannot be read. It ends as `failed` with this message, and the run continues."""

    exit_code = 1


class RecordingChangedError(RecordingError):
    """The file changed while it was read."""

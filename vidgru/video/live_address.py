"""Live sources as they stand on a command line: streams by their URL, local cameras by their number."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_HARMLESS = 2  # characters of a query's value that cannot be a secret: a channel's number
_HIDDEN = "***"


def is_live(source: str) -> bool:
    """Whether a source is a stream or a camera, and no recording. A file that is there goes before a camera."""
    return bool(_URL.match(source)) or (source.isascii() and source.isdecimal() and not Path(source).exists())


@dataclass(frozen=True)
class Address:
    """Where a live source is.

    Attributes:
        source: as the user gave it. It may hold a password, so it is never to be printed or stored.
    """

    source: str = field(repr=False)

    @property
    def scheme(self) -> str:
        """Of the URL, in lower case; empty for a camera."""
        scheme, separator, _ = self.source.partition("://")
        return scheme.lower() if separator else ""

    @property
    def device(self) -> int | None:
        """The camera's number; None for a URL."""
        return None if self.scheme else int(self.source)

    @property
    def name(self) -> str:
        """What the source is called: without user and password, and without values of its query that might be one.

        Rather too little is told than too much: everything up to the last `@` is left out, for a password may hold
        any character, unescaped too.
        """
        if not self.scheme:
            return f"camera {self.source}"
        rest = self.source.partition("://")[2].rpartition("@")[2].partition("#")[0]
        place, question, query = rest.partition("?")
        return f"{self.scheme}://{place}{question}{'&'.join(map(_shown, query.split('&')))}"


def _shown(parameter: str) -> str:
    """A parameter of a query as it may be shown: `channel=1`, `token=***`."""
    name, equals, value = parameter.partition("=") if "=" in parameter else ("", "", parameter)
    return f"{name}{equals}{value if len(value) <= _HARMLESS else _HIDDEN}"

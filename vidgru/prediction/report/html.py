"""Render data and web sources to one HTML file that needs nothing else: no server, no network, no other file."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from vidgru.types import Array, Event

WEB = Path(__file__).parent / "web"


def render_html(
    template: str, title: str, scripts: tuple[str, ...], data: Mapping[str, Any], *, folder: Path = WEB
) -> bytes:
    """Render a page.

    Its content security policy allows only the recording, pictures inside the page, and the page's own script, which is
    identified by its hash: nothing in a label or file name can become code.

    Args:
        template: Name of the HTML template.
        title: Title of the page.
        scripts: Names of the JavaScript files, in order; they share one scope.
        data: Available as `data` in that scope; arrays encoded by `encode_array`.
        folder: Where the page's own template and scripts are; others, and the style, are the report's.
    """
    loader = FileSystemLoader([folder, WEB])
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined)
    sources = [loader.get_source(environment, name)[0] for name in scripts]
    script = "\n(() => {\n'use strict';\n" + "\n".join(sources) + "})();\n"
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    # ASCII without "<": nothing ends the element early, and names that are not UTF-8 survive.
    text = json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    page = environment.get_template(template).render(
        title=title,
        style=Markup((WEB / "style.css").read_text(encoding="utf-8")),
        script=Markup(script),
        script_sha256=digest,
        data=Markup(text),
    )
    return page.encode(errors="replace")


def encode_array(array: Array) -> str:
    """Encode an array's bytes, little-endian, as base64. The script knows its shape and type."""
    little_endian = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    return base64.b64encode(little_endian.tobytes()).decode()


def encoded_size(array: Array) -> int:
    """Number of bytes that `encode_array` returns."""
    return -(-array.nbytes // 3) * 4


def text_size(text: str) -> int:
    """Number of bytes of a string in the rendered data."""
    return len(json.dumps(text)) + 5 * text.count("<")


def caption_cells(event: Event) -> list[Any]:
    """Encode an event's caption: text, score, whether it is from the template. Empty without a caption."""
    if event.description is None:
        return []
    score = event.description_score
    return [event.description, None if score is None else round(score, 4), event.description_source == "template"]


def link(target: Path, page: Path) -> str:
    """URL by which a page refers to a file: relative, or absolute for a file on another Windows drive.

    Names that are not UTF-8, and characters with a meaning in URLs, are percent-encoded.
    """
    try:
        return quote(os.fsencode(os.path.relpath(target, page.parent)).replace(os.fsencode(os.sep), b"/"))
    except ValueError:
        return Path(os.path.abspath(target)).as_uri()


def clock(recorded_at: str | None) -> dict[str, Any] | None:
    """Encode a wall-clock time in its own time zone: its digits in milliseconds as if they were UTC, and the zone.

    Args:
        recorded_at: ISO 8601; None if unknown.
    """
    if recorded_at is None:
        return None
    time = datetime.fromisoformat(recorded_at)
    return {"ms": round(time.replace(tzinfo=UTC).timestamp() * 1000), "zone": time.strftime("%z")}

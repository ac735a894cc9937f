"""Data and templates to one HTML file that needs nothing else: no server, no network, no file beside it."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from vidgru.types import Array, Event

_TEMPLATES = Path(__file__).parent / "templates"


def render(template: str, title: str, scripts: tuple[str, ...], data: Mapping[str, Any]) -> bytes:
    """The page's bytes.

    Its policy lets nothing be loaded but the recording and pictures inside the page, and no script be run but the
    page's own, which is known by its hash: what a label or a file's name holds cannot become code.

    Args:
        template: name of the HTML template.
        title: of the page.
        scripts: names of the JavaScript files, in order; they share one scope.
        data: what they read, as `data` in that scope; arrays as `packed` gives them.
    """
    environment = Environment(loader=FileSystemLoader(_TEMPLATES), autoescape=True, undefined=StrictUndefined)
    texts = [(_TEMPLATES / "js" / name).read_text(encoding="utf-8") for name in scripts]
    script = "\n(() => {\n'use strict';\n" + "\n".join(texts) + "})();\n"
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    # ASCII, and no "<": nothing in it ends the element, and names that are not UTF-8 come through as they are.
    text = json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    page = environment.get_template(template).render(
        title=title,
        style=Markup((_TEMPLATES / "style.css").read_text(encoding="utf-8")),
        script=Markup(script),
        script_sha256=digest,
        data=Markup(text),
    )
    return page.encode(errors="replace")


def packed(array: Array) -> str:
    """An array's bytes, little-endian, in base64; its shape and type are for the reader to know."""
    little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    return base64.b64encode(little.tobytes()).decode()


def packed_bytes(array: Array) -> int:
    """How long `packed` makes it."""
    return -(-array.nbytes // 3) * 4


def text_bytes(text: str) -> int:
    """How long `render` makes a text in `data`."""
    return len(json.dumps(text)) + 5 * text.count("<")


def description_cells(event: Event) -> list[Any]:
    """What `data` holds of a description: text, how sure the model is of its sentence, whether it is put together.

    Nothing where there is none.
    """
    if event.description is None:
        return []
    sure = event.description_score
    return [event.description, None if sure is None else round(sure, 4), event.description_source == "template"]


def link(target: Path, page: Path) -> str:
    """How a page refers to a file: relative to the page, or in full where the file is on another Windows drive.

    Names that are not UTF-8, and characters that mean something in a URL, are percent-encoded.
    """
    try:
        return quote(os.fsencode(os.path.relpath(target, page.parent)).replace(os.fsencode(os.sep), b"/"))
    except ValueError:
        return Path(os.path.abspath(target)).as_uri()

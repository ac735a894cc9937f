"""The labelling page: one HTML file with its style and script, which shares the report's player and timeline."""

from __future__ import annotations

from pathlib import Path

from vidgru.prediction.report.html import render_html

_WEB = Path(__file__).parent / "web"
_SCRIPTS = (
    "common.js",
    "player.js",
    "timeline.js",
    "annotations.js",
    "recording.js",
    "panels.js",
    "player_page.js",
    "label.js",
)


def label_page(token: str) -> str:
    """Render the page. Everything else it shows comes from the server.

    Args:
        token: Sent with each request, so that the server knows that it comes from this page.
    """
    return render_html("label.html", "Label recordings", _SCRIPTS, {"token": token}, folder=_WEB).decode()

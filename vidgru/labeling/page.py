"""The HTML page of the labelling server."""

from __future__ import annotations


def label_page(token: str) -> str:
    """Return the page, which sends `token` with each of its requests."""
    return "<!doctype html><title>vidgru label</title><p>The page is not installed; the HTTP API works."

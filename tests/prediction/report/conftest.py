"""Report pages opened in a real browser."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.prediction.report.browsing import NOTE_FRAMES


@pytest.fixture
def visit(chromium: Any) -> Iterator[Callable[..., Any]]:
    """Opens a file as a page, at its beginning; in the end, its console must hold only what a test expects."""
    complaints: list[str] = []
    contexts = []

    def open_page(path: Path, *, address: str = "#t=0", expect: str | None = None, **options: Any) -> Any:
        context = chromium.new_context(**{"viewport": {"width": 1280, "height": 720}, **options})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.add_init_script(NOTE_FRAMES)

        def complain(text: str) -> None:
            # how often a test reads a canvas is no fault of the page's
            if "willReadFrequently" not in text and (expect is None or expect not in text):
                complaints.append(text)

        page.on("console", lambda message: complain(message.text))
        page.on("pageerror", lambda error: complain(str(error)))
        page.goto(path.as_uri() + address)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []

"""Report pages opened in a real browser."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.prediction.report.browsing import browser_pages


@pytest.fixture
def visit(chromium: Any) -> Iterator[Callable[..., Any]]:
    """Opens a file as a page, at its beginning."""
    # how often a test reads a canvas is no fault of the page's
    with browser_pages(chromium, ignore="willReadFrequently") as open_page:
        yield lambda path, *, address="#t=0", **options: open_page(path.as_uri() + address, **options)

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.prediction.fake_project import FakeProject


@pytest.fixture
def project(tmp_path: Path) -> FakeProject:
    return FakeProject(tmp_path)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """A real browser; one per process, because Playwright runs one event loop."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install vidgru[dev]")
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("chromium is not installed: apt-get install chromium")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program)
        yield browser
        browser.close()

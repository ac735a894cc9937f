from pathlib import Path

import pytest

from tests.prediction.fake_project import FakeProject


@pytest.fixture
def project(tmp_path: Path) -> FakeProject:
    return FakeProject(tmp_path)

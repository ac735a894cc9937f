from pathlib import Path

import pytest

from vidgru.cache import SequenceCache


@pytest.fixture
def cache(tmp_path: Path) -> SequenceCache:
    return SequenceCache(tmp_path / "features")

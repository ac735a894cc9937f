from tests.extraction.conftest import tiny_weights

__all__ = ["tiny_weights"]

"""Pages that a person looks at events in: one self-contained file a recording, and one over all recordings."""

from vidgru.prediction.report.index import IndexRow, write_index
from vidgru.prediction.report.page import write_page

__all__ = ["IndexRow", "write_index", "write_page"]

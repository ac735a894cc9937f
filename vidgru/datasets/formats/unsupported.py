"""Files of other tools that hold no events, or hold them in a form that is not read: errors say which file it is."""

from __future__ import annotations

import re

from vidgru.datasets.formats.csv_reader import delimiter_of

_NUMBER = r"-?\d+(?:\.\d+)?"
_BOXES = "import boxes and poses with --detections (docs/detections.md); annotations need a label and times of events"
_SHEET = (
    'save the sheet as "CSV UTF-8", with the columns video,start,end,label; format times as text, or they become '
    "shares of a day"
)
_HDF5 = (
    "export poses of DeepLabCut (save_as_csv=True) or SLEAP (File > Export Analysis CSV) as CSV and pass them with "
    "--detections; export annotations as CSV"
)
_BY_TEXT = (
    (r"scorer(?:,[^,\n]*)+\n(?:individuals|bodyparts),", "a DeepLabCut pose file", _BOXES),
    (rf"\d+(?: {_NUMBER}){{4,6}}\s", "a YOLO label file (boxes of one picture)", _BOXES),
    (rf"\d+,\s?-?\d+(?:,\s?{_NUMBER}){{5,}}\s", "a MOT track file", _BOXES),
    (r"(?![\[{])(?=[^\n]*\bannotation_id\b)(?=[^\n]*\blead_time\b)", "a Label Studio CSV", "export it as JSON"),
    (r"\s*epoch,", "a training log", "pass the annotation file"),
    (r"\[Script Info\]", "ASS subtitles", "convert them to WebVTT: ffmpeg -i a.ass a.vtt"),
    (r'File type = "ooTextFile"', "a Praat TextGrid", "import it into ELAN (File > Import) and save it as .eaf"),
    (r"Bento annotation file", "a BENTO annotation file", "write its bouts as video,start,end,label in a CSV"),
    (r"FirstLineOfData", "a JWatcher data file", "import it into BORIS and export tabular events"),
    (r"<annotation[\s>]", "a Pascal VOC file (boxes of one picture)", _BOXES),
    (r"<xmeml[\s>]|<fcpxml[\s>]", "a timeline of a video editor", "write its clips as video,start,end,label in a CSV"),
    ("\ufffdHDF\r\n", "an HDF5 file", _HDF5),
    (r"\ufffd\x04\ufffd|\ufffd[\x02-\x05][c}\]]", "a Python pickle", "export its content as CSV"),
    (r"MATLAB 5\.0 MAT-file", "a MATLAB file", "write its bouts as video,start,end,label in a CSV"),
    (r"PAR1", "a Parquet file", "save it as CSV with the columns video,start,end,label"),
    (r"PK\x03\x04.{0,60}(?:\[Content_Types\]|docProps|xl/|_rels|mimetypeapp)", "an Office file", _SHEET),
    ("\ufffd\ufffd\x11\u0871", "an Office file", _SHEET),
    (r"PK\x03\x04", "an archive", "unpack it and pass the file in it"),
)  # fmt: skip
_BY_KEYS = (
    ({"images", "categories"}, "COCO annotations of pictures", _BOXES),
    ({"_via_img_metadata"}, "a project of VIA 2, the annotator of pictures", "use the VIA video annotator (version 3)"),
    ({"shapes", "imagePath"}, "a LabelMe file (shapes in one picture)", _BOXES),
)
_SIMBA = "a SimBA pose file"
_SIMBA_REMEDY = "vidgru reads its annotation CSV, in project_folder/csv/targets_inserted"


def identify_text(text: str) -> tuple[str, str] | None:
    """Return what a file that begins with `text` is, and a remedy; None if it is not known to be unreadable."""
    body = re.sub(r"^(?:<[?!][^>]*>\s*)+", "", text)
    for pattern, what, remedy in _BY_TEXT:
        if re.match(pattern, body, re.DOTALL):
            return what, remedy
    return (_SIMBA, _SIMBA_REMEDY) if has_pose_columns(text) else None


def identify_json(root: object) -> tuple[str, str] | None:
    """Return what a JSON file is, and a remedy; None if it is not known to be unreadable."""
    keys = root.keys() if isinstance(root, dict) else set()
    return next(((what, remedy) for wanted, what, remedy in _BY_KEYS if wanted <= keys), None)


def has_pose_columns(text: str) -> bool:
    """Whether the header of a table begins with the coordinates of SimBA's body parts (`Ear_left_1_x`, `_y`, `_p`)."""
    header = text.partition("\n")[0]
    columns = [cell.strip().strip('"') for cell in header.split(delimiter_of(header))][1:4]
    return len(columns) == 3 and [name[-2:] for name in columns] == ["_x", "_y", "_p"]

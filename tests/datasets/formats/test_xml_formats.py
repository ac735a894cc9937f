"""ELAN and CVAT; where the shapes come from stands beside them in files.py."""

from pathlib import Path

import pytest

from tests.datasets.formats.files import CVAT, ELAN, write
from tests.datasets.formats.test_json_formats import note
from vidgru.datasets.annotations import load_dataset
from vidgru.datasets.dataset import Dataset
from vidgru.errors import AnnotationError


def load(folder: Path, name: str, content: str, keys: str = "", videos: str = "rec 1.mp4|yard.mp4") -> Dataset:
    write(folder, name, content, videos)
    return load_dataset(write(folder, "set.yaml", f"annotations: {name}\n{keys}"))


# --- ELAN -----------------------------------------------------------------------------------------------------------


def test_elan(tmp_path: Path) -> None:
    dataset = load_dataset(write(tmp_path, "rec.eaf", ELAN, "media/rec 1.mp4"))
    video = "media/rec 1.mp4"
    # slots 2 and 3 lie evenly between 1 s and 4 s; half a second of the video lies before ELAN's zero
    assert dataset.annotations == (
        note(video, 1.5, 2.5, "walk", text="slowly, to the left"),
        note(video, 2.5, 3.5, "stop"),
        note(video, 3.5, 4.5, "walk"),
        note(video, 4.5, 6.5, "speech"),
    )
    assert dataset.rows[0].where == "line 19"
    assert dataset.notes == ("labels come from the tiers action, remark, speech; select some with `tiers`",)


def test_elan_selects_tiers(tmp_path: Path) -> None:
    dataset = load(tmp_path, "rec.eaf", ELAN, "tiers: action\n")
    assert [(a.label, a.description) for a in dataset.annotations] == [("walk", None), ("stop", None), ("walk", None)]
    remark = load(tmp_path, "rec.eaf", ELAN, "tiers: [remark]\n")
    assert remark.annotations == (note("rec 1.mp4", 1.5, 2.5, "slowly, to the left"),)
    with pytest.raises(AnnotationError, match=r"no tier 'actions' \(did you mean 'action'\?\)\n  its tiers are action"):
        load(tmp_path, "rec.eaf", ELAN, "tiers: actions\n")


def test_elan_folder_is_a_dataset(tmp_path: Path) -> None:
    for name in "ab":
        text = ELAN.replace("rec%201", name)
        write(tmp_path, f"{name}.eaf", text, f"{name}.mp4")
    dataset = load_dataset(tmp_path)
    assert sorted(dataset.recordings) == ["a.mp4", "b.mp4"]
    assert dataset.rows[0].where == "a.eaf, line 19"
    assert len(dataset.notes) == 1


def test_elan_without_annotations_or_media(tmp_path: Path) -> None:
    empty = '<ANNOTATION_DOCUMENT><HEADER MEDIA_FILE="" TIME_UNITS="milliseconds"/><TIME_ORDER/></ANNOTATION_DOCUMENT>'
    dataset = load_dataset(write(tmp_path, "day.eaf", empty, "day.avi"))
    assert dataset.annotations == (note("day.avi"),)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            'TIME_SLOT_ID="ts4" TIME_VALUE="4000"',
            'TIME_SLOT_ID="ts4"',
            r"line 21: its time slots have no times\n(.*\n)*  align it in ELAN",
        ),
        ('TIME_VALUE="1000"', 'TIME_VALUE="soon"', "line 12: TIME_VALUE 'soon' is not a whole number, 0 or more\n"),
        (
            'ANNOTATION_REF="a1"',
            'ANNOTATION_REF="a9"',
            "line 27: refers to annotation 'a9', which is missing or has no times\n",
        ),
        (
            'ANNOTATION_REF="a1"',
            'ANNOTATION_REF="a4"',
            "line 27: refers to annotation 'a4', which is missing or has no times\n",
        ),
        ('"milliseconds"', '"PAL-frames"', "line 5: TIME_UNITS are PAL-frames\n  they must be milliseconds"),
        ('TIME_VALUE="6000"', 'TIME_VALUE="3000"', "line 31: end 3.5 is not after start 4.5\n"),
        ('TIER_ID="speech"', "", "line 30: <TIER> has no TIER_ID\n"),
        ("</HEADER>", "", r"line \d+: not XML: mismatched tag.*\n  the file may be incomplete"),
        ("<ANNOTATION_DOCUMENT", "<!DOCTYPE x><ANNOTATION_DOCUMENT", "line 2: declares a document type\n  delete"),
    ],
)
def test_elan_rejects_bad_files(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(AnnotationError, match=message):
        load(tmp_path, "rec.eaf", ELAN.replace(old, new))


def test_elan_ignores_errors_in_unselected_tiers(tmp_path: Path) -> None:
    broken = ELAN.replace('TIME_VALUE="6000"', 'TIME_VALUE="-40"')
    assert broken != ELAN
    whole = load(tmp_path, "rec.eaf", ELAN, "tiers: [action]\n").annotations
    assert load(tmp_path, "rec.eaf", broken, "tiers: [action]\n").annotations == whole
    with pytest.raises(AnnotationError, match="TIME_VALUE '-40' is not a whole number"):
        load(tmp_path, "rec.eaf", broken, "tiers: [speech]\n")


def test_elan_interpolates_slots_of_dependent_tiers(tmp_path: Path) -> None:
    steps = """<TIER LINGUISTIC_TYPE_REF="steps" PARENT_REF="action" TIER_ID="step">
    <ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID="b1" TIME_SLOT_REF1="ts1" TIME_SLOT_REF2="ts9">
      <ANNOTATION_VALUE>left</ANNOTATION_VALUE></ALIGNABLE_ANNOTATION></ANNOTATION>
    <ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID="b2" TIME_SLOT_REF1="ts9" TIME_SLOT_REF2="ts2">
      <ANNOTATION_VALUE>right</ANNOTATION_VALUE></ALIGNABLE_ANNOTATION></ANNOTATION>
  </TIER>
  """
    text = ELAN.replace(
        '<TIME_SLOT TIME_SLOT_ID="ts2"/>', '<TIME_SLOT TIME_SLOT_ID="ts9"/><TIME_SLOT TIME_SLOT_ID="ts2"/>'
    )
    dataset = load(tmp_path, "rec.eaf", text.replace("<LINGUISTIC_TYPE ", f"{steps}<LINGUISTIC_TYPE "), "tiers: step\n")
    assert dataset.annotations == (note("rec 1.mp4", 1.5, 2.0, "left"), note("rec 1.mp4", 2.0, 2.5, "right"))


def test_elan_time_origin(tmp_path: Path) -> None:
    dataset = load(tmp_path, "rec.eaf", ELAN.replace('TIME_ORIGIN="500"', 'TIME_ORIGIN="-500"'))
    assert dataset.annotations[1] == note("rec 1.mp4", 1.5, 2.5, "stop")
    with pytest.raises(AnnotationError, match=r"line 19: start -1 is before the recording starts\n"):
        load(tmp_path, "rec.eaf", ELAN.replace('TIME_ORIGIN="500"', 'TIME_ORIGIN="-2000"'))
    with pytest.raises(AnnotationError, match=r"line 7: TIME_ORIGIN 'late' is not a number of milliseconds\n  set"):
        load(tmp_path, "rec.eaf", ELAN.replace('TIME_ORIGIN="500"', 'TIME_ORIGIN="late"'))


@pytest.mark.parametrize("name", ["cam #1.mp4", "100% rec?.mp4"])
def test_elan_media_urls_with_special_characters(tmp_path: Path, name: str) -> None:
    absolute = ELAN.replace('RELATIVE_MEDIA_URL="../My%20Data/rec%201.mp4"', "").replace("My%20Data/rec%201.mp4", name)
    assert list(load(tmp_path, "rec.eaf", absolute, videos=f"media/{name}").recordings) == [f"media/{name}"]


def test_elan_falls_back_to_absolute_media_url(tmp_path: Path) -> None:
    write(tmp_path / "else where", "x", "", "rec 1.mp4")
    url = (tmp_path / "else where" / "rec 1.mp4").as_uri()
    text = ELAN.replace('"file:///C:/lab/My%20Data/rec%201.mp4"', f'"{url}"')
    dataset = load(tmp_path / "notes", "rec.eaf", text, videos="")
    (recording,) = dataset.recordings.values()
    assert recording.path.samefile(tmp_path / "else where" / "rec 1.mp4")


def test_xml_entities_are_refused(tmp_path: Path) -> None:
    bomb = '<!DOCTYPE a [<!ENTITY x "y"><!ENTITY z "&x;&x;&x;">]>\n<annotations><version>&z;</version></annotations>'
    with pytest.raises(AnnotationError, match=r"bomb\.xml, line 1: declares a document type"):
        load(tmp_path, "bomb.xml", bomb, "fps: 10\n")


# --- CVAT -----------------------------------------------------------------------------------------------------------


def test_cvat(tmp_path: Path) -> None:
    dataset = load(tmp_path, "annotations.xml", CVAT, "fps: 10\n")
    assert dataset.annotations == (
        note("yard.mp4", 1.0, 5.0, "person"),
        note("yard.mp4", 9.8, 10.0, "person"),  # to the end of its last frame
        note("yard.mp4", 1.0, 3.0, "walk"),
        note("yard.mp4", 3.0, 4.0, "fall"),
        note("yard.mp4", 9.8, 10.0, "walk"),
        note("yard.mp4", 3.0, 5.0, "carries"),
    )
    assert dataset.rows[2].where == "line 19"
    assert dataset.notes == ("labels come from label, action, carries; select some with `tiers`",)


def test_cvat_selects_attributes(tmp_path: Path) -> None:
    dataset = load(tmp_path, "annotations.xml", CVAT, "fps: 10\ntiers: [action]\n")
    assert dataset.labels == ("fall", "walk")
    assert dataset.notes == ()
    assert load(tmp_path, "annotations.xml", CVAT, "fps: 10\ntiers: [label]\n").labels == ("person",)
    with pytest.raises(
        AnnotationError, match=r"no attribute 'actoin' \(did you mean 'action'\?\)\n.* are action, carr"
    ):
        load(tmp_path, "annotations.xml", CVAT, "fps: 10\ntiers: [actoin]\n")


def test_cvat_needs_fps(tmp_path: Path) -> None:
    with pytest.raises(
        AnnotationError, match=r"line 19: counts frames, and their rate is unknown: yard.mp4 cannot be read\n  give the"
    ):
        load(tmp_path, "annotations.xml", CVAT)


def test_cvat_frame_step(tmp_path: Path) -> None:
    text = CVAT.replace("<frame_filter></frame_filter>", "<frame_filter>step=5</frame_filter>")
    dataset = load(tmp_path, "annotations.xml", text, "fps: 10\ntiers: [label]\n")
    assert dataset.annotations[1] == note("yard.mp4", 9.8, 10.4, "person")


def test_cvat_project_tasks(tmp_path: Path) -> None:
    text = """<annotations><version>1.1</version><meta><project><id>1</id><name>p</name><tasks>
      <task><id>5</id><name>one</name><source>a.mp4</source></task>
      <task><id>6</id><name>two</name><source>b.mp4</source></task></tasks></project></meta>
      <track id="0" label="x" task_id="6"><box frame="0" outside="0"/><box frame="10" outside="1"/></track>
    </annotations>"""
    dataset = load(tmp_path, "annotations.xml", text, "fps: 10\n", "a.mp4|b.mp4")
    assert dataset.annotations == (note("b.mp4", 0.0, 1.0, "x"),)


def test_cvat_project_tasks_have_own_step_and_subset(tmp_path: Path) -> None:
    text = """<annotations><version>1.1</version><meta><project><id>1</id><name>p</name><tasks>
      <task><id>5</id><name>a</name><subset>Train</subset><frame_filter>step=5</frame_filter></task>
      <task><id>6</id><name>b</name><subset>Validation</subset><frame_filter></frame_filter></task>
      <task><id>7</id><name>c</name></task><task><id>8</id><name>d</name><subset>night</subset></task>
      </tasks></project></meta>
      <track id="0" label="x" task_id="5" subset="Train"><box frame="10" outside="0"/></track>
      <track id="1" label="x" task_id="6" subset="Validation"><box frame="10" outside="0"/></track>
      <track id="2" label="x" task_id="8" subset="night"><box frame="0" outside="0"/></track>
    </annotations>"""
    dataset = load(tmp_path, "annotations.xml", text, "fps: 10\n", "a.mp4|b.mp4|c.mp4|d.mp4")
    assert dataset.annotations == (
        note("a.mp4", 1.0, 1.5, "x", split="train"),
        note("b.mp4", 1.0, 1.1, "x", split="val"),
        note("d.mp4", 0.0, 0.1, "x"),  # a subset of another name is no split
    )
    assert dataset.notes == ("1 task of a project without tracks skipped (c)",)


def test_cvat_task_without_tracks_is_event_free(tmp_path: Path) -> None:
    text = CVAT[: CVAT.index("  <track")] + "</annotations>"
    dataset = load(tmp_path, "annotations.xml", text, "fps: 10\n")
    assert dataset.annotations == (note("yard.mp4"),)
    message = "annotations.xml has no tracks: yard.mp4 counts as a recording without events; if it was annotated,"
    assert dataset.warnings[0].startswith(message)


TAGGED = (("frame_000004", "wave"), ("frame_000005", "wave sit"), ("frame_000006", "sit"), ("frame_000009", "wave"))


def cvat_images(*frames: tuple[str, str], inner: str = "") -> str:
    """CVAT for images with the tags of each frame (docs.cvat.ai/docs/manual/advanced/xml_format, "Annotation")."""
    tag = '<tag label="{}" source="manual"></tag>'
    images = (
        f'<image id="{number}" name="{name}" width="64" height="48">'
        f"{''.join(map(tag.format, labels.split()))}{inner}</image>"
        for number, (name, labels) in enumerate(frames)
    )
    return f"{CVAT[: CVAT.index('  <track')]}{''.join(images)}</annotations>"


def test_cvat_runs_of_tags_are_events(tmp_path: Path) -> None:
    dataset = load(tmp_path, "annotations.xml", cvat_images(("frame_000000", ""), *TAGGED), "fps: 10\n")
    assert dataset.annotations == (
        note("yard.mp4", 0.4, 0.6, "wave"),
        note("yard.mp4", 0.9, 1.0, "wave"),
        note("yard.mp4", 0.5, 0.7, "sit"),
    )
    assert dataset.warnings[0].startswith("1 pair of overlapping")


def test_cvat_tags_with_attributes_and_step(tmp_path: Path) -> None:
    inner = '<tag label="play"><attribute name="side">left</attribute><attribute name="score">3</attribute></tag>'
    text = cvat_images(("frame_000002", ""), ("frame_000004", ""), ("frame_000010", ""), inner=inner)
    text = text.replace("<frame_filter></frame_filter>", "<frame_filter>step=2</frame_filter>")
    dataset = load(tmp_path, "annotations.xml", text, "fps: 10\ntiers: [side]\n")
    assert dataset.annotations == (note("yard.mp4", 0.2, 0.6, "left"), note("yard.mp4", 1.0, 1.2, "left"))


def test_cvat_exports_that_lose_annotations(tmp_path: Path) -> None:
    tagged = CVAT.replace("<label><name>person</name>", "<label><name>wave</name><type>tag</type>")
    bare = tagged[: tagged.index("  <track")] + "</annotations>"
    with pytest.raises(
        AnnotationError, match=r"labels wave are tags, which CVAT for video 1.1 does not hold\n  export"
    ):
        load(tmp_path, "annotations.xml", bare, "fps: 10\n")
    assert "labels wave are tags" in load(tmp_path, "annotations.xml", tagged, "fps: 10\n").warnings[0]
    box = '<box label="man" xtl="1" ytl="1" xbr="5" ybr="5"></box>'
    with pytest.raises(AnnotationError, match=r"has 1 shape on images and no tags; .*\n  export the"):
        load(tmp_path, "annotations.xml", cvat_images(("frame_000000", ""), inner=box), "fps: 10\n")
    mixed = load(tmp_path, "annotations.xml", cvat_images(("frame_000000", "wave"), inner=box), "fps: 10\n")
    assert mixed.warnings == ("1 shape on images not read; CVAT for video 1.1 has tracks",)
    with pytest.raises(
        AnnotationError, match=r"image 'a/001.jpg' is a file, not a frame of a video\n  create the CVAT"
    ):
        load(tmp_path, "annotations.xml", cvat_images(("a/001.jpg", "wave")), "fps: 10\n")
    untagged = load(tmp_path, "annotations.xml", cvat_images(("frame_000000", "")), "fps: 10\n")
    assert untagged.warnings[0].startswith("annotations.xml has no tags: yard.mp4 counts as a recording without events")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('<track id="0" label="person"', '<track id="0"', "line 18: <track> has no label\n"),
        ('frame="30"', 'frame="-3"', "line 22: frame '-3' is not a whole number, 0 or more\n"),
        ("</track>", "", r"line \d+: not XML"),
    ],
)
def test_cvat_rejects_bad_files(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(AnnotationError, match=message):
        load(tmp_path, "annotations.xml", CVAT.replace(old, new), "fps: 10\n")


def test_cvat_reads_track_by_track(tmp_path: Path) -> None:
    import tracemalloc

    boxes = "".join(f'<box frame="{n}" outside="0" occluded="0" keyframe="0" xtl="1"/>' for n in range(300))
    track = f'<track id="0" label="x">{boxes}</track>\n'
    peaks = []
    for tracks in (10, 100):
        write(tmp_path, "a.xml", f"<annotations>{track * tracks}</annotations>", "a.mp4")
        yaml = write(tmp_path, "set.yaml", "annotations: a.xml\nfps: 10\n")
        tracemalloc.start()
        assert len(load_dataset(yaml).rows) == tracks
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 3 * peaks[0]

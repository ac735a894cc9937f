"""A small file of each format, shaped as its tool's documentation or repository shows it; the content is ours."""

import json
from pathlib import Path
from typing import Any

# github.com/activitynet/ActivityNet, Evaluation/data/activity_net.v1-3.min.json; the same file is what
# Evaluation/eval_detection.py reads as ground truth.
ACTIVITYNET: Any = {
    "version": "VERSION 1.3",
    "taxonomy": [{"parentName": "Root", "nodeName": "Household", "nodeId": 269, "parentId": 0}],
    "database": {
        "abc_-012345": {
            "duration": 82.73,
            "subset": "training",
            "resolution": "1920x1080",
            "url": "https://www.youtube.com/watch?v=abc_-012345",
            "annotations": [
                {"segment": [0.01, 81.58], "label": "Mopping"},
                {"segment": [12.5, 20.0], "label": "Singing"},
            ],
        },
        "quiet000000": {
            "duration": 10.0,
            "subset": "validation",
            "resolution": "320x240",
            "url": "",
            "annotations": [],
        },
        "hidden00000": {"duration": 10.0, "subset": "testing", "resolution": "320x240", "url": "", "annotations": []},
    },
}
# activity-net.org/challenges/2016/guidelines.html, and what eval_detection.py reads as prediction
ACTIVITYNET_RESULTS: Any = {
    "version": "VERSION 1.3",
    "results": {"abc_-012345": [{"label": "Mopping", "score": 0.64, "segment": [1.25, 2.5]}]},
    "external_data": {"used": False, "details": ""},
}
# train.json of ActivityNet Captions: Krishna et al., cs.stanford.edu/people/ranjaykrishna/densevid
CAPTIONS: Any = {
    "v_abc_-012345": {
        "duration": 82.73,
        "timestamps": [[0.83, 19.86], [17.37, 60.81]],
        "sentences": ["A woman fills a bucket.", " She mops the floor of a hall."],
    }
}
# open-mmlab/mmaction2, docs/tutorials/3_new_dataset.md, "ActivityNet annotation"
MMACTION_ACTIVITYNET: Any = {
    "video1": {
        "duration_second": 211.53,
        "duration_frame": 6337,
        "annotations": [{"segment": [30.02, 205.23], "label": "Climbing"}],
        "feature_frame": 6336,
        "fps": 30.0,
        "rfps": 29.95,
    }
}
# github.com/jhong93/spot, README.md, "Using your own data"
SPOT: Any = [
    {
        "video": "match_1",
        "num_frames": 4325,
        "num_events": 2,
        "events": [
            {"frame": 525, "label": "far_court_serve", "comment": ""},
            {"frame": 5, "label": "near_court_swing", "comment": "late"},
        ],
        "fps": 25,
        "width": 1920,
        "height": 1080,
    },
    {"video": "match_2", "num_frames": 50, "num_events": 0, "events": [], "fps": 25, "width": 1920, "height": 1080},
]
# Labels-v2.json as the SoccerNet package downloads it: github.com/SilvioGiancola/SoccerNetv2-DevKit
SOCCERNET: Any = {
    "UrlLocal": "england_epl/2014-2015/2015-02-21 - 18-00 Chelsea 1 - 1 Burnley/",
    "UrlYoutube": "",
    "annotations": [
        {"gameTime": "1 - 00:21", "label": "Kick-off", "position": "21480", "team": "home", "visibility": "visible"},
        {"gameTime": "2 - 01:02", "label": "Goal", "position": "62000", "team": "away", "visibility": "not shown"},
    ],
    "gameAwayTeam": "Burnley",
    "gameDate": "21/02/2015 - 18:00",
    "gameHomeTeam": "Chelsea",
    "gameScore": "1 - 1",
}
# labelstud.io/guide/export ("Label Studio JSON format of annotated tasks") around labelstud.io/tags/timelinelabels
# ("Example JSON"); that frames count from 1 is the numbering of the timeline, HumanSignal/label-studio,
# web/libs/editor/src/components/Timeline
LABEL_STUDIO: Any = [
    {
        "id": 7,
        "annotations": [
            {
                "id": 11,
                "completed_by": 1,
                "result": [
                    {
                        "original_length": 4.0,
                        "value": {"ranges": [{"start": 25, "end": 48}], "timelinelabels": ["Moving"]},
                        "id": "qe2LcK",
                        "from_name": "timelineLabels",
                        "to_name": "video",
                        "type": "timelinelabels",
                        "origin": "manual",
                    }
                ],
                "was_cancelled": False,
                "ground_truth": False,
                "lead_time": 12.5,
            }
        ],
        "drafts": [],
        "predictions": [{"result": [{"value": {"ranges": [{"start": 1, "end": 2}], "timelinelabels": ["No"]}}]}],
        "data": {"video": "/data/upload/3/0a1b2c3d-yard.mp4"},
        "meta": {},
        "created_at": "2025-01-06T10:00:00.000000Z",
        "project": 3,
    },
    {
        "id": 8,
        "annotations": [{"id": 12, "result": [], "was_cancelled": False, "ground_truth": False}],
        "data": {"video": "/data/local-files/?d=set/gate%20two.mp4"},
    },
    {"id": 9, "annotations": [], "data": {"video": "/data/upload/3/11111111-later.mp4"}},
]
# labelstud.io/guide/export, "JSON_MIN"
LABEL_STUDIO_MIN: Any = [
    {
        "video": "/data/upload/3/0a1b2c3d-yard.mp4",
        "id": 7,
        "timelineLabels": [{"ranges": [{"start": 25, "end": 48}], "timelinelabels": ["Moving"]}],
        "annotator": 1,
        "annotation_id": 11,
        "lead_time": 12.5,
    }
]
# README of MSR-VTT 10K, as train_val_videodatainfo.json holds it
MSR_VTT: Any = {
    "info": {"contributor": "", "data_created": "", "version": "1.0", "description": "", "year": "2016"},
    "videos": [
        {
            "category": 9,
            "url": "https://www.youtube.com/watch?v=x",
            "video_id": "video0",
            "start time": 137.72,
            "end time": 149.44,
            "split": "train",
            "id": 0,
        },
        {
            "category": 3,
            "url": "",
            "video_id": "video7",
            "start time": 0,
            "end time": 9.5,
            "split": "validate",
            "id": 7,
        },
    ],
    "sentences": [
        {"caption": "a car is shown", "video_id": "video0", "sen_id": 0},
        {"caption": "somebody shows a car", "video_id": "video0", "sen_id": 1},
        {"caption": "people dance", "video_id": "video7", "sen_id": 2},
    ],
}
# "ELAN Annotation Format", EAF 3.0, www.mpi.nl/tools/elan/EAF_Annotation_Format_3.0_and_ELAN.pdf, and EAFv3.0.xsd there
ELAN = """<?xml version="1.0" encoding="UTF-8"?>
<ANNOTATION_DOCUMENT AUTHOR="" DATE="2024-05-06T07:08:09+02:00" FORMAT="3.0" VERSION="3.0"
    xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"
    xsi:noNamespaceSchemaLocation="http://www.mpi.nl/tools/elan/EAFv3.0.xsd">
  <HEADER MEDIA_FILE="" TIME_UNITS="milliseconds">
    <MEDIA_DESCRIPTOR MEDIA_URL="file:///C:/lab/My%20Data/rec%201.wav" MIME_TYPE="audio/x-wav"/>
    <MEDIA_DESCRIPTOR MEDIA_URL="file:///C:/lab/My%20Data/rec%201.mp4" MIME_TYPE="video/mp4"
        RELATIVE_MEDIA_URL="../My%20Data/rec%201.mp4" TIME_ORIGIN="500"/>
    <PROPERTY NAME="lastUsedAnnotationId">6</PROPERTY>
  </HEADER>
  <TIME_ORDER>
    <TIME_SLOT TIME_SLOT_ID="ts1" TIME_VALUE="1000"/>
    <TIME_SLOT TIME_SLOT_ID="ts2"/>
    <TIME_SLOT TIME_SLOT_ID="ts3"/>
    <TIME_SLOT TIME_SLOT_ID="ts4" TIME_VALUE="4000"/>
    <TIME_SLOT TIME_SLOT_ID="ts5" TIME_VALUE="6000"/>
  </TIME_ORDER>
  <TIER LINGUISTIC_TYPE_REF="default-lt" TIER_ID="action">
    <ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID="a1" TIME_SLOT_REF1="ts1" TIME_SLOT_REF2="ts2">
      <ANNOTATION_VALUE>walk</ANNOTATION_VALUE></ALIGNABLE_ANNOTATION></ANNOTATION>
    <ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID="a2" TIME_SLOT_REF1="ts2" TIME_SLOT_REF2="ts3">
      <ANNOTATION_VALUE>stop</ANNOTATION_VALUE></ALIGNABLE_ANNOTATION></ANNOTATION>
    <ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID="a3" TIME_SLOT_REF1="ts3" TIME_SLOT_REF2="ts4">
      <ANNOTATION_VALUE>walk</ANNOTATION_VALUE></ALIGNABLE_ANNOTATION></ANNOTATION>
  </TIER>
  <TIER LINGUISTIC_TYPE_REF="remark" PARENT_REF="action" TIER_ID="remark">
    <ANNOTATION><REF_ANNOTATION ANNOTATION_ID="a4" ANNOTATION_REF="a1">
      <ANNOTATION_VALUE>slowly, to the left</ANNOTATION_VALUE></REF_ANNOTATION></ANNOTATION>
  </TIER>
  <TIER LINGUISTIC_TYPE_REF="default-lt" TIER_ID="speech">
    <ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID="a5" TIME_SLOT_REF1="ts4" TIME_SLOT_REF2="ts5">
      <ANNOTATION_VALUE></ANNOTATION_VALUE></ALIGNABLE_ANNOTATION></ANNOTATION>
  </TIER>
  <LINGUISTIC_TYPE LINGUISTIC_TYPE_ID="default-lt" TIME_ALIGNABLE="true"/>
</ANNOTATION_DOCUMENT>
"""
# labelstud.io/templates/video_timeline_segmentation, whose labels belong to the audio; labelstud.io/tags/audio
LABEL_STUDIO_AUDIO: Any = {
    "original_length": 12.5,
    "value": {"start": 0.75, "end": 4.5, "channel": 0, "labels": ["Serve", "Rally"]},
    "id": "x1",
    "from_name": "tricks",
    "to_name": "audio",
    "type": "labels",
    "origin": "manual",
}
# docs.cvat.ai/docs/manual/advanced/xml_format, "Interpolation"
CVAT = """<?xml version="1.0" encoding="utf-8"?>
<annotations>
  <version>1.1</version>
  <meta>
    <task>
      <id>5</id><name>yard</name><size>100</size><mode>interpolation</mode><overlap>0</overlap>
      <start_frame>0</start_frame><stop_frame>99</stop_frame><frame_filter></frame_filter>
      <labels><label><name>person</name><attributes><attribute><name>action</name><mutable>True</mutable>
        <input_type>select</input_type><values>__undefined__
walk
fall</values></attribute></attributes></label></labels>
      <segments><segment><id>5</id><start>0</start><stop>99</stop><url>http://x/5</url></segment></segments>
      <original_size><width>640</width><height>480</height></original_size>
    </task>
    <dumped>2024-05-06 07:08:09+00:00</dumped>
    <source>yard.mp4</source>
  </meta>
  <track id="0" label="person" source="manual">
    <box frame="10" outside="0" occluded="0" keyframe="1" xtl="1.0" ytl="1.0" xbr="9.0" ybr="9.0" z_order="0">
      <attribute name="action">walk</attribute><attribute name="carries">false</attribute>
    </box>
    <box frame="30" outside="0" occluded="0" keyframe="1" xtl="1.0" ytl="1.0" xbr="9.0" ybr="9.0" z_order="0">
      <attribute name="action">fall</attribute><attribute name="carries">true</attribute>
    </box>
    <box frame="40" outside="0" occluded="0" keyframe="1" xtl="1.0" ytl="1.0" xbr="9.0" ybr="9.0" z_order="0">
      <attribute name="action">__undefined__</attribute><attribute name="carries">true</attribute>
    </box>
    <box frame="50" outside="1" occluded="0" keyframe="1" xtl="1.0" ytl="1.0" xbr="9.0" ybr="9.0" z_order="0">
      <attribute name="action">walk</attribute><attribute name="carries">true</attribute>
    </box>
    <box frame="98" outside="0" occluded="0" keyframe="1" xtl="1.0" ytl="1.0" xbr="9.0" ybr="9.0" z_order="0">
      <attribute name="action">walk</attribute><attribute name="carries">false</attribute>
    </box>
    <box frame="99" outside="0" occluded="0" keyframe="0" xtl="1.0" ytl="1.0" xbr="9.0" ybr="9.0" z_order="0">
      <attribute name="action">walk</attribute><attribute name="carries">false</attribute>
    </box>
  </track>
</annotations>
"""
# kinetics400/validate.csv as github.com/activitynet/ActivityNet, Crawler/Kinetics reads it; is_cc came later
KINETICS = """label,youtube_id,time_start,time_end,split,is_cc
abseiling,-3B32lodo2M,59,69,train,0
"air drumming",_dbcJuKJQNs,40,50,validate,0
"""
# open-mmlab/mmaction2, mmaction/datasets/video_dataset.py; several labels:
# tests/data/annotations/video_test_list_multi_label.txt
MMACTION_LIST = "some/path/000.mp4 1\nsome/path/001.mp4 0\nsome/path/002.mp4 0 1\n"
# www.crcv.ucf.edu/data/UCF101/UCF101TrainTestSplits-RecognitionTask.zip: trainlist01.txt, testlist01.txt, classInd.txt
UCF_CLASSES = "1 ApplyEyeMakeup\n2 ApplyLipstick\n"
UCF_TRAIN = "ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi 1\nApplyLipstick/v_ApplyLipstick_g08_c02.avi 2\n"
UCF_TEST = "ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi\nApplyLipstick/v_ApplyLipstick_g01_c01.avi\n"
NATIVE = """video,start,end,label,description,split
a.mp4,3.4,6.0,fall,"A man falls from a chair",train
b.mp4,,,walk,,val
c.mp4,,,,,test
a.mp4,7.125,8.5,"get up",,train
"""

# github.com/sgoldenlab/simba, misc/boris_new_example.csv: the columns of BORIS 8's tabular export
BORIS_TABULAR = (
    "Observation id,Observation date,Description,Observation duration,Observation type,Source,Time offset (s),"
    "Media duration (s),FPS,Subject,Behavior,Behavioral category,Modifier #1,Behavior type,Time,Media file name,"
    """Image index,Image file path,Comment
obs1,2024-05-06 07:08:09,,60.0,Media file(s),player #1:day1/cage.avi,0.0,60.0,25.0,m1,grooming,,hard,START,1.0,day1/cage.avi,NA,NA,
obs1,2024-05-06 07:08:09,,60.0,Media file(s),player #1:day1/cage.avi,0.0,60.0,25.0,m2,grooming,,,START,2.0,day1/cage.avi,NA,NA,
obs1,2024-05-06 07:08:09,,60.0,Media file(s),player #1:day1/cage.avi,0.0,60.0,25.0,m1,grooming,,hard,STOP,2.5,day1/cage.avi,NA,NA,left paw
obs1,2024-05-06 07:08:09,,60.0,Media file(s),player #1:day1/cage.avi,0.0,60.0,25.0,,squeak,,,POINT,3.25,day1/cage.avi,NA,NA,
obs1,2024-05-06 07:08:09,,60.0,Media file(s),player #1:day1/cage.avi,0.0,60.0,25.0,m2,grooming,,,STOP,4.0,day1/cage.avi,NA,NA,
"""  # noqa: E501
)
# github.com/olivierfriard/BORIS, tests/files/test_export_events_tabular.tsv: version 7, with its preface
BORIS_PREFACE = """Observation id\tobs1\t\t\t\t\t\t\t
\t\t\t\t\t\t\t\t
Media file(s)\t\t\t\t\t\t\t\t
\t\t\t\t\t\t\t\t
Player #1\tC:/lab/cage.avi\t\t\t\t\t\t\t
\t\t\t\t\t\t\t\t
Observation date\t2024-05-06 07:08:09\t\t\t\t\t\t\t
Time offset (s)\t10.0\t\t\t\t\t\t\t
independent variables\t\t\t\t\t\t\t\t
variable\tvalue\t\t\t\t\t\t\t
\t\t\t\t\t\t\t\t
Time\tMedia file path\tTotal length\tFPS\tSubject\tBehavior\tBehavioral category\tComment\tStatus
13.300\tC:/lab/cage.avi\t59.960\t25.0\tm1\tgrooming\t\t\tSTART
17.750\tC:/lab/cage.avi\t59.960\t25.0\tm1\tgrooming\t\t\tSTOP
"""
# the same repository, tests/files/test_export_aggregated_events_test_full_1.tsv
BORIS_AGGREGATED = (
    "Observation id,Observation date,Description,Media file,Total length,FPS,Subject,Behavior,Behavioral category,"
    """Modifiers,Behavior type,Start (s),Stop (s),Duration (s),Comment start,Comment stop
obs1,2024-05-06 07:08:09,,cage.avi,59.960,25.0,m1,grooming,,,STATE,1.800,8.125,6.325,slow,
obs1,2024-05-06 07:08:09,,cage.avi,59.960,25.0,No focal subject,squeak,,,POINT,32.825,32.825,NA,,
"""
)
# the same repository, tests/files/test.boris
BORIS_PROJECT: Any = {
    "time_format": "hh:mm:ss",
    "project_name": "test",
    "project_format_version": "7.0",
    "subjects_conf": {"0": {"key": "1", "name": "m1", "description": ""}},
    "behaviors_conf": {
        "0": {"type": "Point event", "key": "p", "code": "squeak", "modifiers": {}},
        "1": {"type": "State event", "key": "g", "code": "grooming", "modifiers": {}},
    },
    "observations": {
        "two files": {
            "date": "2024-05-06T07:08:09",
            "file": {"1": ["/home/user/a.mp4", "/home/user/b.mp4"], "2": []},
            "type": "MEDIA",
            "time offset": 0.0,
            "events": [
                [1.5, "m1", "grooming", "", ""],
                [3.0, "m1", "grooming", "", ""],
                [9.0, "", "grooming", "", "slow"],
                [12.5, "", "grooming", "", ""],
                [14.0, "m1", "squeak", "loud", ""],
            ],
            "media_info": {"length": {"/home/user/a.mp4": 10.0, "/home/user/b.mp4": 20.0}, "offset": {"1": 0.0}},
        },
        "quiet": {"file": {"1": ["c.mp4"], "2": ["d.mp4"]}, "type": "MEDIA", "time offset": 0.0, "events": []},
        "seen live": {"file": [], "type": "LIVE", "time offset": 0.0, "events": [[2.0, "", "squeak", "", ""]]},
    },
}

# youcook2.eecs.umich.edu, youcookii_annotations_trainval.json
YOUCOOK2: Any = {
    "database": {
        "xHr8X2Wpmno": {
            "duration": 311.77,
            "subset": "training",
            "recipe_type": "113",
            "annotations": [
                {"segment": [41, 54], "id": 0, "sentence": "slice the bread"},
                {"segment": [60, 71], "id": 1, "sentence": "spread the butter"},
            ],
            "video_url": "https://www.youtube.com/watch?v=xHr8X2Wpmno",
        }
    }
}
# github.com/coin-dataset/annotations, COIN.json
COIN: Any = {
    "database": {
        "0wu5Q6xNp0M": {
            "recipe_type": 3,
            "class": "ReplaceBulb",
            "subset": "testing",
            "duration": 49.32,
            "start": 3.0,
            "end": 40.0,
            "video_url": "https://www.youtube.com/embed/0wu5Q6xNp0M",
            "annotation": [{"id": "12", "segment": [9.0, 14.0], "label": "remove the bulb"}],
        }
    }
}
# github.com/jayleicn/moment_detr, data/README.md
QVHIGHLIGHTS = """{"qid": 7803, "query": "A man walks outside.", "duration": 150, "vid": "Rori_360.0_510.0", "relevant_windows": [[26, 36], [40, 44]], "saliency_scores": [[2, 3, 3]]}
{"qid": 7804, "query": "A dog barks.", "duration": 150, "vid": "Rori_360.0_510.0"}
"""  # noqa: E501
# the README of Charades, Charades_v1_train.csv and Charades_v1_classes.txt; of Charades-STA, charades_sta_train.txt
CHARADES = """id,subject,scene,quality,relevance,verified,script,objects,descriptions,actions,length
46GP8,HR43,Kitchen,6,7,Yes,A person cooks.,food;stove,A person cooks; then eats.,c092 11.90 21.20;c147 0.00 30.60,24.83
N11GT,0KZ7,Stairs,6,7,Yes,"A person stands, alone.",,A person stands.,,18.33
"""
CHARADES_CLASSES = "c092 Turning on a light\nc147 Someone is cooking something\n"
CHARADES_STA = "46GP8 24.3 30.4##a person turns a light on.\nN11GT 0.0 6.9##person stands.\n"
# github.com/mifi/lossless-cut, import-export.md
LOSSLESSCUT = ',56.9568,First segment starting at 0\n70,842.33,"Another, quoted label"\n'
# www.w3.org/TR/webvtt1, section 1; SubRip as en.wikipedia.org/wiki/SubRip shows it
VTT = """WEBVTT - made by hand

STYLE
::cue { color: lime }

NOTE two cues

1
00:11.000 --> 00:13.250 align:start position:0%
<v Ann>fall &amp; rise</v>
A <i>man</i> falls
from a chair.

01:00:14.000 --> 01:00:15.000
walk
"""
SRT = """1
00:00:11,000 --> 00:00:13,250
{\\an8}fall
A man falls.

2
00:00:14,000 --> 00:00:15,000
<b>walk</b>
"""
# gitlab.com/vgg/via, via-3.x.y: _via_data.js and its CSV export
VIA: Any = {
    "project": {"pid": "__VIA_PROJECT_ID__", "pname": "yard", "vid_list": ["1", "2"]},
    "config": {"file": {"loc_prefix": {"1": "", "2": "", "3": "", "4": ""}}},
    "attribute": {
        "1": {
            "aname": "action",
            "anchor_id": "FILE1_Z2_XY0",
            "type": 4,
            "desc": "",
            "options": {"0": "walk", "1": "fall"},
            "default_option_id": "",
        },
        "2": {"aname": "remark", "anchor_id": "FILE1_Z2_XY0", "type": 1, "desc": "", "options": {}},
    },
    "file": {
        "1": {"fid": "1", "fname": "yard.mp4", "type": 4, "loc": 1, "src": ""},
        "2": {"fid": "2", "fname": "later.mp4", "type": 4, "loc": 1, "src": ""},
    },
    "metadata": {
        "1_a1b2c3d4": {"vid": "1", "flg": 0, "z": [1.5, 3.0], "xy": [], "av": {"1": "1", "2": "slowly"}},
        "1_b2c3d4e5": {"vid": "1", "flg": 0, "z": [4, 5.25], "xy": [], "av": {"1": "_DEFAULT", "2": "waits"}},
        "1_c3d4e5f6": {"vid": "1", "flg": 0, "z": [2.25], "xy": [2, 10, 10, 5, 5], "av": {}},
    },
    "view": {"1": {"fid_list": ["1"]}, "2": {"fid_list": ["2"]}},
}
VIA_TABLE = """# Exported using VGG Image Annotator (http://www.robots.ox.ac.uk/~vgg/software/via)
# ATTRIBUTE = {"1":{"aname":"action","anchor_id":"FILE1_Z2_XY0","type":4,"options":{"0":"walk","1":"fall"}}}
# CSV_HEADER = metadata_id,file_list,flags,temporal_coordinates,spatial_coordinates,metadata
"1_a1b2c3d4","["yard.mp4"]",0,"[1.5,3]","[]","{"1":"1"}"
""".replace('["yard.mp4"]', '[""yard.mp4""]').replace('{"1":"1"}', '{""1"":""1""}')

# docs.voxel51.com/user_guide/dataset_creation, FiftyOneTemporalDetectionDataset
FIFTYONE: Any = {
    "classes": ["walk", "fall"],
    "labels": {
        "cam1/yard": [
            {"label": 1, "timestamps": [1.5, 3.0], "confidence": 0.9, "attributes": {"description": "slowly"}},
            {"label": 0, "support": [11, 40]},
        ],
        "quiet": [],
        "later": None,
    },
}
# github.com/yabufarha/ms-tcn: data/breakfast/groundTruth; Breakfast's own segmentation files
FRAME_LABELS = "SIL\n" * 10 + "take_bowl\n" * 15 + "pour_milk\n" * 25 + "SIL\n" * 5
SEGMENT_LABELS = "1-10 SIL  \n11-25 take_bowl  \n26-50 pour_milk  \n"
# github.com/sgoldenlab/simba, misc/deep_ethogram_labels.csv
BEHAVIOR_TABLE = ",background,Swim,Float\n" + "".join(
    f"{frame},{int(frame < 4)},{int(4 <= frame < 10)},{int(frame >= 8)}\n" for frame in range(12)
)
# the same repository, csv/targets_inserted: poses, features, behaviors
SIMBA_TABLE = ",Nose_1_x,Nose_1_y,Nose_1_p,Movement_nose,Low_prob_detections_0.75,Attack\n" + "".join(
    f"{frame},{frame + 0.5},10.25,0.99,{frame * 1.5},0,{int(5 <= frame < 9)}\n" for frame in range(12)
)
NATIVE_ARRAY: Any = [
    {"video": "a.mp4", "start": 3.4, "end": 6.0, "label": "fall", "description": "A man falls", "split": "train"},
    {"video": "b.mp4", "label": "walk", "split": "val", "subject": "m1"},
]

FILES = {
    "activitynet": ("gt.json", json.dumps(ACTIVITYNET)),
    "e2e-spot": ("train.json", json.dumps(SPOT)),
    "soccernet": ("Labels-v2.json", json.dumps(SOCCERNET)),
    "label-studio": ("project-3.json", json.dumps(LABEL_STUDIO, indent=2)),
    "msr-vtt": ("videodatainfo.json", json.dumps(MSR_VTT)),
    "elan": ("rec.eaf", ELAN),
    "cvat": ("annotations.xml", CVAT),
    "kinetics": ("val.csv", KINETICS),
    "list": ("list.txt", MMACTION_LIST),
    "native": ("labels.csv", NATIVE),
    "boris": ("cage.csv", BORIS_TABULAR),
    "boris: preface": ("cage.tsv", BORIS_PREFACE),
    "boris: aggregated": ("cage.csv", BORIS_AGGREGATED),
    "boris: project": ("lab.boris", json.dumps(BORIS_PROJECT)),
    "activitynet: youcook2": ("youcookii.json", json.dumps(YOUCOOK2)),
    "activitynet: coin": ("COIN.json", json.dumps(COIN)),
    "qvhighlights": ("highlight_train_release.jsonl", QVHIGHLIGHTS),
    "charades": ("Charades_v1_train.csv", CHARADES),
    "charades: sentences": ("charades_sta_train.txt", CHARADES_STA),
    "losslesscut": ("yard.csv", LOSSLESSCUT),
    "subtitles: vtt": ("yard.mp4.vtt", VTT),
    "subtitles: srt": ("yard.srt", SRT),
    "via": ("via_project.json", json.dumps(VIA)),
    "via: table": ("via.csv", VIA_TABLE),
    "fiftyone": ("labels.json", json.dumps(FIFTYONE)),
    "frame-labels": ("P03_cereals.txt", FRAME_LABELS),
    "frame-labels: segments": ("P03_cereals.txt", SEGMENT_LABELS),
    "frame-labels: table": ("mouse1_labels.csv", BEHAVIOR_TABLE),
    "frame-labels: simba": ("Together_1.csv", SIMBA_TABLE),
    "native: array": ("labels.json", json.dumps(NATIVE_ARRAY)),
}


def write(folder: Path, name: str, content: Any, videos: str = "") -> Path:
    """A file in `folder`, JSON unless it is text, and empty videos, several divided by `|`."""
    folder.mkdir(parents=True, exist_ok=True)
    for video in filter(None, videos.split("|")):
        (folder / video).parent.mkdir(parents=True, exist_ok=True)
        (folder / video).touch()
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path

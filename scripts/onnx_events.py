"""Events of a recording by an exported model, with ONNX Runtime and NumPy alone: onnx_events.py MODEL.onnx F.npz.

The model is one of timed events that reads forwards. Where vidgru is, two lines make the features of a recording in a
cache, of the key that its index tells:

    f = vidgru.compute_features(vidgru.SequenceCache("features").read(key))
    numpy.savez("f.npz", objects=f.objects, counts=numpy.diff(f.offsets), frame=f.frame, time_s=f.time_s)

Frames are read as a stream, 64 at once. The events are those of `vidgru predict`, but for two refinements: an event as
long as a very short recording may be shorter than `min_s` there, and none ends after its recording.
"""

import json
import sys

import numpy as np
import onnxruntime

if len(sys.argv) != 3:
    sys.exit(__doc__)
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
facts = json.loads(session.get_modelmeta().custom_metadata_map["vidgru"])
if "frame_scores" not in [one.name for one in session.get_outputs()]:
    sys.exit(f"{sys.argv[1]} is not a model of timed events")
if facts["architecture"]["bidirectional"]:
    sys.exit(f"{sys.argv[1]} reads backwards too, and cannot be read as a stream")
labels, lookahead, settings, step_s = (
    facts["task"]["labels"],
    facts["lookahead"],
    facts["decode"],
    1 / facts["feature_settings"]["fps"],
)

# Scores, as frames come. Those of the last frames are read behind the end, which the mask says.
data = np.load(sys.argv[2])
time_s, ends = data["time_s"], np.cumsum(np.pad(data["counts"], (1, lookahead)))
counts, frame = np.pad(data["counts"], (0, lookahead)), np.pad(data["frame"], ((0, lookahead), (0, 0)))
state = {i.name: np.zeros((i.shape[0], 1, i.shape[2]), np.float32) for i in session.get_inputs()[4:]}
scores = []
for some in np.split(np.arange(len(counts)), range(64, len(counts), 64)):
    objects = data["objects"][ends[some[0]] : ends[some[-1] + 1]]
    inputs = {"objects": objects, "counts": counts[None, some], "frame": frame[None, some]}
    outputs = ["frame_scores", *(f"next_{name}" for name in state)]
    found, *after = session.run(outputs, inputs | {"mask": some[None] < len(time_s)} | state)
    scores.append(found[0])
    state = dict(zip(state, after, strict=True))
values = np.concatenate(scores)[lookahead:, : len(labels)]

# Events: smoothed scores that stay above `low` and reach `high`, near ones joined, short ones left out.
first, stop = (np.searchsorted(time_s, time_s + side * (settings["smooth_s"] / 2 + 1e-6)) for side in (-1, 1))
sums = np.cumsum(np.pad(values, ((1, 0), (0, 0))), axis=0, dtype=np.float64)
values = ((sums[stop] - sums[first]) / (stop - first)[:, None]).astype(np.float32)
until_s = np.append(time_s[1:], time_s[-1] + step_s)
until_s = np.where(until_s - time_s > 2 * step_s, time_s + step_s, until_s)
runs = []
for label in range(len(labels)):
    keeps = values[:, label] >= np.float32(settings["low"][label])
    if settings["exclusive"]:
        keeps &= values.argmax(axis=1) == label
    for a, b in np.flatnonzero(np.diff(keeps, prepend=False, append=False)).reshape(-1, 2):
        if values[a:b, label].max() >= np.float32(settings["high"][label]):
            runs.append([a, b, label])
events: list[list[int]] = []
for a, b, label in sorted(runs):
    before = events[-1:] if settings["exclusive"] else [one for one in events if one[2] == label][-1:]
    if before and before[0][2] == label and time_s[a] - until_s[before[0][1] - 1] <= settings["merge_s"]:
        before[0][1] = b
    else:
        events.append([a, b, label])
for a, b, label in events:
    if until_s[b - 1] - time_s[a] >= settings["min_s"]:
        print(f"{labels[label]},{time_s[a]:.3f},{until_s[b - 1]:.3f},{values[a:b, label].mean(dtype=np.float64):.4f}")

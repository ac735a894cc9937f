"""Detect events with an exported model, ONNX Runtime and NumPy only: onnx_events.py MODEL.onnx FEATURES.npz.

The model needs a frame head and must not be bidirectional. Where vidgru is installed, this writes the features of a
recording from a cache, and the summaries of its frames if the model has a linear path:

    from vidgru.model.onnx_export import summary_inputs
    model, cache = vidgru.load_model("runs/train"), vidgru.SequenceCache("features")
    f = vidgru.compute_features(cache.read(cache.last_entry(Path("recordings/a.mp4")).key))
    arrays = {"objects": f.objects, "counts": numpy.diff(f.offsets), "frame": f.frame, "time_s": f.time_s}
    numpy.savez("f.npz", **arrays, **summary_inputs(model, f))

Frames are read as a stream, 64 at a time. Prints one line per event: label, start, end, score. The events are those of
`vidgru predict` with two exceptions: events that cover a very short recording may be shorter than `min_s` there, and no
event ends after its recording.
"""

import json
import sys

import numpy as np
import onnxruntime

STATES = "state", "cell"
if len(sys.argv) != 3:
    sys.exit(__doc__)
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
metadata = json.loads(session.get_modelmeta().custom_metadata_map["vidgru"])
if "frame_scores" not in [output.name for output in session.get_outputs()]:
    sys.exit(f"{sys.argv[1]} has no frame head")
if metadata["architecture"]["bidirectional"]:
    sys.exit(f"{sys.argv[1]} is bidirectional and cannot read a stream")
labels, settings = metadata["task"]["labels"], metadata["decode"]
lookahead, step_s = metadata["lookahead"], 1 / metadata["feature_settings"]["fps"]

# Score frames chunk by chunk. The scores of the last frames come from masked steps after the end.
data = np.load(sys.argv[2])
time_s, ends = data["time_s"], np.cumsum(np.pad(data["counts"], (1, lookahead)))
counts, frame = np.pad(data["counts"], (0, lookahead)), np.pad(data["frame"], ((0, lookahead), (0, 0)))
shapes = {value.name: value.shape for value in session.get_inputs()}
state = {name: np.zeros((shape[0], 1, shape[2]), np.float32) for name, shape in shapes.items() if name in STATES}
unused = {name: np.zeros((1, shape[1]), np.float32) for name, shape in shapes.items() if name == "clip_summaries"}
if "frame_summaries" in shapes and "frame_summaries" not in data:
    sys.exit(
        f"{sys.argv[1]} reads summaries of frames, and {sys.argv[2]} has none; write both as this script's help says"
    )
scores = []
for chunk in np.split(np.arange(len(counts)), range(64, len(counts), 64)):
    objects = data["objects"][ends[chunk[0]] : ends[chunk[-1] + 1]]
    inputs = {"objects": objects, "counts": counts[None, chunk], "frame": frame[None, chunk]}
    inputs |= {"mask": chunk[None] < len(time_s)} | state | unused
    if "frame_summaries" in shapes:
        inputs["frame_summaries"] = data["frame_summaries"][:, chunk]
    outputs = ["frame_scores", *(f"next_{name}" for name in state)]
    chunk_scores, *next_states = session.run(outputs, inputs)
    scores.append(chunk_scores[0])
    state = dict(zip(state, next_states, strict=True))
values = np.concatenate(scores)[lookahead:, : len(labels)]

# Decode events: smoothed scores that stay above `low` and reach `high`; close events are merged, short ones dropped.
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
    previous = events[-1:] if settings["exclusive"] else [event for event in events if event[2] == label][-1:]
    if previous and previous[0][2] == label and time_s[a] - until_s[previous[0][1] - 1] <= settings["merge_s"]:
        previous[0][1] = b
    else:
        events.append([a, b, label])
for a, b, label in events:
    if until_s[b - 1] - time_s[a] >= settings["min_s"]:
        mean = np.clip(values[a:b, label].mean(dtype=np.float64), 1e-6, 1 - 1e-6)
        score = 1 / (1 + np.exp(-settings["event_scale"] * np.log(mean / (1 - mean)) - settings["event_bias"]))
        start_s, end_s = time_s[a], until_s[b - 1]
        if settings["start_trim_s"]:  # where annotators count less as part of an event than the scores do
            start_s += min(settings["start_trim_s"][label], max(settings["min_s"] - step_s, 0))
            end_s = max(end_s - settings["end_trim_s"][label], min(start_s + step_s, end_s))
        print(f"{labels[label]},{start_s:.3f},{end_s:.3f},{score:.4f}")

// Scores become events by the rule of vidgru/model/event_decoder.py. This file needs no other and no browser, so that a
// test can compare the two.

const WHOLE_RECORDING = 0.99; // share of the recording that an event too short otherwise must cover
const MIN_SCORE = 1e-6; // of a mean score, and 1 minus its maximum, because 0 and 1 have no logits
const LOW_RATIO = 0.8; // of the lower to the upper threshold, if the upper threshold is 0

// Lower threshold that belongs to a new upper one.
function lowerThreshold(value, high, low) {
  return value === high ? low : Math.round(value * (high ? low / high : LOW_RATIO) * 1e4) / 1e4;
}

// Centred moving average over `seconds` of a label's scores, a Float32Array.
function smoothScores(times, scores, seconds) {
  if (seconds <= 0) return scores;
  const smoothed = new Float32Array(times.length);
  let first = 0;
  let stop = 0;
  for (let t = 0; t < times.length; t++) {
    while (times[first] < times[t] - seconds / 2 - 1e-6) first++;
    while (stop < times.length && times[stop] <= times[t] + seconds / 2 + 1e-6) stop++;
    let sum = 0;
    for (let i = first; i < stop; i++) sum += scores[i];
    smoothed[t] = sum / (stop - first);
  }
  return smoothed;
}

// End of each frame: the next frame or, before a gap, one step later.
function frameEnds(times, { step, end }) {
  const last = times[times.length - 1];
  return times.map((time, t) => {
    const next = t + 1 < times.length ? times[t + 1] : Math.min(last + step, Math.max(end, last + 1e-3));
    return next - time > 2 * step ? time + step : next;
  });
}

// Runs of frames in which a label keeps its lower threshold, if they reach the upper one; by their ends.
function activeRuns(smoothed, high, low, exclusive) {
  const runs = [];
  const frames = smoothed[0].length;
  const best = new Int32Array(exclusive ? frames : 0);
  best.forEach((_, t) => smoothed.forEach((scores, label) => { if (scores[t] > smoothed[best[t]][t]) best[t] = label; }));
  smoothed.forEach((scores, label) => {
    const [upper, lower] = [Math.fround(high[label]), Math.fround(low[label])];
    let run = null;
    for (let t = 0; t <= frames; t++) {
      const keeps = t < frames && scores[t] >= lower && (!exclusive || best[t] === label);
      if (keeps) {
        run ??= { label, first: t, stop: t, active: false };
        run.stop = t + 1;
        run.active ||= scores[t] >= upper;
      } else if (run) {
        if (run.active) runs.push(run);
        run = null;
      }
    }
  });
  return runs.sort((a, b) => a.stop - b.stop || a.first - b.first || a.label - b.label);
}

// Events of a whole recording: { label, start, end, score }, by start, then by label.
//
// `smoothed` has an array per label. `rule` has `high` and `low` per label, `exclusive`, `minimum` and `merge` in seconds,
// `startTrim` and `endTrim` in seconds per label or empty, `scale` and `bias` of the calibration, `step` between samples,
// and `end` of the recording.
function decodeEvents(times, smoothed, rule) {
  if (!times.length) return [];
  const ends = frameEnds(times, rule);
  const closed = [];
  const open = smoothed.map(() => null);
  const close = (label) => {
    if (open[label]) closed.push(open[label]);
    open[label] = null;
  };
  for (const run of activeRuns(smoothed, rule.high, rule.low, rule.exclusive)) {
    const { label } = run;
    if (rule.exclusive) open.forEach((_, other) => other !== label && close(other));
    if (open[label] && times[run.first] - ends[open[label].stop - 1] > rule.merge) close(label);
    open[label] ??= { ...run };
    open[label].stop = run.stop;
  }
  open.forEach((_, label) => close(label));
  const whole = WHOLE_RECORDING * (ends[ends.length - 1] - times[0]);
  const isLong = ({ first, stop }) => ends[stop - 1] - times[first] >= Math.min(rule.minimum, whole);
  const events = closed.filter(isLong).map(({ label, first, stop }) => ({
    label,
    ...trimEvent(label, times[first], ends[stop - 1], rule),
    score: eventScore(smoothed[label].subarray(first, stop), rule),
  }));
  return events.sort((a, b) => a.start - b.start || a.label - b.label);
}

// Start and end of an event after trimming; at least `step` of it stays.
function trimEvent(label, start, end, { startTrim, endTrim, minimum, step }) {
  if (!startTrim.length) return { start, end };
  const trimmed = start + Math.min(startTrim[label], Math.max(Math.min(minimum, end - start) - step, 0));
  return { start: trimmed, end: Math.max(end - endTrim[label], Math.min(trimmed + step, end)) };
}

// Mean score of an event's frames, calibrated.
function eventScore(scores, { scale, bias }) {
  const mean = scores.reduce((sum, score) => sum + score, 0) / scores.length;
  if (scale === 1 && bias === 0) return Math.min(Math.max(mean, 0), 1);
  const inside = Math.min(Math.max(mean, MIN_SCORE), 1 - MIN_SCORE);
  return 1 / (1 + Math.exp(-scale * Math.log(inside / (1 - inside)) - bias));
}

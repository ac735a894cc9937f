"""The pages find events by the rule of the event decoder: the script is compared with it."""

import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.model.test_event_decoder import LABELS, random_recording
from vidgru.model.event_decoder import decode_events
from vidgru.prediction.report import html

NODE = shutil.which("node")
CASES = 200
RUN = """
const run = (cases) => cases.map(({ times, scores, smooth, high, rule }) => {
  const seconds = Float64Array.from(times);
  const smoothed = scores.map((row) => smoothScores(seconds, Float32Array.from(row), smooth));
  rule.low = rule.high.map((value, label) => lowerThreshold(value, high[label], rule.low[label]));
  return decodeEvents(seconds, smoothed, rule).map(({ label, start, end, score }) => [label, start, end, score]);
});
"""
SCRIPT = (Path(html.__file__).parent / "web/decode.js").read_text(encoding="utf-8") + RUN


def cases() -> tuple[list[Any], list[Any]]:
    """Inputs of the script, and the events that the decoder finds in them."""
    rng, inputs, expected = np.random.default_rng(0), [], []
    for _ in range(CASES):
        time_s, scores, config, end_s = random_recording(rng)
        config = replace(config, event_scale=float(rng.choice([0.5, 1.0])), event_bias=float(rng.choice([0.0, -0.3])))
        changed = config.with_high([float(rng.choice([value, 0.37, 0.6])) for value in config.high])
        events = decode_events(time_s, scores, LABELS, changed, video="", step_s=0.125, end_s=end_s)
        expected.append([[LABELS.index(e.label), e.start_s, e.end_s, pytest.approx(e.score, abs=1e-6)] for e in events])
        rule = {"high": changed.high, "low": config.low, "exclusive": config.exclusive, "minimum": config.min_s}
        rule |= {"merge": config.merge_s, "scale": config.event_scale, "bias": config.event_bias}
        rule |= {"startTrim": config.start_trim_s, "endTrim": config.end_trim_s}
        rule |= {"step": 0.125, "end": end_s}
        values = {"times": time_s.tolist(), "scores": scores.T.tolist(), "smooth": config.smooth_s, "high": config.high}
        inputs.append({**values, "rule": rule})
    assert sum(map(len, expected)) > CASES
    return inputs, expected


@pytest.mark.skipif(NODE is None, reason="node is not installed")
def test_script_finds_the_events_of_the_decoder() -> None:
    inputs, expected = cases()
    script = f"{SCRIPT}console.log(JSON.stringify(run(JSON.parse(require('fs').readFileSync(0, 'utf8')))));"
    result = subprocess.run([NODE or "", "-e", script], input=json.dumps(inputs), capture_output=True, text=True)
    assert result.stderr == ""
    assert json.loads(result.stdout) == expected


@pytest.mark.slow
def test_script_finds_the_same_events_in_a_browser(chromium: Any) -> None:
    inputs, expected = cases()
    page = chromium.new_page()
    assert page.evaluate(f"(inputs) => {{ {SCRIPT} return run(inputs); }}", inputs) == expected
    page.close()

"""The graph that writes sentences, held against PyTorch."""

import numpy as np
import pytest
import torch

from tests.model.graphs import Graph
from tests.model.networks import make_model, random_batch
from tests.sequences import make_sequence
from vidgru.model.captioner import Stretch, describe
from vidgru.model.checkpoint import EventModel
from vidgru.model.features import compute_features
from vidgru.model.onnx_export import events_graph
from vidgru.model.onnx_export_captions import captions_graph
from vidgru.types import Features

SEQUENCE = make_sequence(60)
SENTENCES = ("A person falls.", "Zwei Personen gehen über die Straße.", "人が転ぶ \N{GRINNING FACE}")
OBJECTS = ("geometry", "score", "class", "speed", "motion", "relations", "appearance", "colour")
MODELS = {
    "gru": make_model(SEQUENCE, timed=True, sentences=SENTENCES),
    "lstm": make_model(SEQUENCE, timed=True, cell="lstm", layers=2, sentences=SENTENCES),
    "both ways": make_model(SEQUENCE, bidirectional=True, sentences=SENTENCES),
    "only describes": make_model(SEQUENCE, clips=False, cell="none", sentences=SENTENCES),
    "no objects": make_model(SEQUENCE, drop_features=OBJECTS, sentences=SENTENCES),
}
GRAPHS = {kind: (Graph(events_graph(model)), Graph(captions_graph(model))) for kind, model in MODELS.items()}


@pytest.mark.parametrize("kind", MODELS)
def test_logits_are_those_of_pytorch(kind: str) -> None:
    (events, captions), network = GRAPHS[kind], MODELS[kind].network
    for clips, steps, most in ((1, 1, 3), (1, 40, 0), (4, 9, 3), (7, 33, 5)):
        batch = random_batch(network.feature_spec, clips, steps, most, seed=steps)
        seen = events.read(batch)
        given = {"hidden": seen["hidden"], "mask": batch[3].numpy()}
        if kind != "no objects":
            given |= {"seen": seen["seen"], "counts": batch[1].numpy()}
        for sentences, length in ((1, 1), (3, 5)):
            words = torch.randint(0, network.caption_head.words, (clips * sentences, length))
            with torch.inference_mode():
                wanted = network.caption_head(network.recall(*batch), words).numpy()
            found = captions.run(**given, words=words.numpy())["logits"]
            np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-4)
    assert ("seen" in captions.inputs) == (kind != "no objects")


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("label", ["fall", "walk", ""])
def test_greedy_sentences_are_the_models(kind: str, label: str) -> None:
    model = MODELS[kind]
    stretches = [compute_features(SEQUENCE).frames(first, first + 12) for first in (0, 12, 30)]
    wanted = describe(model, [Stretch(features=some, label=label) for some in stretches], beam=1)
    told = [written(model, kind, some, label) for some in stretches]
    assert [text for text, _ in told] == [one.text for one in wanted]
    np.testing.assert_allclose([score for _, score in told], [one.score for one in wanted], rtol=0, atol=1e-4)
    assert any(text for text, _ in told)


def written(model: EventModel, kind: str, features: Features, label: str) -> tuple[str, float]:
    """A sentence and its score, by what the graphs and their metadata alone say."""
    events, captions = GRAPHS[kind]
    facts = captions.facts
    steps = len(features)
    mask, counts = np.ones((1, steps), np.bool_), np.diff(features.offsets)[None]
    batch = torch.from_numpy(features.objects), torch.from_numpy(counts), torch.from_numpy(features.frame[None])
    seen = events.read((*batch, torch.from_numpy(mask)))
    given = {"hidden": seen["hidden"], "mask": mask, "seen": seen.get("seen"), "counts": counts}
    given = {name: value for name, value in given.items() if name in captions.inputs}
    words, total = [facts["first"].get(label, facts["start"])], 0.0
    while words[-1] != facts["end"]:
        logits = captions.run(**given, words=np.array([words]))["logits"][0, -1]
        logits[[facts["start"], facts["pad"]]] = -np.inf
        words.append(int(logits.argmax()) if len(words) <= facts["longest"] else facts["end"])
        total += logits[words[-1]] - np.logaddexp.reduce(logits)
    text = b"".join(facts["words"][word].encode("latin-1") for word in words[1:]).decode("utf-8", "replace")
    return text.strip(), float(np.exp(total / (len(words) - 1)))


def test_the_facts_are_the_models() -> None:
    facts, model = GRAPHS["gru"][1].facts, MODELS["gru"]
    assert facts["first"] == {"fall": len(model.caption.tokenizer)}
    assert facts["longest"] == model.caption.longest
    assert facts["threshold"] == model.caption.threshold
    assert len(facts["words"]) == len(model.caption.tokenizer)


def test_a_model_that_does_not_describe_has_no_such_graph() -> None:
    with pytest.raises(ValueError, match="writes no descriptions"):
        captions_graph(make_model(SEQUENCE))

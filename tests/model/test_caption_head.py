"""The head for descriptions: what it writes depends on the event alone, and is the best that there is to say."""

import itertools

import pytest
import torch
from torch import Tensor

from tests.model.networks import Inputs, diversify_captions, frames_of, make_network, random_batch, segment
from tests.sequences import make_sequence
from vidgru.model.caption_head import _LENGTH_POWER, CaptionHead
from vidgru.model.event_gru import EventGRU
from vidgru.model.feature_spec import FeatureSpec
from vidgru.model.tokenizer import Tokenizer

SEQUENCE = make_sequence(80, seed=27)
LAYOUT = FeatureSpec.from_sequence(SEQUENCE)
OBJECT_GROUPS = tuple(LAYOUT.object_groups())
WORDS, LABELS, MOST = 9, 2, 7
PLAIN = range(3, WORDS)  # words that are no specials
BLIND = {"drop_features": OBJECT_GROUPS}
SHAPES = [{}, BLIND, {"cell": "lstm"}, {"cell": "none"}, {"bidirectional": True}]


def make(words: int = WORDS, **shape: object) -> EventGRU:
    network = make_network(SEQUENCE, words=words, labels=LABELS, seed=2, **shape)
    diversify_captions(network, SEQUENCE, [Tokenizer.END, *range(3, words)])
    return network


NETWORK = make()


def head_of(network: EventGRU) -> CaptionHead:
    assert network.caption_head is not None
    return network.caption_head


def with_quiet_frames(batch: Inputs) -> Inputs:
    """The second clip without an object, the third without one in every other frame."""
    _, counts, frame, mask = batch
    captions = frames_of(batch)
    counts = counts.clone()
    counts[1] = 0
    counts[2, ::2] = 0
    kept = [candidate for row, single in enumerate(captions) for t, candidate in enumerate(single) if counts[row, t]]
    return torch.cat(kept), counts, frame, mask


BATCH = with_quiet_frames(random_batch(LAYOUT, clips=6, steps=9, seed=1))
FIRST = torch.tensor([Tokenizer.START, WORDS, WORDS + 1, Tokenizer.START, WORDS, WORDS + 1])


def select_event(batch: Inputs, row: int) -> Inputs:
    return segment(batch, row, int(batch[3][row].sum()))


@torch.inference_mode()
def write(network: EventGRU, batch: Inputs, first: Tensor, *, beam: int = 4, most: int = MOST) -> tuple[list, Tensor]:
    return head_of(network).write(network.caption_memory(*batch), first, beam=beam, most=most)


@torch.inference_mode()
def log_probabilities(network: EventGRU, batch: Inputs, first: int, sentence: list[int]) -> Tensor:
    """Of a sentence's words and of its end, teacher forced; START and PAD are never said."""
    words = torch.tensor([[first, *sentence, Tokenizer.END]])
    logits = network.caption_logits(*batch, words)[0]
    logits[:, [Tokenizer.START, Tokenizer.PAD]] = -torch.inf
    return logits.log_softmax(dim=1).gather(1, words[0, 1:, None])[:, 0]


def ranking_score(each: Tensor) -> float:
    """What sentences are held against each other by."""
    return float(each.sum()) / len(each) ** _LENGTH_POWER


@pytest.mark.parametrize("shape", SHAPES)
def test_captions_are_independent_of_batch(shape: dict[str, object]) -> None:
    network = make(**shape)
    rng = torch.Generator().manual_seed(2)
    words = torch.cat([FIRST[:, None], torch.randint(3, WORDS, (6, 5), generator=rng)], dim=1)
    with torch.inference_mode():
        together = network.caption_logits(*BATCH, words)
    sentences, means = write(network, BATCH, FIRST)
    assert len({tuple(sentence) for sentence in sentences}) > 2, "a test of sentences needs different ones"
    for row in range(6):
        single = select_event(BATCH, row)
        with torch.inference_mode():
            torch.testing.assert_close(
                network.caption_logits(*single, words[row : row + 1])[0], together[row], rtol=0, atol=1e-4
            )
        (sentence,), mean = write(network, single, FIRST[row : row + 1])
        assert sentence == sentences[row]
        assert float(mean) == pytest.approx(float(means[row]), abs=1e-4)


def test_forward_several_captions_per_event() -> None:
    words = torch.cat([FIRST.repeat_interleave(3)[:, None], torch.randint(3, WORDS, (18, 4))], dim=1)
    with torch.inference_mode():
        together = head_of(NETWORK)(NETWORK.caption_memory(*BATCH), words)
        assert together.shape == (18, 5, WORDS)
        for number in range(18):
            (single,) = head_of(NETWORK)(
                NETWORK.caption_memory(*select_event(BATCH, number // 3)), words[number : number + 1]
            )
            torch.testing.assert_close(together[number], single, rtol=0, atol=1e-4)


def test_write_ignores_padding() -> None:
    objects, counts, frame, mask = BATCH
    spoilt = torch.where(mask[..., None], frame, 7.0)
    sentences, means = write(NETWORK, BATCH, FIRST)
    again, others = write(NETWORK, (objects, counts, spoilt, mask), FIRST)
    assert again == sentences
    assert torch.equal(means, others)


def test_logits_depend_on_steps_and_objects() -> None:
    objects, counts, frame, mask = select_event(BATCH, 0)
    words, head = torch.tensor([[WORDS, 3, 4]]), head_of(NETWORK)
    with torch.inference_mode():
        vectors, _, object_rows = NETWORK.encoder(objects, counts, frame)
        hidden, _ = NETWORK.run_rnn(vectors, mask)
        plain = head(head.memory(hidden[0], mask, object_rows[0], counts), words)
        other_objects = head(head.memory(hidden[0], mask, object_rows[0].flip(0), counts), words)
        other_steps = head(head.memory(hidden[0].flip(1), mask, object_rows[0], counts), words)
    torch.testing.assert_close(
        plain, NETWORK.caption_logits(objects, counts, frame, mask, torch.tensor([[WORDS, 3, 4, 5]]))
    )
    assert (other_objects - plain).abs().max() > 0.01, "objects are told together with their steps"
    assert (other_steps - plain).abs().max() > 0.01, "steps are told together with their places in the event"


@pytest.mark.parametrize("row", range(6))
def test_write_beam_of_one_is_greedy(row: int) -> None:
    single, first = select_event(BATCH, row), FIRST[row : row + 1]
    greedy: list[int] = []
    while len(greedy) < MOST:
        with torch.no_grad():
            logits = NETWORK.caption_logits(*single, torch.tensor([[int(first), *greedy, Tokenizer.END]]))[0, -1]
        logits[[Tokenizer.START, Tokenizer.PAD]] = -torch.inf
        word = int(logits.argmax())
        if word == Tokenizer.END:
            break
        greedy.append(word)
    assert write(NETWORK, single, first, beam=1)[0] == [greedy]


@pytest.mark.parametrize("most", [1, 2, MOST])
@pytest.mark.parametrize("beam", [1, 4])
def test_write_score_equals_teacher_forcing(beam: int, most: int) -> None:
    """Also where there was no room for the end: that a sentence was cut off is nothing to be sure of."""
    sentences, means = write(NETWORK, BATCH, FIRST, beam=beam, most=most)
    assert max(map(len, sentences)) == most
    for row, sentence in enumerate(sentences):
        each = log_probabilities(NETWORK, select_event(BATCH, row), int(FIRST[row]), sentence)
        assert float(means[row]) == pytest.approx(float(each.mean()), abs=1e-5)


def test_write_wider_beams_score_higher() -> None:
    batch = random_batch(LAYOUT, clips=40, steps=9, seed=5)
    first = torch.full((40,), Tokenizer.START)
    captions_by_beam = [write(NETWORK, batch, first, beam=beam)[0] for beam in (1, 4, 16)]
    one, four, sixteen = (
        [
            ranking_score(log_probabilities(NETWORK, select_event(batch, row), Tokenizer.START, sentence))
            for row, sentence in enumerate(captions)
        ]
        for captions in captions_by_beam
    )
    assert sum(four) > sum(one)
    assert sum(sixteen) > sum(four)
    assert all(b >= a - 1e-5 for a, b in zip(one, sixteen, strict=True))
    assert len({tuple(sentence) for sentence in captions_by_beam[1]}) > 10


@pytest.mark.parametrize("most", [1, 2, 3])
def test_write_exhaustive_beam_finds_the_best(most: int) -> None:
    network = make(words=6)
    batch = random_batch(LAYOUT, clips=6, steps=5, seed=7)
    first = torch.tensor([6, 7, Tokenizer.START] * 2)
    every = [list(captions) for length in range(most + 1) for captions in itertools.product((3, 4, 5), repeat=length)]
    sentences, means = write(network, batch, first, beam=3 ** (most + 1), most=most)
    for row, sentence in enumerate(sentences):
        each = [log_probabilities(network, select_event(batch, row), int(first[row]), candidate) for candidate in every]
        best = max(range(len(every)), key=lambda index: ranking_score(each[index]))
        assert sentence == every[best]
        assert float(means[row]) == pytest.approx(float(each[best].mean()), abs=1e-5)


def test_write_normalizes_length() -> None:
    """By the plain sum of log probabilities the shortest would be the best where words are hard to foresee."""
    network = make()
    with torch.no_grad():
        head_of(network).bias.zero_()
        head_of(network).join[0].weight.zero_()
        head_of(network).join[0].bias.zero_()
        head_of(network).bias[3] = 6.0
        head_of(network).bias[Tokenizer.END] = 4.5
    (sentence,), _ = write(network, select_event(BATCH, 0), FIRST[:1], beam=8, most=12)
    assert len(sentence) > 1


def test_write_never_uses_special_tokens() -> None:
    network = make()
    with torch.no_grad():
        head_of(network).bias[[Tokenizer.START, Tokenizer.PAD]] = 50.0
        head_of(network).bias[Tokenizer.END] = -50.0
    for beam in (1, 5):
        sentences, means = write(network, BATCH, FIRST, beam=beam, most=4)
        assert all(len(sentence) == 4 and set(sentence) <= set(PLAIN) for sentence in sentences)
        assert torch.isfinite(means).all()


def test_write_captions_of_different_lengths() -> None:
    batch = random_batch(LAYOUT, clips=40, steps=9, seed=5)
    sentences, _ = write(NETWORK, batch, torch.full((40,), Tokenizer.START), most=12)
    assert len({len(sentence) for sentence in sentences}) > 1
    assert all(set(sentence) <= set(PLAIN) for sentence in sentences)


def test_logits_depend_on_label() -> None:
    """Of overlapping events each has a sentence of its own."""
    single = select_event(BATCH, 0)
    logits_by_label = []
    for first in (Tokenizer.START, WORDS, WORDS + 1):
        with torch.inference_mode():
            logits_by_label.append(NETWORK.caption_logits(*single, torch.tensor([[first, 3, 4]]))[0, 0])
    for candidate, other in itertools.combinations(logits_by_label, 2):
        assert (candidate - other).abs().max() > 0.01
    assert logits_by_label[0].shape == (WORDS,), "a label is no word"


def test_caption_memory_requires_caption_head() -> None:
    with pytest.raises(ValueError, match="the network has no caption head"):
        make_network(SEQUENCE).caption_memory(*BATCH)


def test_all_parameters_have_gradients() -> None:
    network = make().train()
    words = torch.cat([FIRST[:, None], torch.randint(3, WORDS, (6, 5))], dim=1)
    network.caption_logits(*BATCH, words).square().sum().backward()
    for name, parameter in head_of(network).named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
        assert torch.isfinite(parameter.grad).all(), name

"""What writes descriptions, as a second ONNX graph: of an event and the words so far, the logits of the next words.

| input | dtype, shape | |
|---|---|---|
| `hidden` | float32 [B,T,H] | of B events, each read from an empty state by the first graph |
| `mask` | bool [B,T] | as there |
| `seen` | float32 [M,N] | as there; missing where the model looks at no objects |
| `counts` | int64 [B,T] | as there; missing with `seen` |
| `words` | int64 [B * n,L] | n sentences on the first event, as many on the next, and so on |

The output `logits`, float32 [B * n,L,V], is of the word behind each. All axes but H, N and V vary. A sentence is
written by giving its beginning again with the word chosen: the one of the highest logit, `start` and `pad` left out,
until it is `end`, or until `longest` words are written.

Metadata, JSON under the key `vidgru`: `words`, the bytes of each id as a string of characters below 256 (join them,
decode as UTF-8, cut the space in front); `start`, `end`, `pad`, ids of no text; `first`, the id that begins a sentence
on an event of a label, and `start` for all others; `longest`; `threshold`: a sentence is worth telling if the geometric
mean of the probabilities of its words and of its end reaches it.
"""

from __future__ import annotations

from typing import cast

import numpy as np
from torch import nn

from vidgru.model.caption_head import HEADS, WIDTH, CaptionHead
from vidgru.model.checkpoint import EventModel
from vidgru.model.onnx_graph import GraphWriter, ints, numbers, recurrent_weights
from vidgru.model.tokenizer import Tokenizer
from vidgru.types import Array

_EACH = WIDTH // HEADS


def captions_graph(model: EventModel) -> bytes:
    """The second graph.

    Raises:
        ValueError: the model writes no descriptions.
        ModelError: the model's weights are not at hand: it is an exported one.
        MissingDependencyError: the package `onnx` is not installed.
    """
    network, facts = model.torch_network, model.caption
    head = network.caption_head
    if head is None or facts is None:
        raise ValueError("the model writes no descriptions")
    graph = GraphWriter("vidgru captions")
    hidden = graph.input("hidden", np.float32, ["batch", "time", network.hidden_width])
    mask = graph.input("mask", np.bool_, ["batch", "time"])
    objects = counts = ""
    if head.sees_objects:
        objects = graph.input("seen", np.float32, ["objects", network.encoder.object_width])
        counts = graph.input("counts", np.int64, ["batch", "time"])
    words = graph.input("words", np.int64, ["sentences", "length"])
    share = graph.add("Unsqueeze", graph.cast(mask, np.float32), ints(2))
    lengths = graph.add("Max", graph.add("ReduceSum", share, ints(1), keepdims=0), 1.0)  # [B,1]
    place = _place(graph, head, mask, lengths)
    steps = graph.add("Add", graph.linear(hidden, head.step), place)
    memories = [(head.ask_steps, *_with_first(graph, steps, mask, numbers(head.no_step)))]
    if head.sees_objects:
        padded, there = _objects(graph, head, hidden, place, objects, counts)
        memories.append((head.ask_objects, *_with_first(graph, padded, there, numbers(head.no_object))))
    mean = graph.add("Div", graph.add("ReduceSum", graph.add("Mul", hidden, share), ints(1), keepdims=0), lengths)
    start = graph.add("Tanh", graph.linear(mean, head.begin))
    states = _states(graph, head, words, start)
    answers = [_ask(graph, graph.linear(states, ask), memory, there) for ask, memory, there in memories]
    joined = graph.add("Relu", graph.linear(graph.add("Concat", states, *answers, axis=2), _first(head.join)))
    logits = graph.add("MatMul", joined, numbers(head.embed.weight)[: head.words].T)
    shape = graph.size(words, 0), graph.size(words, 1), head.words
    logits = graph.reshape(graph.add("Add", logits, numbers(head.bias)), *shape)
    graph.output("logits", logits, ["sentences", "length", head.words])
    first = {label: head.words + model.labels.index(label) for label in facts.labels}
    return graph.to_bytes(
        {
            "words": [piece.decode("latin-1") for piece in facts.tokenizer.pieces()],
            "start": Tokenizer.START,
            "end": Tokenizer.END,
            "pad": Tokenizer.PAD,
            "first": first,
            "longest": facts.longest,
            "threshold": facts.threshold,
        }
    )


def _place(graph: GraphWriter, head: CaptionHead, mask: str, lengths: str) -> str:
    """How far each step is from the event's begin and end, [B,T,2 * width]."""
    steps = graph.cast(graph.counted(graph.size(mask, 1)), np.float32)
    behind = graph.add("Unsqueeze", graph.add("Div", graph.add("Add", steps, 0.5), lengths), ints(2))
    return graph.linear(graph.add("Concat", behind, graph.add("Sub", 1.0, behind), axis=2), head.place)


def _objects(
    graph: GraphWriter, head: CaptionHead, hidden: str, place: str, objects: str, counts: str
) -> tuple[str, str]:
    """The objects of each event, told with the output at their step: [B,n,2 * width], and which there are [B,n]."""
    _, there = graph.rows(graph.reshape(counts, -1))
    frames = graph.add("Unsqueeze", graph.counted(graph.size(there, 0)), ints(1))
    moment = graph.chosen(graph.add("Expand", frames, graph.add("Shape", there)), there)
    moments = graph.reshape(graph.add("Add", graph.linear(hidden, head.moment), place), -1, 2 * WIDTH)
    linear, norm, _ = head.object
    own = graph.add("Relu", graph.norm(graph.linear(objects, cast(nn.Linear, linear)), cast(nn.LayerNorm, norm)))
    told = graph.add("Add", graph.linear(own, head.told), graph.add("Gather", moments, moment, axis=0))
    told = graph.add("Concat", told, np.zeros((1, 2 * WIDTH), np.float32), axis=0)
    index, there = graph.rows(graph.add("ReduceSum", counts, ints(1), keepdims=0))
    return graph.add("Gather", told, index, axis=0), there


def _with_first(graph: GraphWriter, rows: str, there: str, first: Array) -> tuple[str, str]:
    """[B,N,2 * width] and [B,N] with one row more in front, which is always there."""
    clips = graph.size(there, 0)
    ahead = graph.add("Expand", first[None, None], graph.joined(clips, 1, 2 * WIDTH))
    true = graph.add("Expand", np.ones((1, 1), np.bool_), graph.joined(clips, 1))
    return graph.add("Concat", ahead, rows, axis=1), graph.add("Concat", true, there, axis=1)


def _states(graph: GraphWriter, head: CaptionHead, words: str, start: str) -> str:
    """The decoder's state behind each word, of an event's sentences one after another: [B,n * L,width]."""
    read = graph.add("Mul", graph.add("Gather", numbers(head.embed.weight), words, axis=0), float(WIDTH**0.5))
    clips = graph.size(start, 0)
    each = graph.add("Div", graph.size(words, 0), clips)
    spread = graph.add("Expand", graph.add("Unsqueeze", start, ints(1)), graph.joined(clips, each, WIDTH))
    before = graph.add("Unsqueeze", graph.reshape(spread, -1, WIDTH), ints(0))
    below = graph.add("Transpose", read, perm=[1, 0, 2])
    out = graph.add("GRU", below, *recurrent_weights(head.gru), "", before, hidden_size=WIDTH, linear_before_reset=1)
    states = graph.add("Transpose", graph.add("Squeeze", out, ints(1)), perm=[1, 0, 2])
    return graph.reshape(states, clips, -1, WIDTH)


def _ask(graph: GraphWriter, questions: str, memory: str, there: str) -> str:
    """Answers [B,L,width] to questions [B,L,width]: attention of several heads, keys and values side by side."""
    keys, values = graph.add_many("Split", 2, memory, axis=2, num_outputs=2)
    products = graph.add("MatMul", _heads(graph, questions), _heads(graph, keys, (0, 2, 3, 1)))
    mask = graph.add("Unsqueeze", there, ints(1, 2))
    weights = graph.add("Softmax", graph.masked(graph.add("Mul", products, float(_EACH**-0.5)), mask), axis=3)
    answers = graph.add("Transpose", graph.add("MatMul", weights, _heads(graph, values)), perm=[0, 2, 1, 3])
    return graph.reshape(answers, graph.size(questions, 0), graph.size(questions, 1), WIDTH)


def _heads(graph: GraphWriter, rows: str, order: tuple[int, ...] = (0, 2, 1, 3)) -> str:
    """[B,N,width] as [B,heads,N,width / heads], or with its axes in another order."""
    split = graph.reshape(rows, graph.size(rows, 0), graph.size(rows, 1), HEADS, _EACH)
    return graph.add("Transpose", split, perm=list(order))


def _first(join: nn.Sequential) -> nn.Linear:
    return cast(nn.Linear, join[0])

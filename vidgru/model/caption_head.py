"""Caption head: a GRU decoder that attends to the steps and objects of an event."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vidgru.model.tokenizer import Tokenizer

WIDTH = 128  # of word vectors, of the decoder's state, and of attention
HEADS = 4
_LENGTH_POWER = 0.7  # log probabilities are divided by length ** 0.7, so that long captions can compete


class CaptionMemory(NamedTuple):
    """Keys and values the decoder attends to, [B,heads,N,width / heads] each, with masks.

    Entry 0 is learnt and never masked, so that attention has a target in events without objects.

    Attributes:
        steps: Keys and values of the event's steps.
        step_mask: bool [B,1,1,N], True for steps of the event.
        objects: Keys and values of the objects in all steps; None without object features.
        object_mask: bool [B,1,1,N], True for objects of the event; None without object features.
        start: float32 [1,B,width], initial state of the decoder.
    """

    steps: tuple[Tensor, Tensor]
    step_mask: Tensor
    objects: tuple[Tensor, Tensor] | None
    object_mask: Tensor | None
    start: Tensor


class CaptionHead(nn.Module):
    """GRU decoder with attention over the steps and the objects of an event.

    After every word the state of a GRU over the words so far queries two memories by multihead attention (Vaswani et
    al. 2017): the outputs of the recurrent layer within the event, and the objects detected in it. Each object is
    combined with the output at its step, which links what the object is to when it was there. Input and output words
    share their vectors (Press and Wolf 2017, "Using the Output Embedding to Improve Language Models"). The first input
    is the event's label, or `Tokenizer.START` if it is unknown, so that overlapping events of different labels get
    captions of their own.

    Args:
        words: Size of the vocabulary.
        labels: Number of labels; label i is input as word `words + i`.
        step_width: Width of the recurrent layer's outputs.
        object_width: Width of an object's concatenated group projections; 0 for no attention to objects. The head
            combines them by its own layer, because vectors that separate events need not hold what captions mention.
        dropout: Dropout of input words and before the output layer.
    """

    def __init__(self, words: int, labels: int, *, step_width: int, object_width: int, dropout: float) -> None:
        super().__init__()
        self.words = words
        self.embed = nn.Embedding(words + labels, WIDTH)
        nn.init.normal_(self.embed.weight, std=WIDTH**-0.5)
        self.drop = nn.Dropout(dropout)
        self.gru = nn.GRU(WIDTH, WIDTH, batch_first=True)
        self.start = _linear(step_width, WIDTH)
        self.position = _linear(2, 2 * WIDTH, bias=False)  # of a step: distance from the event's start and end
        self.step_memory = _linear(step_width, 2 * WIDTH)
        self.step_query = _linear(WIDTH, WIDTH)
        self.null_step = nn.Parameter(torch.zeros(2 * WIDTH))
        self.has_objects = object_width > 0
        if self.has_objects:
            self.object = nn.Sequential(_linear(object_width, WIDTH), nn.LayerNorm(WIDTH), nn.ReLU())
            self.object_memory = _linear(WIDTH, 2 * WIDTH)
            self.object_step = _linear(step_width, 2 * WIDTH, bias=False)
            self.object_query = _linear(WIDTH, WIDTH)
            self.null_object = nn.Parameter(torch.zeros(2 * WIDTH))
        self.join = nn.Sequential(nn.Linear((2 + self.has_objects) * WIDTH, WIDTH), nn.ReLU(), nn.Dropout(dropout))
        self.bias = nn.Parameter(torch.zeros(words))

    def memory(self, hidden: Tensor, mask: Tensor, objects: Tensor | None, counts: Tensor) -> CaptionMemory:
        """Compute the keys and values of events.

        Args:
            hidden: float32 [B,T,step_width], outputs of the recurrent layer.
            mask: bool [B,T], True for steps of the event; padding comes last.
            objects: float32 [M,object_width], the objects of all frames, event after event; None without objects.
            counts: int64 [B,T], objects per frame; M in total.
        """
        clips, steps = mask.shape
        lengths = mask.sum(dim=1, keepdim=True).clamp(min=1)
        progress = (torch.arange(steps, device=mask.device) + 0.5) / lengths
        position = self.position(torch.stack([progress, 1 - progress], dim=2))  # [B,T,2 * width]
        mean = (hidden * mask[..., None]).sum(dim=1) / lengths
        start = self.start(mean).tanh()[None]
        step_entries = _prepend(self.step_memory(hidden) + position, self.null_step)
        step_mask = _attention_mask(mask)
        if objects is None:
            return CaptionMemory(_split_keys_values(step_entries), step_mask, None, None, start)
        flat = counts.flatten()
        frame_index = torch.arange(len(flat), device=flat.device).repeat_interleave(flat, output_size=len(objects))
        context = (self.object_step(hidden) + position).flatten(0, 1).index_select(0, frame_index)
        entries = self.object_memory(self.object(objects)) + context
        # From ragged rows to [B,most,2 * width], padded with zeros.
        sizes = counts.sum(dim=1)
        clip = frame_index.div(steps, rounding_mode="floor")
        row = torch.arange(len(objects), device=flat.device) - (sizes.cumsum(0) - sizes).index_select(0, clip)
        most = int(sizes.max()) if len(objects) else 0
        padded = entries.new_zeros(clips, most, entries.shape[1]).index_put((clip, row), entries)
        object_mask = torch.arange(most, device=flat.device) < sizes[:, None]
        object_entries = _split_keys_values(_prepend(padded, self.null_object))
        return CaptionMemory(
            _split_keys_values(step_entries), step_mask, object_entries, _attention_mask(object_mask), start
        )

    def forward(self, memory: CaptionMemory, words: Tensor) -> Tensor:
        """Return the logits of the word after each word (teacher forcing).

        Args:
            memory: Memory of B events.
            words: int64 [B * n,L], n captions of the first event, n of the second, and so on.

        Returns:
            float32 [B * n,L,words].
        """
        events = memory.start.shape[1]
        start = memory.start.repeat_interleave(len(words) // events, dim=1)
        states, _ = self.gru(self.drop(self._embed(words)), start)
        return self._logits(memory, states.reshape(events, -1, WIDTH)).view(*words.shape, self.words)

    def _embed(self, words: Tensor) -> Tensor:
        """Embed words, int64 [...] to float32 [...,width] of about unit variance."""
        vectors: Tensor = self.embed(words) * WIDTH**0.5
        return vectors

    def _logits(self, memory: CaptionMemory, states: Tensor) -> Tensor:
        """Return the logits [B,L,words] of decoder states [B,L,width], each of which attends to its event's memory."""
        inputs = [states, _attend(self.step_query(states), memory.steps, memory.step_mask)]
        if memory.objects is not None:
            inputs.append(_attend(self.object_query(states), memory.objects, memory.object_mask))
        return F.linear(self.join(torch.cat(inputs, dim=2)), self.embed.weight[: self.words], self.bias)

    @torch.inference_mode()
    def write(self, memory: CaptionMemory, first: Tensor, *, beam: int, most: int) -> tuple[list[list[int]], Tensor]:
        """Write a caption for each event by beam search; a beam of 1 is greedy search.

        Captions are compared by log probability over a power of their length (after Wu et al. 2016, "Google's Neural
        Machine Translation System", section 7).

        Args:
            memory: Memory of B events.
            first: int64 [B], first input of each caption.
            beam: Number of captions followed in parallel, at least 1.
            most: Maximum number of words per caption.

        Returns:
            Word ids of each caption, without start and end; and float32 [B], the mean log probability of its words and
            its end.
        """
        clips, device = len(first), first.device
        words = torch.zeros(clips, beam, 0, dtype=torch.int64, device=device)
        last = first[:, None].expand(clips, beam)
        state = memory.start.repeat_interleave(beam, dim=1)
        total = torch.full((clips, beam), -torch.inf, device=device)
        total[:, 0] = 0.0  # all beams are equal still, so only one may grow
        length = torch.zeros(clips, beam, dtype=torch.int64, device=device)
        is_finished = torch.zeros(clips, beam, dtype=torch.bool, device=device)
        rows = torch.arange(clips, device=device)[:, None]
        for number in range(most + 1):
            out, state = self.gru(self._embed(last).reshape(clips * beam, 1, WIDTH), state)
            logits = self._logits(memory, out.view(clips, beam, WIDTH))
            logits[..., [Tokenizer.START, Tokenizer.PAD]] = -torch.inf
            totals = total[..., None] + logits.log_softmax(dim=2)
            if number == most:  # the maximum length is reached: only the end may follow, however unlikely
                totals[..., : Tokenizer.END] = totals[..., Tokenizer.END + 1 :] = -torch.inf
            # Finished captions stay unchanged: their only continuation is padding.
            totals = totals.masked_fill(is_finished[..., None], -torch.inf)
            totals[..., Tokenizer.PAD] = torch.where(is_finished, total, -torch.inf)
            lengths = length + ~is_finished
            ranked = totals / lengths[..., None].to(totals.dtype) ** _LENGTH_POWER
            best = ranked.flatten(1).topk(beam, dim=1).indices
            parent, last = best.div(self.words, rounding_mode="floor"), best % self.words
            total, length = totals.flatten(1).gather(1, best), lengths.gather(1, parent)
            is_finished = is_finished.gather(1, parent) | (last == Tokenizer.END)
            words = torch.cat([words[rows, parent], last[..., None]], dim=2)
            state = state.view(1, clips, beam, WIDTH)[:, rows, parent].view(1, clips * beam, WIDTH)
            if is_finished.all():
                break
        winner = (total / length.to(total.dtype) ** _LENGTH_POWER).argmax(dim=1)
        specials = (Tokenizer.PAD, Tokenizer.END)
        captions = [[word for word in ids if word not in specials] for ids in words[rows[:, 0], winner].tolist()]
        return captions, (total / length)[rows[:, 0], winner]


def _linear(inputs: int, outputs: int, *, bias: bool = True) -> nn.Linear:
    """Create a layer whose outputs have the variance of its inputs (LeCun et al. 1998, "Efficient BackProp").

    PyTorch's default has a third of it, which makes attention start almost uniform and learn slowly.
    """
    layer = nn.Linear(inputs, outputs, bias=bias)
    nn.init.normal_(layer.weight, std=inputs**-0.5)
    return layer


def _prepend(rows: Tensor, first: Tensor) -> Tensor:
    """Prepend one row to each of [B,N,D]."""
    return torch.cat([first.expand(len(rows), 1, -1), rows], dim=1)


def _attention_mask(mask: Tensor) -> Tensor:
    """Return bool [B,N] as [B,1,1,1 + N], with the prepended entry unmasked."""
    return F.pad(mask, (1, 0), value=True)[:, None, None]


def _split_keys_values(entries: Tensor) -> tuple[Tensor, Tensor]:
    """Split [B,N,2 * width] into the keys and values of each head."""
    keys, values = entries.chunk(2, dim=2)
    return _split_heads(keys), _split_heads(values)


def _split_heads(rows: Tensor) -> Tensor:
    """Reshape [B,N,width] to [B,heads,N,width / heads]."""
    clips, number, width = rows.shape
    return rows.view(clips, number, HEADS, width // HEADS).transpose(1, 2)


def _attend(queries: Tensor, memory: tuple[Tensor, Tensor], mask: Tensor | None) -> Tensor:
    """Attend to keys and values with queries [B,L,width]; return [B,L,width]."""
    values = F.scaled_dot_product_attention(_split_heads(queries), *memory, attn_mask=mask)
    return values.transpose(1, 2).flatten(2)

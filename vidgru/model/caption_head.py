"""A sentence on an event: a GRU that writes it word by word and looks at the event's steps and objects meanwhile."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vidgru.model.tokenizer import Tokenizer

WIDTH = 128  # of a word, of the decoder's state, and of what it looks at
HEADS = 4
_POWER = 0.7  # of a sentence's length that its log probability is divided by, so that long ones have a chance


class CaptionMemory(NamedTuple):
    """What the decoder looks at: keys and values [B, heads, N, width / heads] each, and which of them there are.

    The first of the N is learnt and always there: it is what is looked at where there is nothing to see.

    Attributes:
        steps, objects: keys and values of the event's steps, and of all objects of these steps; None without objects.
        step_mask, object_mask: bool [B, 1, 1, N].
        start: float32 [1, B, width], the state to begin with.
    """

    steps: tuple[Tensor, Tensor]
    step_mask: Tensor
    objects: tuple[Tensor, Tensor] | None
    object_mask: Tensor | None
    start: Tensor


class CaptionHead(nn.Module):
    """GRU decoder with attention over the steps and over the objects of an event.

    At every word the state of a GRU over the words so far asks two questions (scaled dot products of several heads;
    Vaswani et al. 2017): one of the recurrent layer's outputs in the event, one of the objects seen in it, each told
    together with the output at its step, so that what an object was and when it was there can be held together. Words
    come in and go out by the same vectors (Press and Wolf 2017, "Using the Output Embedding to Improve Language
    Models"). The first thing to come in is the event's label, or `Tokenizer.START` where none is known, or there is
    none: overlapping events of different labels have sentences of their own.

    Args:
        words: size of the vocabulary.
        labels: number of labels; label i comes in as word `words + i`.
        step_width: of the recurrent layer's outputs.
        object_width: of what an object's groups of features are narrowed to; 0 where it sees no objects. They are
            joined anew here, for the vectors by which frames are told apart need not hold what sentences speak of.
        dropout: of words that come in, and before words go out.
    """

    def __init__(self, words: int, labels: int, *, step_width: int, object_width: int, dropout: float) -> None:
        super().__init__()
        self.words = words
        self.embed = nn.Embedding(words + labels, WIDTH)
        nn.init.normal_(self.embed.weight, std=WIDTH**-0.5)
        self.drop = nn.Dropout(dropout)
        self.gru = nn.GRU(WIDTH, WIDTH, batch_first=True)
        self.begin = _linear(step_width, WIDTH)
        self.place = _linear(2, 2 * WIDTH, bias=False)  # how far from the event's begin and end
        self.step = _linear(step_width, 2 * WIDTH)
        self.ask_steps = _linear(WIDTH, WIDTH)
        self.no_step = nn.Parameter(torch.zeros(2 * WIDTH))
        self.sees_objects = object_width > 0
        if self.sees_objects:
            self.object = nn.Sequential(_linear(object_width, WIDTH), nn.LayerNorm(WIDTH), nn.ReLU())
            self.told = _linear(WIDTH, 2 * WIDTH)
            self.moment = _linear(step_width, 2 * WIDTH, bias=False)
            self.ask_objects = _linear(WIDTH, WIDTH)
            self.no_object = nn.Parameter(torch.zeros(2 * WIDTH))
        self.join = nn.Sequential(nn.Linear((2 + self.sees_objects) * WIDTH, WIDTH), nn.ReLU(), nn.Dropout(dropout))
        self.bias = nn.Parameter(torch.zeros(words))

    def memory(self, hidden: Tensor, mask: Tensor, objects: Tensor | None, counts: Tensor) -> CaptionMemory:
        """What there is to look at.

        Args:
            hidden: float32 [B,T,step_width], outputs of the recurrent layer.
            mask: bool [B,T], False behind an event's end.
            objects: float32 [M,object_width], the objects of all frames, event after event; None without objects.
            counts: int64 [B,T], objects of each frame; M in all.
        """
        clips, steps = mask.shape
        lengths = mask.sum(dim=1, keepdim=True).clamp(min=1)
        behind = (torch.arange(steps, device=mask.device) + 0.5) / lengths
        place = self.place(torch.stack([behind, 1 - behind], dim=2))  # [B,T,2 * width]
        mean = (hidden * mask[..., None]).sum(dim=1) / lengths
        start = self.begin(mean).tanh()[None]
        own = _with_first(self.step(hidden) + place, self.no_step)
        step_mask = _with_true(mask)
        if objects is None:
            return CaptionMemory(_split(own), step_mask, None, None, start)
        flat = counts.flatten()
        moment = torch.arange(len(flat), device=flat.device).repeat_interleave(flat, output_size=len(objects))
        seen = self.told(self.object(objects)) + (self.moment(hidden) + place).flatten(0, 1).index_select(0, moment)
        sizes = counts.sum(dim=1)
        clip = moment.div(steps, rounding_mode="floor")
        row = torch.arange(len(objects), device=flat.device) - (sizes.cumsum(0) - sizes).index_select(0, clip)
        most = int(sizes.max()) if len(objects) else 0
        padded = seen.new_zeros(clips, most, seen.shape[1]).index_put((clip, row), seen)
        there = torch.arange(most, device=flat.device) < sizes[:, None]
        return CaptionMemory(
            _split(own), step_mask, _split(_with_first(padded, self.no_object)), _with_true(there), start
        )

    def forward(self, memory: CaptionMemory, words: Tensor) -> Tensor:
        """Logits of the word behind each word (teacher forcing).

        Args:
            memory: of B events.
            words: int64 [B * n, L], n sentences on the first event, as many on the next, and so on.

        Returns:
            float32 [B * n, L, words].
        """
        events = memory.start.shape[1]
        start = memory.start.repeat_interleave(len(words) // events, dim=1)
        states, _ = self.gru(self.drop(self._read(words)), start)
        return self._say(memory, states.reshape(events, -1, WIDTH)).view(*words.shape, self.words)

    def _read(self, words: Tensor) -> Tensor:
        """Vectors of words that come in, int64 [...] to float32 [...,width], of about unit variance."""
        vectors: Tensor = self.embed(words) * WIDTH**0.5
        return vectors

    def _say(self, memory: CaptionMemory, states: Tensor) -> Tensor:
        """Logits [B,L,words] of what is said in states [B,L,width], each of which asks the event's memory."""
        seen = [states, _ask(self.ask_steps(states), memory.steps, memory.step_mask)]
        if memory.objects is not None:
            seen.append(_ask(self.ask_objects(states), memory.objects, memory.object_mask))
        return F.linear(self.join(torch.cat(seen, dim=2)), self.embed.weight[: self.words], self.bias)

    @torch.inference_mode()
    def write(self, memory: CaptionMemory, first: Tensor, *, beam: int, most: int) -> tuple[list[list[int]], Tensor]:
        """Write a sentence on each event: the best that a beam search finds; with a beam of 1 it is greedy.

        Sentences are held against each other by their log probability over a power of their length (after Wu et al.
        2016, "Google's Neural Machine Translation System", section 7).

        Args:
            memory: of B events.
            first: int64 [B], what comes in first.
            beam: sentences that are followed at once, at least 1.
            most: words of a sentence at most.

        Returns:
            The words of each, without what begins and ends them; and float32 [B], the mean log probability of its words
            and of its end.
        """
        clips, device = len(first), first.device
        words = torch.zeros(clips, beam, 0, dtype=torch.int64, device=device)
        last = first[:, None].expand(clips, beam)
        state = memory.start.repeat_interleave(beam, dim=1)
        total = torch.full((clips, beam), -torch.inf, device=device)
        total[:, 0] = 0.0  # the others are the same still
        length = torch.zeros(clips, beam, dtype=torch.int64, device=device)
        over = torch.zeros(clips, beam, dtype=torch.bool, device=device)
        rows = torch.arange(clips, device=device)[:, None]
        for number in range(most + 1):
            out, state = self.gru(self._read(last).reshape(clips * beam, 1, WIDTH), state)
            logits = self._say(memory, out.view(clips, beam, WIDTH))
            logits[..., [Tokenizer.START, Tokenizer.PAD]] = -torch.inf
            grown = total[..., None] + logits.log_softmax(dim=2)
            if number == most:  # no room is left but for the end, as unlikely as it may be
                grown[..., : Tokenizer.END] = grown[..., Tokenizer.END + 1 :] = -torch.inf
            # what is over stays as it is: its one continuation is padding
            grown = grown.masked_fill(over[..., None], -torch.inf)
            grown[..., Tokenizer.PAD] = torch.where(over, total, -torch.inf)
            lengths = length + ~over
            ranked = grown / lengths[..., None].to(grown.dtype) ** _POWER
            chosen = ranked.flatten(1).topk(beam, dim=1).indices
            parent, last = chosen.div(self.words, rounding_mode="floor"), chosen % self.words
            total, length = grown.flatten(1).gather(1, chosen), lengths.gather(1, parent)
            over = over.gather(1, parent) | (last == Tokenizer.END)
            words = torch.cat([words[rows, parent], last[..., None]], dim=2)
            state = state.view(1, clips, beam, WIDTH)[:, rows, parent].view(1, clips * beam, WIDTH)
            if over.all():
                break
        best = (total / length.to(total.dtype) ** _POWER).argmax(dim=1)
        specials = (Tokenizer.PAD, Tokenizer.END)
        sentences = [[word for word in one if word not in specials] for one in words[rows[:, 0], best].tolist()]
        return sentences, (total / length)[rows[:, 0], best]


def _linear(inputs: int, outputs: int, *, bias: bool = True) -> nn.Linear:
    """A layer whose outputs are as varied as its inputs (LeCun et al. 1998, "Efficient BackProp").

    PyTorch's are a third of that: attention that begins as good as even takes long to turn to anything.
    """
    layer = nn.Linear(inputs, outputs, bias=bias)
    nn.init.normal_(layer.weight, std=inputs**-0.5)
    return layer


def _with_first(rows: Tensor, first: Tensor) -> Tensor:
    """[B,N,D] with one row more in front."""
    return torch.cat([first.expand(len(rows), 1, -1), rows], dim=1)


def _with_true(mask: Tensor) -> Tensor:
    """Bool [B,N] as [B,1,1,1 + N]: the first is always there."""
    return F.pad(mask, (1, 0), value=True)[:, None, None]


def _split(both: Tensor) -> tuple[Tensor, Tensor]:
    """[B,N,2 * width] as keys and values of each head."""
    keys, values = both.chunk(2, dim=2)
    return _heads(keys), _heads(values)


def _heads(rows: Tensor) -> Tensor:
    """[B,N,width] as [B,heads,N,width / heads]."""
    clips, number, width = rows.shape
    return rows.view(clips, number, HEADS, width // HEADS).transpose(1, 2)


def _ask(questions: Tensor, memory: tuple[Tensor, Tensor], mask: Tensor | None) -> Tensor:
    """Answers [B,L,width] to questions [B,L,width]."""
    answers = F.scaled_dot_product_attention(_heads(questions), *memory, attn_mask=mask)
    return answers.transpose(1, 2).flatten(2)

"""The network: encoder, a recurrent layer over time, heads on every step, and one that writes descriptions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from vidgru.model.caption_head import CaptionHead, CaptionMemory
from vidgru.model.encoder import EncodedFrames, Encoder
from vidgru.model.fast_gru import GRU
from vidgru.model.feature_spec import FeatureSpec

Cell = Literal["gru", "lstm", "rnn", "none"]
# Sentences speak of what groups of features tell, and cannot be learnt from a clip that has lost one. Measured on 384
# drawn events: after 20 epochs 0.37 of the sentences were right where groups were lost so much less often, 0.15 else.
_DROPPED = 0.2
RNNState = Any  # of the recurrent layer: a tensor, a pair of them for an LSTM, None at the beginning


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """Shape of the network.

    Attributes:
        cell: what remembers; "none" is the baseline without memory: frames are averaged, their order is lost.
        width: of a frame's vector, which the cell reads.
        hidden: of the cell's state.
        layers: cells on top of each other.
        bidirectional: read backwards as well; such a model cannot run live.
        dropout: before the last layer of the encoder, between recurrent layers, and before the heads.
        group_dropout: probability that a clip loses appearance, colour, the scene or its motion in a training step;
            each other group is lost a fifth as often.
        drop_features: groups of features that are not looked at.
    """

    cell: Cell = "gru"
    width: int = 64
    hidden: int = 128
    layers: int = 1
    bidirectional: bool = False
    dropout: float = 0.2
    group_dropout: float = 0.5
    drop_features: tuple[str, ...] = ()


class EventLogits(NamedTuple):
    """Logits: `clips` [B,C] of clips as a whole, `frames` [B,T,K] of every step; None without such a head."""

    clips: Tensor | None
    frames: Tensor | None


class RNNOutput(NamedTuple):
    """What reading some steps comes to.

    Attributes:
        frames: logits [B,T,K] of every step; None without such a head.
        hidden: [B,T,hidden], outputs of the recurrent layer.
        state: behind the last step.
    """

    frames: Tensor | None
    hidden: Tensor
    state: RNNState


class EventGRU(nn.Module):
    """Encoder, recurrent layer, a linear head on every step for each of two questions, and one that writes sentences.

    The default cell is `nn.GRU(input_size=64, hidden_size=128, batch_first=True)` (Cho et al. 2014, in PyTorch's
    variant, trained faster on CPUs by `recurrent.py`). Its steps depend on the past alone: a stream is scored as it
    comes.

    Args:
        feature_spec: the features' groups and widths.
        clip_outputs: C, scores of a clip as a whole; 0 for no such head.
        frame_outputs: K, scores of a frame; 0 for no such head.
        architecture: shape of the network.
        words: size of the vocabulary of descriptions; 0 for no head that writes them.
        labels: that descriptions may begin with.
    """

    def __init__(
        self,
        feature_spec: FeatureSpec,
        clip_outputs: int,
        frame_outputs: int,
        architecture: Architecture,
        *,
        words: int = 0,
        labels: int = 0,
    ):
        super().__init__()
        a = architecture
        self.architecture = a
        self.encoder = Encoder(
            feature_spec, width=a.width, dropout=a.dropout, group_dropout=a.group_dropout, drop_features=a.drop_features
        )
        self.gru: nn.GRU | nn.LSTM | nn.RNN | None = None
        if a.cell != "none":
            kind = {"gru": GRU, "lstm": nn.LSTM, "rnn": nn.RNN}[a.cell]
            between = a.dropout if a.layers > 1 else 0.0
            self.gru = kind(
                a.width, a.hidden, a.layers, batch_first=True, dropout=between, bidirectional=a.bidirectional
            )
        wide = self.hidden_width
        self.clip_head = _head(a.dropout, wide, clip_outputs)
        self.frame_head = _head(a.dropout, wide, frame_outputs)
        self.caption_head: CaptionHead | None = None
        if words:
            self.caption_head = CaptionHead(
                words, labels, step_width=wide, object_width=self.encoder.object_width, dropout=a.dropout
            )

    @property
    def feature_spec(self) -> FeatureSpec:
        """The features it reads."""
        return self.encoder.feature_spec

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return self.encoder.object_mean.device

    @property
    def hidden_width(self) -> int:
        """Of the outputs of the recurrent layer."""
        a = self.architecture
        return a.width if self.gru is None else a.hidden * (2 if a.bidirectional else 1)

    def encode(self, objects: Tensor, counts: Tensor, frame: Tensor) -> EncodedFrames:
        """Frames as vectors; arguments as of `forward`."""
        encoded: EncodedFrames = self.encoder(objects, counts, frame)
        return encoded

    def step(self, vectors: Tensor, mask: Tensor, state: RNNState = None) -> RNNOutput:
        """Read encoded frames, and score each; arguments as of `run_rnn`."""
        hidden, state = self.run_rnn(vectors, mask, state)
        return RNNOutput(None if self.frame_head is None else self.frame_head(hidden), hidden, state)

    def forward(self, objects: Tensor, counts: Tensor, frame: Tensor, mask: Tensor) -> EventLogits:
        """Score clips or windows.

        Args:
            objects: float32 [M,F], the objects of all frames, clip after clip.
            counts: int64 [B,T], objects of each frame; M in all.
            frame: float32 [B,T,G].
            mask: bool [B,T], True where there is a frame; padding lies behind.
        """
        return self.event_logits(self.encode(objects, counts, frame).vectors, mask)

    def event_logits(self, vectors: Tensor, mask: Tensor) -> EventLogits:
        """Score clips or windows whose frames are encoded: float32 [B,T,width], bool [B,T].

        Frames are scored at every step, those behind the end too: what was seen is read there for as long as the scores
        lag behind. A clip's score is the soft maximum over its frames (log of the mean of exponentials; Pinheiro and
        Collobert 2015, "From Image-level to Pixel-level Labeling"): what happens need not last the whole clip. The
        baseline without memory takes their mean.
        """
        frames, hidden, _ = self.step(vectors, mask)
        if self.clip_head is None:
            return EventLogits(None, frames)
        steps = self.clip_head(hidden)
        lengths = mask.sum(dim=1).clamp(min=1)[:, None].to(steps.dtype)
        if self.gru is None:
            return EventLogits((steps * mask[..., None]).sum(dim=1) / lengths, frames)
        lowest = torch.finfo(steps.dtype).min
        clips = steps.masked_fill(~mask[..., None], lowest).logsumexp(dim=1) - lengths.log()
        return EventLogits(clips, frames)

    def caption_memory(self, objects: Tensor, counts: Tensor, frame: Tensor, mask: Tensor) -> CaptionMemory:
        """What the head for descriptions looks at: clips or events, read from an empty state; arguments as `forward`.

        Raises:
            ValueError: there is no such head.
        """
        if self.caption_head is None:
            raise ValueError("the network has no head for descriptions")
        encoded = self.encoder(objects, counts, frame, dropped=_DROPPED)
        hidden, _ = self.run_rnn(encoded.vectors, mask)
        return self.caption_head.memory(hidden, mask, encoded.objects, counts)

    def caption_logits(self, objects: Tensor, counts: Tensor, frame: Tensor, mask: Tensor, words: Tensor) -> Tensor:
        """Logits of the word behind each word of a sentence but the last, float32 [B,W-1,vocabulary].

        Args:
            objects, counts, frame, mask: as `forward`.
            words: int64 [B,W], -1 behind a sentence's end.

        Raises:
            ValueError: there is no head for descriptions.
        """
        memory = self.caption_memory(objects, counts, frame, mask)
        assert self.caption_head is not None
        logits: Tensor = self.caption_head(memory, words[:, :-1].clamp(min=0))
        return logits

    def run_rnn(self, vectors: Tensor, mask: Tensor, state: RNNState = None) -> tuple[Tensor, RNNState]:
        """Outputs of the recurrent layer, [B,T,hidden], and its state behind the last step.

        Padding is read as zeros, which no frame is encoded to.

        Args:
            vectors: float32 [B,T,width].
            mask: bool [B,T].
            state: as returned for the steps before these; None at the beginning of a recording.
        """
        vectors = vectors * mask[..., None]
        if self.gru is None:
            return vectors.relu(), None
        if not self.architecture.bidirectional:
            out, state = self.gru(vectors, state)
            return out, state
        # Backwards the padding would be read first: packed sequences leave it out.
        lengths = mask.sum(dim=1).clamp(min=1).cpu()
        packed = nn.utils.rnn.pack_padded_sequence(vectors, lengths, batch_first=True, enforce_sorted=False)
        out = nn.utils.rnn.pad_packed_sequence(self.gru(packed)[0], batch_first=True, total_length=mask.shape[1])[0]
        return out, None


def _head(dropout: float, width: int, outputs: int) -> nn.Sequential | None:
    return nn.Sequential(nn.Dropout(dropout), nn.Linear(width, outputs)) if outputs else None


def count_parameters(network: nn.Module) -> int:
    """Numbers that training can change."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad)

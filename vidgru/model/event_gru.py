"""The network: encoder, a recurrent layer over time, and an event head on every step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from vidgru.model.encoder import Encoder
from vidgru.model.layout import FeatureLayout

Cell = Literal["gru", "lstm", "rnn", "none"]


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """Shape of the network.

    Attributes:
        cell: what remembers; "none" is the baseline without memory: frames are averaged, their order is lost.
        width: of a frame's vector, which the cell reads.
        hidden: of the cell's state.
        layers: cells on top of each other.
        bidirectional: read backwards as well; such a model cannot run live.
        dropout: before the last layer of the encoder, between recurrent layers, and before the event head.
        group_dropout: probability that a clip loses appearance, the scene or its motion in a training step; each other
            group is lost a fifth as often.
    """

    cell: Cell = "gru"
    width: int = 64
    hidden: int = 128
    layers: int = 1
    bidirectional: bool = False
    dropout: float = 0.2
    group_dropout: float = 0.5


class Scores(NamedTuple):
    """Logits: `frames` [B,T,C] of every step, `clips` [B,C] of the clip as a whole."""

    frames: Tensor
    clips: Tensor


class EventGRU(nn.Module):
    """Encoder, recurrent layer, event head.

    The default cell is `nn.GRU(input_size=64, hidden_size=128, batch_first=True)` (Cho et al. 2014, in PyTorch's
    variant). Its steps depend on the past alone, so a stream is scored as it comes.

    Args:
        layout: the features' groups and widths.
        outputs: C, number of scores.
        architecture: shape of the network.
    """

    def __init__(self, layout: FeatureLayout, outputs: int, architecture: Architecture) -> None:
        super().__init__()
        a = architecture
        self.architecture = a
        self.encoder = Encoder(layout, width=a.width, dropout=a.dropout, group_dropout=a.group_dropout)
        self.gru: nn.GRU | nn.LSTM | nn.RNN | None = None
        wide = a.width
        if a.cell != "none":
            kind = {"gru": nn.GRU, "lstm": nn.LSTM, "rnn": nn.RNN}[a.cell]
            between = a.dropout if a.layers > 1 else 0.0
            self.gru = kind(
                a.width, a.hidden, a.layers, batch_first=True, dropout=between, bidirectional=a.bidirectional
            )
            wide = a.hidden * (2 if a.bidirectional else 1)
        self.head = nn.Sequential(nn.Dropout(a.dropout), nn.Linear(wide, outputs))

    def forward(self, objects: Tensor, object_mask: Tensor, frame: Tensor, mask: Tensor) -> Scores:
        """Score clips.

        Args:
            objects: float32 [B,T,N,F].
            object_mask: bool [B,T,N], True where there is an object.
            frame: float32 [B,T,G].
            mask: bool [B,T], True where there is a frame; padding lies behind.
        """
        return self.score(self.encoder(objects, object_mask, frame), mask)

    def score(self, vectors: Tensor, mask: Tensor) -> Scores:
        """Score clips whose frames are encoded: float32 [B,T,width], bool [B,T].

        A clip's score is the soft maximum over its frames (log of the mean of exponentials; Pinheiro and Collobert
        2015, "From Image-level to Pixel-level Labeling"): what happens need not last the whole clip. The baseline
        without memory takes their mean.
        """
        frames = self.head(self.remember(vectors, mask))
        lengths = mask.sum(dim=1).clamp(min=1)[:, None].to(frames.dtype)
        if self.gru is None:
            return Scores(frames, (frames * mask[..., None]).sum(dim=1) / lengths)
        lowest = torch.finfo(frames.dtype).min
        clips = frames.masked_fill(~mask[..., None], lowest).logsumexp(dim=1) - lengths.log()
        return Scores(frames, clips)

    def remember(self, vectors: Tensor, mask: Tensor) -> Tensor:
        """Outputs of the recurrent layer, [B,T,hidden], zero where padded."""
        if self.gru is None:
            out = vectors.relu()
        elif not self.architecture.bidirectional:
            out = self.gru(vectors)[0]
        else:
            # Backwards the padding would be read first: packed sequences leave it out.
            lengths = mask.sum(dim=1).clamp(min=1).cpu()
            packed = nn.utils.rnn.pack_padded_sequence(vectors, lengths, batch_first=True, enforce_sorted=False)
            back = self.gru(packed)[0]
            out = nn.utils.rnn.pad_packed_sequence(back, batch_first=True, total_length=mask.shape[1])[0]
        return out * mask[..., None]


def count_parameters(network: nn.Module) -> int:
    """Numbers that training can change."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad)

"""The network: encoder, recurrent layer over time, linear heads on every step, and a caption head.

A network is an ensemble of members, networks of equal shape whose probabilities are averaged.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from vidgru.config import NetworkSettings
from vidgru.model.caption_head import CaptionHead, CaptionMemory
from vidgru.model.encoder import EncodedFrames, Encoder
from vidgru.model.fast_gru import repeat_input, run_members
from vidgru.model.feature_spec import FeatureSpec
from vidgru.model.member_layers import MemberLinear

# A caption cannot be learnt from a clip that has lost the features it mentions, so group dropout is scaled down for
# captions. Measured on 384 synthetic events: after 20 epochs 0.37 of the captions were correct with it, 0.15 without.
_CAPTION_DROPOUT_SCALE = 0.2
RNNState = Any  # per member a tensor [layers,B,hidden], or a pair of them for an LSTM; None at the beginning


class EventLogits(NamedTuple):
    """Logits of both heads.

    Attributes:
        clips: [members,B,C], one row per clip; None without a clip head.
        frames: [members,B,T,K], one row per step; None without a frame head.
    """

    clips: Tensor | None
    frames: Tensor | None


class RNNOutput(NamedTuple):
    """Output of the recurrent layer and of the frame head.

    Attributes:
        frames: Logits [members,B,T,K] of every step; None without a frame head.
        hidden: [members,B,T,hidden], outputs of the recurrent layer.
        states: States after the last step.
    """

    frames: Tensor | None
    hidden: Tensor
    states: RNNState


class EventGRU(nn.Module):
    """Encoder, recurrent layer, a linear clip head and a linear frame head on every step, and a caption head.

    The default cell is `nn.GRU(input_size=64, hidden_size=128, batch_first=True)` (Cho et al. 2014, in PyTorch's
    variant; `fast_gru.py` trains it faster on CPUs). Its steps depend on the past only, so a stream can be scored as it
    arrives.

    All members read the same frames. Their encoders and heads are computed together, their recurrent layers are a list
    of PyTorch's modules. The caption head belongs to the first member.

    Args:
        feature_spec: Groups and widths of the features.
        clip_outputs: C, outputs of the clip head; 0 for no clip head.
        frame_outputs: K, outputs of the frame head; 0 for no frame head.
        architecture: Shape of each member.
        members: Number of members.
        words: Size of the caption vocabulary; 0 for no caption head.
        labels: Number of labels a caption can be conditioned on.
    """

    def __init__(
        self,
        feature_spec: FeatureSpec,
        clip_outputs: int,
        frame_outputs: int,
        architecture: NetworkSettings,
        *,
        members: int = 1,
        words: int = 0,
        labels: int = 0,
    ):
        super().__init__()
        a = architecture
        self.architecture = a
        self.members = members
        self.encoder = Encoder(
            feature_spec,
            members=members,
            width=a.width,
            dropout=a.dropout,
            group_dropout=a.group_dropout,
            drop_features=a.drop_features,
        )
        self.gru: nn.ModuleList | None = None
        if a.cell != "none":
            cell = {"gru": nn.GRU, "lstm": nn.LSTM, "rnn": nn.RNN}[a.cell]
            dropout = a.dropout if a.layers > 1 else 0.0
            self.gru = nn.ModuleList(
                cell(a.width, a.hidden, a.layers, batch_first=True, dropout=dropout, bidirectional=a.bidirectional)
                for _ in range(members)
            )
        self.clip_head = self._linear_head(clip_outputs)
        self.frame_head = self._linear_head(frame_outputs)
        self.caption_head: CaptionHead | None = None
        if words:
            self.caption_head = CaptionHead(
                words,
                labels,
                step_width=self.hidden_width,
                object_width=self.encoder.object_width,
                dropout=a.dropout,
            )

    def _linear_head(self, outputs: int) -> nn.Sequential | None:
        if not outputs:
            return None
        return nn.Sequential(
            nn.Dropout(self.architecture.dropout), MemberLinear(self.members, self.hidden_width, outputs)
        )

    @property
    def feature_spec(self) -> FeatureSpec:
        """Groups and widths of the features."""
        return self.encoder.feature_spec

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.encoder.object_mean.device

    @property
    def hidden_width(self) -> int:
        """Width of the outputs of the recurrent layer."""
        a = self.architecture
        return a.width if self.gru is None else a.hidden * (2 if a.bidirectional else 1)

    def stacked_parameters(self) -> list[nn.Parameter]:
        """Return the parameters with a leading member dimension: those of the encoder and of the linear heads."""
        modules = (self.encoder, self.clip_head, self.frame_head)
        return [parameter for module in modules if module is not None for parameter in module.parameters()]

    def member_parameters(self, member: int) -> list[nn.Parameter]:
        """Return the parameters of a single member: its recurrent layer, and for the first one the caption head."""
        modules = (self.gru and self.gru[member], None if member else self.caption_head)
        return [parameter for module in modules if module is not None for parameter in module.parameters()]

    def member_state(self, index: int) -> dict[str, Tensor]:
        """Return the state of a network of a single member, as `load_state_dict` reads it."""
        stacked = {id(parameter) for parameter in self.stacked_parameters()}
        state = {}
        for name, value in self.state_dict(keep_vars=True).items():
            if id(value) in stacked:
                state[name] = value.detach()[index : index + 1]
            elif name.startswith("gru."):
                if name.startswith(f"gru.{index}."):
                    state[f"gru.0.{name.split('.', 2)[2]}"] = value.detach()
            elif index == 0 or not name.startswith("caption_head."):
                state[name] = value.detach()
        return state

    def forward(self, objects: Tensor, counts: Tensor, frame: Tensor, mask: Tensor) -> EventLogits:
        """Score clips or windows.

        Args:
            objects: float32 [M,F], the objects of all frames, clip after clip.
            counts: int64 [B,T], objects per frame; M in total.
            frame: float32 [B,T,G].
            mask: bool [B,T], True for frames; padding comes last.
        """
        return self.event_logits(self.encode(objects, counts, frame).vectors, mask)

    def encode(
        self, objects: Tensor, counts: Tensor, frame: Tensor, masked_groups: tuple[str, ...] = ()
    ) -> EncodedFrames:
        """Encode frames, without the features of masked groups. Other arguments as for `forward`."""
        encoded: EncodedFrames = self.encoder(objects, counts, frame, masked_groups)
        return encoded

    def run_rnn(self, vectors: Tensor, mask: Tensor, states: RNNState = None) -> tuple[Tensor, RNNState]:
        """Return the outputs of the recurrent layer, [members,B,T,hidden], and its states after the last step.

        Padding is read as zeros, which no frame is encoded as.

        Args:
            vectors: float32 [members,B,T,width], encoded frames of all members, or of the first ones.
            mask: bool [B,T], True for frames; padding comes last.
            states: States returned for the preceding steps; None at the beginning of a recording.
        """
        vectors = vectors * mask[..., None]
        if self.gru is None:
            return vectors.relu(), None
        rnns: list[Any] = list(self.gru)[: len(vectors)]
        if not self.architecture.bidirectional:
            return run_members(rnns, vectors, states)
        # The backward direction would read the padding first; packed sequences leave it out.
        lengths = mask.sum(dim=1).clamp(min=1).cpu()
        outputs = []
        for rnn, inputs in zip(rnns, vectors, strict=True):
            packed = nn.utils.rnn.pack_padded_sequence(inputs, lengths, batch_first=True, enforce_sorted=False)
            out, _ = nn.utils.rnn.pad_packed_sequence(rnn(packed)[0], batch_first=True, total_length=mask.shape[1])
            outputs.append(out)
        return torch.stack(outputs), None

    def step(self, vectors: Tensor, mask: Tensor, states: RNNState = None) -> RNNOutput:
        """Advance over encoded frames and score each. Arguments as for `run_rnn`."""
        hidden, states = self.run_rnn(vectors, mask, states)
        return RNNOutput(None if self.frame_head is None else self.frame_head(hidden), hidden, states)

    def repeat_step(self, vectors: Tensor, states: RNNState, first: int) -> RNNOutput:
        """Advance over equal frames and score each; hidden states are approximate (see `repeat_input`).

        Args:
            vectors: float32 [members,B,T,width], T times the same.
            states: As for `run_rnn`; not None.
            first: Number of equal frames before.
        """
        rnns: list[Any] = list(self.gru or ())
        hidden, states = repeat_input(rnns, vectors[:, :, 0], states, vectors.shape[2], first)
        return RNNOutput(None if self.frame_head is None else self.frame_head(hidden), hidden, states)

    def event_logits(self, vectors: Tensor, mask: Tensor) -> EventLogits:
        """Score clips or windows of encoded frames: float32 [members,B,T,width], bool [B,T].

        Padding steps are scored too: with a lookahead, they hold the scores of the last frames. A clip's score is the
        soft maximum over its frames (log of the mean of exponentials; Pinheiro and Collobert 2015, "From Image-level to
        Pixel-level Labeling"), because an event need not last the whole clip. The mean-pooling baseline takes the mean.
        """
        frames, hidden, _ = self.step(vectors, mask)
        if self.clip_head is None:
            return EventLogits(None, frames)
        steps = self.clip_head(hidden)
        lengths = mask.sum(dim=1).clamp(min=1)[:, None].to(steps.dtype)
        if self.gru is None:
            return EventLogits((steps * mask[..., None]).sum(dim=2) / lengths, frames)
        lowest = torch.finfo(steps.dtype).min
        clips = steps.masked_fill(~mask[..., None], lowest).logsumexp(dim=2) - lengths.log()
        return EventLogits(clips, frames)

    def caption_memory(self, objects: Tensor, counts: Tensor, frame: Tensor, mask: Tensor) -> CaptionMemory:
        """Return what the caption head attends to in each clip or event, as the first member reads it.

        Reading starts from an empty state. Arguments as for `forward`.

        Raises:
            ValueError: The network has no caption head.
        """
        if self.caption_head is None:
            raise ValueError("the network has no caption head")
        first_member = {name: parameter[:1] for name, parameter in self.encoder.named_parameters()}
        encoded = functional_call(
            self.encoder, first_member, (objects, counts, frame), {"dropout_scale": _CAPTION_DROPOUT_SCALE}
        )
        hidden, _ = self.run_rnn(encoded.vectors, mask)
        rows = None if encoded.objects is None else encoded.objects[0]
        return self.caption_head.memory(hidden[0], mask, rows, counts)

    def caption_logits(self, objects: Tensor, counts: Tensor, frame: Tensor, mask: Tensor, words: Tensor) -> Tensor:
        """Return the logits of each caption's next words (teacher forcing), float32 [B,W-1,vocabulary].

        Args:
            objects, counts, frame, mask: As for `forward`.
            words: int64 [B,W], the words of each caption, padded with -1.

        Raises:
            ValueError: The network has no caption head.
        """
        memory = self.caption_memory(objects, counts, frame, mask)
        assert self.caption_head is not None
        logits: Tensor = self.caption_head(memory, words[:, :-1].clamp(min=0))
        return logits


def count_parameters(network: nn.Module) -> int:
    """Return the number of trainable parameters."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad)

"""Sentences as numbers: byte-level byte-pair encoding, learnt from the training descriptions.

Source: Sennrich et al. 2016, "Neural Machine Translation of Rare Words with Subword Units" (arXiv 1508.07909), on
bytes as in Radford et al. 2019, "Language Models are Unsupervised Multitask Learners". All 256 bytes are entries, so
there is no unknown token: what was never seen in training is spelt out in bytes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable

from tokenizers import Regex, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as BytePairs
from tokenizers.decoders import ByteLevel

from vidgru.errors import ModelError

_KIND = "byte-level BPE 1"
_LARGEST = 8192  # entries; descriptions of scenes hold fewer words than that, and rare ones are left in pieces
_OFTEN = 2  # a pair seen once is no pattern

# Scripts without spaces between words, as ranges of a character class, for `re` and Oniguruma alike: Thai and Lao,
# Myanmar, Khmer, kana and their extensions, Han with its radicals and extensions.
UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u2fdf\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf"
    "\u4e00-\u9fff\ua9e0-\ua9ff\uaa60-\uaa7f\uf900-\ufaff\uff66-\uff9f\U0001b000-\U0001b16f\U00020000-\U0003ffff"
)

# No entry reaches across the borders of these: a word with the space before it, a character of a script without spaces
# and its marks (else a Chinese sentence that comes twice would be one entry), digits, signs, white space.
_PIECES = (
    rf" ?[{UNSPACED}]\p{{M}}*"
    rf"| ?[[\p{{L}}\p{{M}}]&&[^{UNSPACED}]]+"
    r"| ?\p{N}+"
    r"| ?[^\s\p{L}\p{M}\p{N}]+"
    r"|\s+(?!\S)|\s+"
)


class Tokenizer:
    """Text to ids and back. `decode(encode(text)) == text` for every text that can be written as UTF-8.

    Ids 0, 1 and 2 are special and stand for no text; 256 bytes follow, then the merges in the order they were learnt.
    Text is taken as it is: nothing is normalised, lowered or stripped. Halves of surrogate pairs, which are no
    characters, become U+FFFD. Inside, a space stands before every text, so that its first word is the entry that it is
    elsewhere: where sentences begin with what they speak of, as Korean ones do, there are half as many words to learn.
    """

    START = 0
    END = 1
    PAD = 2
    _SPECIALS = 3

    def __init__(self, merges: Iterable[tuple[str, str]]) -> None:
        self._merges = list(merges)
        letters = sorted(pre_tokenizers.ByteLevel.alphabet())
        entries = dict.fromkeys([*letters, *(a + b for a, b in self._merges)])  # two merges may give one entry
        vocabulary = {entry: i for i, entry in enumerate(entries)}
        self._pairs = _byte_pairs(models.BPE(vocab=vocabulary, merges=self._merges))

    @staticmethod
    def train(sentences: Iterable[str]) -> Tokenizer:
        """Learn the vocabulary; its size follows the sentences: pairs are merged that occur at least twice.

        The order of the sentences does not matter. Without sentences the vocabulary is the 256 bytes.
        """
        # More threads would save seconds at most, and a process that forks later would be warned about them.
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        pairs = _byte_pairs(models.BPE())
        trainer = trainers.BpeTrainer(
            vocab_size=_LARGEST - Tokenizer._SPECIALS,
            min_frequency=_OFTEN,
            show_progress=False,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        )
        pairs.train_from_iterator((" " + _characters(sentence) for sentence in sentences), trainer)
        merges: list[list[str]] = json.loads(pairs.to_str())["model"]["merges"]
        return Tokenizer((first, second) for first, second in merges)

    @staticmethod
    def from_json(text: str) -> Tokenizer:
        """The tokenizer that `to_json` wrote.

        Raises:
            ModelError: the text is not one.
        """
        try:
            facts = json.loads(text)
            if facts["kind"] != _KIND:
                raise ValueError(f"its kind is {facts['kind']!r}, not {_KIND!r}")
            pairs = [merge.split(" ") for merge in facts["merges"]]
            return Tokenizer((first, second) for first, second in pairs)
        except Exception as error:  # the bindings of `tokenizers` raise plain Exception where a merge has no parts
            raise ModelError(
                f"the model's tokenizer cannot be read: {error}", "use a model file as vidgru train wrote it"
            ) from error

    def to_json(self) -> str:
        """All there is to it, compact; equal for equal sentences in any order."""
        facts = {"kind": _KIND, "merges": [f"{first} {second}" for first, second in self._merges]}
        return json.dumps(facts, ensure_ascii=False, separators=(",", ":"))

    def __len__(self) -> int:
        """Number of ids, the special ones included."""
        return self._SPECIALS + self._pairs.get_vocab_size()

    def encode(self, text: str) -> list[int]:
        """Ids of a text, without special ones; none for an empty text."""
        if not text:
            return []
        ids: list[int] = self._pairs.encode(" " + _characters(text)).ids
        return [i + self._SPECIALS for i in ids]

    def pieces(self) -> list[bytes]:
        """The bytes of each id, none for special ones: joined and read as UTF-8 they are a text behind a space."""
        entries: dict[str, int] = self._pairs.get_vocab()
        spelt, byte_of = sorted(entries, key=entries.__getitem__), _byte_of()
        return [b""] * self._SPECIALS + [bytes(byte_of[letter] for letter in entry) for entry in spelt]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids, special ones skipped. Bytes that are no UTF-8, as of a character cut in two, give U+FFFD.

        Raises:
            ValueError: an id that the vocabulary does not have.
        """
        plain = [int(i) - self._SPECIALS for i in ids]
        if plain and not (min(plain) >= -self._SPECIALS and max(plain) < len(self) - self._SPECIALS):
            raise ValueError(f"ids must be within 0 and {len(self) - 1}")
        text: str = self._pairs.decode([i for i in plain if i >= 0])
        return text.removeprefix(" ")


def _byte_pairs(model: models.BPE) -> BytePairs:
    pairs = BytePairs(model)
    pairs.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    pairs.decoder = ByteLevel()
    return pairs


def _byte_of() -> dict[str, int]:
    """The byte that each letter of an entry stands for: itself if it can be seen, the others from 256 on in order."""
    seen = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    unseen = [byte for byte in range(256) if byte not in seen]
    return {chr(byte): byte for byte in seen} | {chr(256 + i): byte for i, byte in enumerate(unseen)}


def _characters(text: str) -> str:
    """The text with pairs of surrogates joined and halves of them replaced, so that it can be written as UTF-8."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")

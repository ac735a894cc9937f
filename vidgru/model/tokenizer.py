"""Byte-level byte-pair encoding of captions, trained on the descriptions of the training split.

Source: Sennrich et al. 2016, "Neural Machine Translation of Rare Words with Subword Units" (arXiv 1508.07909), on bytes
as in Radford et al. 2019, "Language Models are Unsupervised Multitask Learners". All 256 bytes are in the vocabulary,
so there is no unknown token: words absent from training are spelt in bytes.
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
_MAX_VOCABULARY = 8192  # descriptions of scenes use fewer words; rare ones stay in pieces
_MIN_FREQUENCY = 2  # merging pairs that occur once would memorise single sentences

# Scripts without spaces between words, as ranges of a character class for both `re` and Oniguruma: Thai and Lao,
# Myanmar, Khmer, kana and their extensions, Han with its radicals and extensions.
UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u2fdf\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf"
    "\u4e00-\u9fff\ua9e0-\ua9ff\uaa60-\uaa7f\uf900-\ufaff\uff66-\uff9f\U0001b000-\U0001b16f\U00020000-\U0003ffff"
)

# No token crosses the borders of these pieces: one character of an unspaced script with its marks (else a repeated
# Chinese sentence would become one token), a word with the space before it, digits, punctuation, white space.
_PIECES = (
    rf" ?[{UNSPACED}]\p{{M}}*"
    rf"| ?[[\p{{L}}\p{{M}}]&&[^{UNSPACED}]]+"
    r"| ?\p{N}+"
    r"| ?[^\s\p{L}\p{M}\p{N}]+"
    r"|\s+(?!\S)|\s+"
)


class Tokenizer:
    """Text to ids and back: `decode(encode(text)) == text` for every text that is valid UTF-8.

    Ids 0, 1 and 2 are special tokens without text; the 256 bytes follow, then the merges in training order. Text is not
    normalized, lowercased or stripped; lone surrogates, which are not characters, become U+FFFD. Internally a space is
    put before every text, so that its first word has the same token as elsewhere: in languages such as Korean, whose
    sentences begin with the subject, this halves the words to learn.

    Args:
        merges: Pairs of tokens to merge, in training order.
    """

    START = 0
    END = 1
    PAD = 2
    _SPECIALS = 3

    def __init__(self, merges: Iterable[tuple[str, str]]) -> None:
        self._merges = list(merges)
        letters = sorted(pre_tokenizers.ByteLevel.alphabet())
        # dict.fromkeys drops duplicates: different merges may give the same token
        tokens = dict.fromkeys([*letters, *(a + b for a, b in self._merges)])
        vocabulary = {token: i for i, token in enumerate(tokens)}
        self._pairs = _byte_pairs(models.BPE(vocab=vocabulary, merges=self._merges))

    @staticmethod
    def train(sentences: Iterable[str]) -> Tokenizer:
        """Train a vocabulary, whose size follows the sentences: pairs that occur at least twice are merged.

        The order of the sentences does not matter. Without sentences the vocabulary is the 256 bytes.
        """
        # Parallel training would save seconds at most, and causes warnings in processes that fork later.
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        pairs = _byte_pairs(models.BPE())
        trainer = trainers.BpeTrainer(
            vocab_size=_MAX_VOCABULARY - Tokenizer._SPECIALS,
            min_frequency=_MIN_FREQUENCY,
            show_progress=False,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        )
        pairs.train_from_iterator((" " + _replace_surrogates(sentence) for sentence in sentences), trainer)
        merges: list[list[str]] = json.loads(pairs.to_str())["model"]["merges"]
        return Tokenizer((first, second) for first, second in merges)

    @staticmethod
    def from_json(text: str) -> Tokenizer:
        """Create the tokenizer that `to_json` wrote.

        Raises:
            ModelError: The text is not a tokenizer.
        """
        try:
            content = json.loads(text)
            if content["kind"] != _KIND:
                raise ValueError(f"its kind is {content['kind']!r}, not {_KIND!r}")
            pairs = [merge.split(" ") for merge in content["merges"]]
            return Tokenizer((first, second) for first, second in pairs)
        except Exception as error:  # the bindings of `tokenizers` raise plain Exception for merges of unknown tokens
            raise ModelError(
                f"the model's tokenizer cannot be read: {error}", "use a model file as vidgru train wrote it"
            ) from error

    def to_json(self) -> str:
        """Return compact JSON that `from_json` reads; independent of the order of training sentences."""
        content = {"kind": _KIND, "merges": [f"{first} {second}" for first, second in self._merges]}
        return json.dumps(content, ensure_ascii=False, separators=(",", ":"))

    def __len__(self) -> int:
        """Number of ids, including special tokens."""
        return self._SPECIALS + self._pairs.get_vocab_size()

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text, without special tokens; an empty text has none."""
        if not text:
            return []
        ids: list[int] = self._pairs.encode(" " + _replace_surrogates(text)).ids
        return [i + self._SPECIALS for i in ids]

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of ids, skipping special tokens. Invalid UTF-8, such as a partial character, gives U+FFFD.

        Raises:
            ValueError: An id is not in the vocabulary.
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


def _replace_surrogates(text: str) -> str:
    """Join surrogate pairs and replace lone surrogates, so that the text can be encoded as UTF-8."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")

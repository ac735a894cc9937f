import random
import subprocess
import sys
import unicodedata

import pytest

from vidgru.errors import ModelError
from vidgru.model.tokenizer import Tokenizer

ENGLISH = ["A man falls from a chair.", "A man leaves a bag at the door.", "Two people meet at the door."]
KOREAN = ["사람이 가방을 두고 떠난다.", "사람이 의자에서 넘어진다.", "두 사람이 문 앞에서 만난다."]
PORTUGUESE = ["Um homem cai da cadeira.", "Uma pessoa deixa uma mala à porta.", "Não há ninguém na rua: atenção!"]
CHINESE = ["一个人从椅子上摔下来。", "一个人把包留在门口。", "两个人在门口见面。"]
EMOJI = ["A man walks 🚶‍♂️ past 🚲.", "👩‍👩‍👧‍👦 meet 👍🏽", "🚶‍♂️➡️🚪"]
MIXED = ["사람이 bag을 두고 떠난다 🎒", "Um homem diz “你好” e sai.", "ผู้ชายล้มจากเก้าอี้ (fall)"]
LANGUAGES = {
    "english": ENGLISH,
    "korean": KOREAN,
    "portuguese": PORTUGUESE,
    "chinese": CHINESE,
    "emoji": EMOJI,
    "mixed": MIXED,
}
ODD = [
    "",
    " ",
    "  two spaces before, three behind   ",
    "lines\nand\r\nmore\n\n",
    "\ttabs\t",
    "NUL \0 inside\0",
    "\ufeffbyte order mark",
    "\u2028 \x85 \u3000 \u00a0 \u200b",
    "cafe\u0301 and caf\u00e9, \u0344\u0301 marks alone",
    unicodedata.normalize("NFD", "사람이 가방을 두고 떠난다"),
    "רָחֵל הלכה‏ (שלום) العَرَبِيَّة",
    "हिन्दी में एक आदमी गिरता है",
    "ผู้ชายล้ม ກິນເຂົ້າ ភាសាខ្មែរ မြန်မာ",
    "\U0001d518\U0001d52b\U0001d526 𠀋 \U0010ffff \ufffe",
    "<start> <end> <pad> <unk> [CLS] </s> Ġman Ċ",
    "🏴󠁧󠁢󠁥󠁮󠁧󠁿 🇰🇷🇧🇷 1️⃣ ☹️",
]


def everything() -> list[str]:
    return [sentence for sentences in LANGUAGES.values() for sentence in sentences]


def random_text(rng: random.Random) -> str:
    ranges = [(0, 0x80), (0, 0x800), (0, 0xD800), (0xE000, 0x110000), (0x1F300, 0x1FB00), (0x300, 0x370)]
    return "".join(chr(rng.randrange(*rng.choice(ranges))) for _ in range(rng.randrange(40)))


@pytest.mark.parametrize("trained_on", [*LANGUAGES, "nothing"])
def test_decode_inverts_encode(trained_on: str) -> None:
    tokenizer = Tokenizer.train(LANGUAGES.get(trained_on, []) * 3)
    rng = random.Random(trained_on)
    for text in [*everything(), *ODD, *(random_text(rng) for _ in range(300))]:
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        assert all(type(i) is int and 3 <= i < len(tokenizer) for i in ids)
        assert bool(ids) == bool(text)


@pytest.mark.parametrize("language", LANGUAGES)
def test_frequent_text_has_short_encoding(language: str) -> None:
    sentences = LANGUAGES[language]
    trained, untrained = Tokenizer.train(sentences * 5), Tokenizer.train([])
    for sentence in sentences:
        assert len(untrained.encode(sentence)) == len(f" {sentence}".encode())
        assert len(trained.encode(sentence)) <= len(sentence)


def test_tokens_are_words_or_chinese_characters() -> None:
    tokenizer = Tokenizer.train([*ENGLISH, *CHINESE, *KOREAN] * 4)
    pieces = [tokenizer.decode([i]) for i in tokenizer.encode("A man leaves a bag at the door.")]
    assert pieces == ["A", "man", "leaves", "a", "bag", "at", "the", "door", "."]  # alone without their space
    assert [tokenizer.decode([i]) for i in tokenizer.encode("一个人把包留在门口。")] == list("一个人把包留在门口。")
    assert [tokenizer.decode([i]) for i in tokenizer.encode("사람이 만난다.")] == ["사람이", "만난다", "."]
    (first,) = tokenizer.encode("사람이")  # a word is the same entry at the beginning as elsewhere
    assert first in tokenizer.encode("한 사람이 만난다.")


def test_combining_marks_stay_in_their_word() -> None:
    sentence = "हिन्दी में"
    tokenizer = Tokenizer.train([sentence] * 3)
    assert [tokenizer.decode([i]) for i in tokenizer.encode(sentence)] == ["हिन्दी", "में"]


def test_special_ids_have_no_text() -> None:
    tokenizer = Tokenizer.train(ENGLISH)
    assert {Tokenizer.START, Tokenizer.END, Tokenizer.PAD} == {0, 1, 2}
    ids = tokenizer.encode("A man")
    with_specials = [Tokenizer.START, *ids, Tokenizer.END, Tokenizer.PAD, Tokenizer.PAD]
    assert tokenizer.decode(with_specials) == tokenizer.decode(iter(with_specials)) == "A man"
    assert tokenizer.decode([]) == ""


def test_vocabulary_size_follows_data() -> None:
    assert len(Tokenizer.train([])) == 3 + 256
    assert len(Tokenizer.train(["one", "two", "zip"])) == 3 + 256  # no pair of bytes twice
    assert len(Tokenizer.train(["one", "one"])) == 3 + 256 + 3  # " o", "ne" and " one", or the like
    twenty = [f"{first} {second}" for first in ENGLISH for second in [*ENGLISH, *PORTUGUESE]][:20]
    assert len(Tokenizer.train(twenty)) < 3 + 256 + sum(map(len, ENGLISH + PORTUGUESE))
    rng = random.Random(0)
    words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=9)) for _ in range(2500)]
    assert len(Tokenizer.train(words * 2)) == 8192


def test_train_is_independent_of_order() -> None:
    sentences = [*everything(), *everything()[::2]]
    text = Tokenizer.train(sentences).to_json()
    for seed in range(5):
        random.Random(seed).shuffle(sentences)
        assert Tokenizer.train(iter(sentences)).to_json() == text


def test_train_is_equal_in_other_processes() -> None:
    code = (
        "import sys; from vidgru.model.tokenizer import Tokenizer; "
        "sys.stdout.buffer.write(Tokenizer.train(sys.argv[1:]).to_json().encode())"
    )
    completed = subprocess.run([sys.executable, "-c", code, *everything()], capture_output=True, check=True)
    assert completed.stdout.decode() == Tokenizer.train(everything()).to_json()
    assert not completed.stderr


def test_from_json_inverts_to_json() -> None:
    tokenizer = Tokenizer.train(everything() * 2)
    back = Tokenizer.from_json(tokenizer.to_json())
    assert back.to_json() == tokenizer.to_json()
    assert len(back) == len(tokenizer)
    for text in [*everything(), *ODD]:
        assert back.encode(text) == tokenizer.encode(text)
    assert len(tokenizer.to_json().encode()) < 20 * len(tokenizer)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "Expecting value"),
        ("[]", "list indices"),
        ('{"kind":"words"}', "its kind is 'words', not 'byte-level BPE 1'"),
        ('{"kind":"byte-level BPE 1","merges":["a b c"]}', "too many values"),
        ('{"kind":"byte-level BPE 1","merges":["the bag"]}', "the"),
    ],
)
def test_from_json_refuses_invalid_text(text: str, reason: str) -> None:
    with pytest.raises(ModelError, match=f"the model's tokenizer cannot be read: .*{reason}.*\n  use a model file"):
        Tokenizer.from_json(text)


def test_encode_replaces_lone_surrogates() -> None:
    tokenizer = Tokenizer.train(["a \ud83d bag", "a \ud83d bag"])
    assert tokenizer.decode(tokenizer.encode("a \ud83d bag\udc00")) == "a \ufffd bag\ufffd"
    assert tokenizer.decode(tokenizer.encode("\ud83d\udeb6")) == "🚶"


def test_decode_replaces_partial_characters() -> None:
    tokenizer = Tokenizer.train([])
    assert tokenizer.decode(tokenizer.encode("a bag 가")[:-1]) == "a bag \ufffd"


@pytest.mark.parametrize("unknown_id", [-1, 259])
def test_decode_refuses_unknown_ids(unknown_id: int) -> None:
    with pytest.raises(ValueError, match="ids must be within 0 and 258"):
        Tokenizer.train([]).decode([5, unknown_id])

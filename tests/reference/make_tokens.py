"""Writes tests/fixtures/tokenizer: token ids of awkward texts by Hugging Face's tokenizers.

    python make_tokens.py VOCAB_JSON MERGES_TXT

The arguments are GPT-2's own vocabulary (encoder.json and vocab.bpe, as published). Needs transformers
5.23.0 with tokenizers 0.23.3. Writes

    gpt2.json        [[text, ids], ...] with GPT-2's vocabulary
    small/           a vocabulary of 400, trained here, which puts a space before a text and has added tokens
                     that take in white space: tokenizer.json (merges as pairs)
    small.json       [[text, ids], ...] with it
"""

import json
import pathlib
import random
import sys

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import GPT2Tokenizer

OUT = pathlib.Path(__file__).parent.parent / "fixtures" / "tokenizer"

TEXTS = [
    "", " ", "  ", "\n", "\n\n", "\r\n\r\n", "\t \t x", "Hello world", "Hello, world!", " leading", "trailing ",
    "I'm don't we'll they've you're he'd it's 'S 'Tis ''s '' 'll'", "I’m don’t — “quoted” …",
    "\n\nHuman: What is 17 × 23?\n\nAssistant: 17 × 23 = 391.",
    "<|endoftext|>", "Hi<|endoftext|>there", "<|endoftext|><|endoftext|>", " <|endoftext|> ", "<|endoftext|", "<|endof text|>",
    "<<|endoftext|>>", "<|ENDOFTEXT|>", "a\u0085b", "a\u0085\u0085 b", "\ufeffBOM", "a\ufeffb", "a \ufeff b", "a\u00a0b\u00a0\u00a0c",
    "\u2028\u2029x\u3000y\u200bz\u180e", "\x00\x01\x1c\x1d\x7f\x80\x9f", "naïve café Ångström", "e\u0301 A\u030a \u0301",
    "Ⅷ ½ ² ٣ ४ 𝟘 1,234.50 0x1F", "中文字符，日本語テキスト。한국어", "русский язык, ελληνικά, עברית, العربية, हिन्दी, ไทย",
    "😀😃👍🏽👩‍🚀🏳️‍🌈🇩🇪 text😀", "👨‍👩‍👧‍👦" * 3, "\U0001d4d7\U0001d4ee\U0001d4f5\U0001d4f5\U0001d4f8 \U000e0001 \U0010ffff",
    "def f(x):\n    return {'a': x[0]**2}  # comment\n", "https://example.com/a?b=c&d=%20", "A" * 100, "ab" * 60, " " * 100, " " * 33 + "x",
    "\n" * 17 + "y", "." * 70, "-=" * 30, "é" * 50, "supercalifragilisticexpialidocious antidisestablishmentarianism",
    "SolidGoldMagikarp rawdownloadcloneembedreportprint", "ÃÂÃÂÃÂÃÂ", "\ufffd\ufffd", "x\ud7ff\ue000y",
]

SMALL_TEXTS = [
    "", " ", "low", " low", "the lower the newer", "the<|endoftext|>low", "a <mask> b", "a  \n<mask>  b", "<mask>", " <mask> <mask> ",
    "a <eat>  b", "a<eat>\n\nb", "<wide> <eat>", "low<pad><pad>er", "<pad><mask><eat>", "<pa", "<word><wordy>", "é 😀 中 \u0085<mask>\u0085",
    "<eat>\ufeffx", "x\ufeff<mask>", "newest widest 1234",
]


def main(vocab, merges):
    OUT.mkdir(parents=True, exist_ok=True)
    rng = random.Random(1)
    parts = [" ", "  ", "\n", "\t", "'s", "'ll", "'", "a", "B", "é", "中", "😀", "\u0085", "\ufeff", "\u00a0", "1", "²", ".", "...",
             "<|endoftext|>", "hello", "don't", "\r\n", "\u200b", "\u0301", "_", "ǅ", "\u2028", "\x00"]
    mixed = ["".join(rng.choices(parts, k=rng.randint(2, 16))) for _ in range(150)]

    gpt2 = GPT2Tokenizer(vocab, merges)
    write("gpt2.json", [[text, gpt2(text)["input_ids"]] for text in TEXTS + mixed])

    small = Tokenizer(models.BPE())
    small.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    small.decoder = decoders.ByteLevel()
    small.post_processor = processors.ByteLevel(trim_offsets=True)
    small.train_from_iterator(
        ["low low low low low lower lower newest newest newest widest the the the of and", " ".join(TEXTS)],
        trainers.BpeTrainer(
            vocab_size=394, min_frequency=2, show_progress=False, special_tokens=["<|endoftext|>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        ),
    )
    small.add_special_tokens(["<pad>", AddedToken("<mask>", lstrip=True), AddedToken("<eat>", rstrip=True)])
    small.add_tokens([AddedToken("<wide>", lstrip=True, rstrip=True), "<word>", "<wordy>"])
    folder = OUT / "small"
    folder.mkdir(exist_ok=True)
    small.save(str(folder / "tokenizer.json"), pretty=False)
    write("small.json", [[text, small.encode(text).ids] for text in SMALL_TEXTS + mixed])


def write(name, cases):
    lines = ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases)
    (OUT / name).write_text(f"[\n{lines}\n]\n", encoding="ascii")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])

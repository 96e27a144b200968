"""How much a generated answer has in common with its reference: the usual metrics, by well-kept libraries."""

from __future__ import annotations

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import Final

_ARTICLES: Final = re.compile(r"\b(a|an|the)\b")
_HAN: Final = re.compile("[\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003134f]")
_UNSPACED: Final = re.compile("[\u0e00-\u109f\u1780-\u17ff\u3040-\u30ff]")
"""Thai, Lao, Tibetan, Burmese, Khmer, kana: written without spaces, as Han is."""
_PUNCTUATION: Final = str.maketrans("", "", string.punctuation)


def normalise(answer: str) -> str:
    """Return an answer as it is compared: composed characters, single spaces, none at the ends."""
    return re.sub(r"\s+", " ", unicodedata.normalize("NFC", answer)).strip()


def exact_match(answers: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """Return `exact_match`: the share of answers equal to their reference but for white space."""
    hits = sum(normalise(a) == normalise(r) for a, r in zip(answers, references, strict=True))
    return {"exact_match": hits / len(references)}


def bleu_and_chrf(answers: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """Return `bleu` and `chrf` of the whole, 0 to 100 (sacrebleu with its defaults; Post 2018, Popović 2015).

    Where words are written without spaces, BLEU's words are characters: of Chinese by sacrebleu's `zh`, else by `char`.
    """
    from sacrebleu.metrics import BLEU, CHRF  # noqa: PLC0415 - only where it is used

    return {
        "bleu": float(BLEU(tokenize=_bleu_tokens(references)).corpus_score(list(answers), [list(references)]).score),
        "chrf": float(CHRF().corpus_score(list(answers), [list(references)]).score),
    }


def _bleu_tokens(references: Sequence[str]) -> str:
    """Return sacrebleu's name of how most of the letters are cut into words."""
    letters = [letter for text in references for letter in text if letter.isalpha()]
    unspaced = sum(bool(_UNSPACED.match(letter)) for letter in letters)
    chinese = sum(bool(_HAN.match(letter)) for letter in letters)
    if 2 * (unspaced + chinese) <= len(letters):
        return "13a"
    # Japanese is of Han and kana.
    return "zh" if not unspaced else "char"


class _Words:
    """Words of any script; rouge-score's own tokens are a to z and digits alone."""

    def tokenize(self, text: str) -> list[str]:
        """Return the words of a text in lower case."""
        return re.findall(r"\w+", text.lower())


def rouge(answers: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """Return `rouge1`, `rouge2` and `rougeL`: mean F1, 0 to 1 (rouge-score; Lin 2004).

    English is stemmed, as is usual; where a reference has other letters, words are compared as they are.
    """
    from rouge_score.rouge_scorer import RougeScorer  # noqa: PLC0415 - only where it is used

    names = ["rouge1", "rouge2", "rougeL"]
    if all(text.isascii() for text in references):
        scorer = RougeScorer(names, use_stemmer=True)
    else:
        scorer = RougeScorer(names, tokenizer=_Words())
    found = [scorer.score(r, a) for a, r in zip(answers, references, strict=True)]
    return {name: sum(score[name].fmeasure for score in found) / len(found) for name in names}


def squad(answers: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
    """Return `exact_match` and `f1`, 0 to 1, as SQuAD's evaluation does (Rajpurkar et al. 2016).

    Compared are words in lower case without punctuation and English articles; F1 is of the words in common. Where
    several answers are right, the one that fits best counts.
    """
    pairs = [(squad_words(a), [squad_words(r) for r in right]) for a, right in zip(answers, references, strict=True)]
    return {
        "exact_match": sum(answer in right for answer, right in pairs) / len(pairs),
        "f1": sum(max(word_f1(answer, one) for one in right) for answer, right in pairs) / len(pairs),
    }


def squad_words(text: str) -> list[str]:
    """Return the words of an answer as SQuAD compares them."""
    return _ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split()


def word_f1(answer: Sequence[str], reference: Sequence[str]) -> float:
    """Return the harmonic mean of precision and recall of words."""
    if not answer or not reference:
        return float(list(answer) == list(reference))
    same = sum((Counter(answer) & Counter(reference)).values())
    return 2 * same / (len(answer) + len(reference))

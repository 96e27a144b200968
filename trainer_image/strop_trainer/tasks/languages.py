"""Languages of rows as tokens of a model that has one a language: NLLB, M2M100, mBART and mBART-50."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from strop_trainer.errors import bad_configuration

TOKENIZERS: Final[Mapping[str, tuple[str, ...]]] = {
    "m2m_100": ("NllbTokenizer", "M2M100Tokenizer"),
    "mbart": ("MBart50Tokenizer", "MBartTokenizer"),
}
"""Model type → its kinds of tokenizers, which put the token of a language to a source."""
ENDS_WITH_LANGUAGE: Final = "MBartTokenizer"
"""Of the first mBART (Liu et al. 2020): its decoder begins with the token of the language, and with nothing else."""
_NLLB: Final = re.compile(r"[a-z]{3}_[A-Z][a-z]{3}")
"""ISO 639-3 and the script, as FLORES-200 names languages."""
_SHOWN: Final = 6

FLORES: Final[Mapping[str, str]] = {
    "af": "afr_Latn", "am": "amh_Ethi", "ar": "arb_Arab", "as": "asm_Beng", "az": "azj_Latn", "ba": "bak_Cyrl",
    "be": "bel_Cyrl", "bg": "bul_Cyrl", "bn": "ben_Beng", "bo": "bod_Tibt", "bs": "bos_Latn", "ca": "cat_Latn",
    "cs": "ces_Latn", "cy": "cym_Latn", "da": "dan_Latn", "de": "deu_Latn", "el": "ell_Grek", "en": "eng_Latn",
    "eo": "epo_Latn", "es": "spa_Latn", "et": "est_Latn", "eu": "eus_Latn", "fa": "pes_Arab", "fi": "fin_Latn",
    "fr": "fra_Latn", "ga": "gle_Latn", "gd": "gla_Latn", "gl": "glg_Latn", "gu": "guj_Gujr", "ha": "hau_Latn",
    "he": "heb_Hebr", "hi": "hin_Deva", "hr": "hrv_Latn", "ht": "hat_Latn", "hu": "hun_Latn", "hy": "hye_Armn",
    "id": "ind_Latn", "ig": "ibo_Latn", "is": "isl_Latn", "it": "ita_Latn", "ja": "jpn_Jpan", "jv": "jav_Latn",
    "ka": "kat_Geor", "kk": "kaz_Cyrl", "km": "khm_Khmr", "kn": "kan_Knda", "ko": "kor_Hang", "ku": "kmr_Latn",
    "ky": "kir_Cyrl", "lb": "ltz_Latn", "lo": "lao_Laoo", "lt": "lit_Latn", "lv": "lvs_Latn", "mg": "plt_Latn",
    "mk": "mkd_Cyrl", "ml": "mal_Mlym", "mn": "khk_Cyrl", "mr": "mar_Deva", "ms": "zsm_Latn", "mt": "mlt_Latn",
    "my": "mya_Mymr", "nb": "nob_Latn", "ne": "npi_Deva", "nl": "nld_Latn", "nn": "nno_Latn", "no": "nob_Latn",
    "oc": "oci_Latn", "or": "ory_Orya", "pa": "pan_Guru", "pl": "pol_Latn", "ps": "pbt_Arab", "pt": "por_Latn",
    "ro": "ron_Latn", "ru": "rus_Cyrl", "sd": "snd_Arab", "si": "sin_Sinh", "sk": "slk_Latn", "sl": "slv_Latn",
    "so": "som_Latn", "sq": "als_Latn", "sr": "srp_Cyrl", "su": "sun_Latn", "sv": "swe_Latn", "sw": "swh_Latn",
    "ta": "tam_Taml", "te": "tel_Telu", "tg": "tgk_Cyrl", "th": "tha_Thai", "tk": "tuk_Latn", "tl": "tgl_Latn",
    "tr": "tur_Latn", "tt": "tat_Cyrl", "ug": "uig_Arab", "uk": "ukr_Cyrl", "ur": "urd_Arab", "uz": "uzn_Latn",
    "vi": "vie_Latn", "xh": "xho_Latn", "yi": "ydd_Hebr", "yo": "yor_Latn", "zh": "zho_Hans", "zu": "zul_Latn",
}  # fmt: skip
"""ISO 639-1 → FLORES-200's code. Of several scripts or standards the one that most speakers write."""


def language_tokens(tokenizer: Any, model_type: str) -> dict[str, int]:
    """Return a tokenizer's code of each language → its token.

    Args:
        tokenizer: of transformers.
        model_type: one of `TOKENIZERS`.

    Raises:
        TrainerError: it is of another kind, or has no tokens of languages (exit 78).
    """
    kind = type(tokenizer).__name__
    if kind not in TOKENIZERS[model_type]:
        allowed = ", ".join(TOKENIZERS[model_type])
        raise bad_configuration(f"model: found tokenizer_class {kind}, allowed for {model_type}: {allowed}")
    if kind == "M2M100Tokenizer":
        names = {code: tokenizer.get_lang_token(code) for code in tokenizer.lang_code_to_id}
    elif kind == "NllbTokenizer":
        names = {str(name): name for name in tokenizer.all_special_tokens if _NLLB.fullmatch(str(name))}
    else:
        names = {code: code for code in tokenizer.lang_code_to_id}
    tokens = {code: tokenizer.convert_tokens_to_ids(name) for code, name in names.items()}
    found = {code: token for code, token in tokens.items() if token not in {None, tokenizer.unk_token_id}}
    if not found:
        raise bad_configuration(
            f"model: found no tokens of languages in its tokenizer, a {kind}, allowed: one that has them; "
            "sentencepiece.bpe.model alone does not, tokenizer.json does"
        )
    return found


def language_code(field: str, language: str | None, codes: Iterable[str]) -> str:
    """Return a tokenizer's code of a language: the language itself, or what is meant by its short code.

    Args:
        field: of the row, for messages.
        language: as the row names it, such as de, deu or deu_Latn.
        codes: that the tokenizer has.

    Raises:
        ValueError: the row does not tell, or the model does not have it.
    """
    known = list(codes)
    if not language:
        raise ValueError(f"{field}: missing, expected {_shown(known)}")
    if language in known:
        return language
    if (named := FLORES.get(language)) in known:
        return str(named)
    # mBART's de_DE, and NLLB's of one script.
    begun = [code for code in known if code.partition("_")[0] == language]
    if len(begun) != 1:
        raise ValueError(f"{field}: found {language}, expected {_shown(begun or known)}")
    return begun[0]


def set_languages(tokenizer: Any, source: str, target: str) -> None:
    """Let a tokenizer read and write these languages; it is told only what changes, as that takes time."""
    if tokenizer.src_lang != source:
        tokenizer.src_lang = source
    tokenizer.tgt_lang = target


def _shown(codes: list[str]) -> str:
    return ", ".join(codes[:_SHOWN]) + (f" or another of {len(codes)}" if len(codes) > _SHOWN else "")

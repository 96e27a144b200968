"""Models for tests: a real small one made once per machine, and tiny random ones made on the spot."""

from __future__ import annotations

import fcntl
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

from tests.support.paths import CACHE, REPOSITORY

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
TEXTS = (
    "The quick brown fox jumps over the lazy dog.",
    "What is the capital of France? The capital of France is Paris.",
    "A strop gives an already sharp blade its final edge.",
    '{"topic": "food", "priority": "high"}',
    "system user assistant question answer yes no red green blue one two three",
)


def smollm2() -> Path:
    """Return the folder of SmolLM2-135M-Instruct in bf16; the first call on a machine converts it (30 s)."""
    folder = CACHE / "models" / "smollm2-135m-instruct"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            subprocess.run([sys.executable, str(REPOSITORY / "examples" / "prepare_model.py"), str(folder)], check=True)
    return folder


def tiny_tokenizer(vocab_size: int = 512) -> Any:
    """Return a byte-level BPE tokenizer with a ChatML template, trained on a few sentences: 406 tokens or fewer."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers  # noqa: PLC0415
    from transformers import PreTrainedTokenizerFast  # noqa: PLC0415

    core: Any = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(TEXTS, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        unk_token="<|endoftext|>",
        chat_template=CHAT_TEMPLATE,
    )


def _write_random(auto: Any, config: Any, tokenizer: Any, path: Path, seed: int) -> Path:
    """Write a model with random weights in fp32, and its tokenizer."""
    import torch  # noqa: PLC0415

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = auto.from_config(config, dtype=torch.float32)
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def tiny_llama(
    path: Path,
    *,
    vocab_size: int = 512,
    hidden_size: int = 64,
    layers: int = 2,
    tie_word_embeddings: bool = True,
    seed: int = 0,
    architecture: str = "llama",
    head_dim: int | None = None,
    **configuration: Any,
) -> Path:
    """Write a random tiny model (about 0.1 million parameters, fp32) with tokenizer and chat template to `path`.

    Args:
        path: the folder to make.
        vocab_size: rows of the embedding; the tokenizer has at most as many tokens.
        hidden_size: a multiple of 32.
        layers: number of decoder layers.
        tie_word_embeddings: whether the output layer shares the embedding.
        seed: of the random weights.
        architecture: a transformers model type whose configuration has Llama's field names, such as qwen2 or mistral.
        head_dim: width of one attention head; hidden_size / 4 where left out. Neither the four heads together nor
            the MLP (twice hidden_size) may be as wide as the vocabulary: ONNX Runtime 1.32 computes wrong logits there.
        configuration: further fields of the configuration.
    """
    from transformers import AutoConfig, AutoModelForCausalLM  # noqa: PLC0415

    tokenizer = tiny_tokenizer(vocab_size)
    config: Any = AutoConfig.for_model(
        architecture,
        vocab_size=vocab_size,
        hidden_size=hidden_size,
        intermediate_size=hidden_size * 2,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=head_dim or hidden_size // 4,
        max_position_embeddings=512,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=tie_word_embeddings,
        **configuration,
    )
    return _write_random(AutoModelForCausalLM, config, tokenizer, path, seed)


def tiny_images(path: Path, architecture: str = "gemma3", *, seed: int = 0, **configuration: Any) -> Path:
    """Write a random tiny model that reads images beside text (fp32), with tokenizer and chat template, to `path`.

    Args:
        path: the folder to make.
        architecture: gemma3 or mistral3.
        seed: of the random weights.
        configuration: further fields of the text part's configuration, `model_type` among them.
    """
    from transformers import AutoConfig, AutoModelForImageTextToText  # noqa: PLC0415

    tokenizer = tiny_tokenizer()
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "head_dim": 16}
    text = {
        "model_type": "gemma3_text" if architecture == "gemma3" else "mistral",
        **sizes,
        "vocab_size": 512,
        "num_hidden_layers": 2,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        **configuration,
    }
    seen = {"model_type": "siglip_vision_model" if architecture == "gemma3" else "pixtral", **sizes}
    vision = {**seen, "num_hidden_layers": 2, "image_size": 28, "patch_size": 14}
    if architecture == "gemma3":
        vision.pop("head_dim")
    config: Any = AutoConfig.for_model(
        architecture,
        text_config=text,
        vision_config=vision,
        tie_word_embeddings=text.get("tie_word_embeddings", True),
        **({"mm_tokens_per_image": 4} if architecture == "gemma3" else {}),
    )
    return _write_random(AutoModelForImageTextToText, config, tokenizer, path, seed)


def tiny_encoder(path: Path, architecture: str = "bert", *, seed: int = 0, **configuration: Any) -> Path:
    """Write a random tiny encoder (fp32, 128 positions, without a head) with a WordPiece tokenizer to `path`.

    Args:
        path: the folder to make.
        architecture: a transformers model type whose configuration has BERT's field names, or distilbert.
        seed: of the random weights.
        configuration: further fields of the configuration.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors  # noqa: PLC0415
    from transformers import AutoConfig, AutoModel, PreTrainedTokenizerFast  # noqa: PLC0415

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    letters = [chr(code) for code in range(33, 127)]
    words = re.findall(r"[a-z]+", " ".join(TEXTS).lower())
    # Written down, not trained: the library's trainer breaks ties differently in each process.
    pieces = [*special, *letters, *(f"##{letter}" for letter in letters), *words, *map(str, range(100))]
    vocabulary = {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}
    core: Any = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))  # type: ignore[call-arg]
    core.normalizer = normalizers.BertNormalizer(lowercase=True)
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    core.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    names = {"pad_token": special[0], "unk_token": special[1], "cls_token": special[2], "sep_token": special[3]}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, **names)
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
    if architecture == "distilbert":
        sizes = {"dim": 64, "n_layers": 2, "n_heads": 4, "hidden_dim": 128}
    config: Any = AutoConfig.for_model(
        architecture,
        vocab_size=400,
        pad_token_id=0,
        **{"max_position_embeddings": 128, **sizes, **configuration},
    )
    return _write_random(AutoModel, config, tokenizer, path, seed)


def tiny_encoder_decoder(
    path: Path, architecture: str = "t5", *, seed: int = 0, untied: bool = False, **configuration: Any
) -> Path:
    """Write a random tiny model of encoder and decoder (fp32, two layers each) with its tokenizer to `path`.

    T5 has a byte-level tokenizer that ends each text, BART one that begins it as well; Marian has its own kind, of two
    SentencePiece models, and writes German or French, as `>>de<<` or `>>fr<<` asks for. The others have a SentencePiece
    model each, as their folders on the hub, but for NLLB's tokenizer.json.

    Args:
        path: the folder to make.
        architecture: t5, bart, marian, mt5, pegasus, nllb, m2m_100, mbart or mbart-50.
        seed: of the random weights.
        untied: whether T5's head has weights of its own, and does not scale what it reads, as Flan-T5's.
        configuration: further fields of the configuration.
    """
    import torch  # noqa: PLC0415
    from transformers import AutoConfig, AutoModelForSeq2SeqLM  # noqa: PLC0415

    path.mkdir(parents=True)
    begins, languages = architecture == "bart", architecture in {"nllb", "m2m_100", "mbart", "mbart-50"}
    if architecture == "marian":
        pad_id, end_id, rows = _marian_tokenizer(path)
    elif architecture in _TOKENIZERS:
        pad_id, end_id, rows = _sentencepiece_tokenizer(path, architecture)
    else:
        tokenizer = _ending_tokenizer(begins=begins)
        tokenizer.save_pretrained(path)
        pad_id, end_id, rows = tokenizer.pad_token_id, tokenizer.eos_token_id, 512
    sizes: dict[str, Any] = {"vocab_size": rows, "d_model": 64, "pad_token_id": pad_id, "eos_token_id": end_id}
    if architecture in {"t5", "mt5"}:
        sizes |= {"d_kv": 16, "d_ff": 128, "num_layers": 2, "num_heads": 4, "decoder_start_token_id": pad_id}
    else:
        layers = {"layers": 2, "attention_heads": 4, "ffn_dim": 128}
        sizes |= {f"{part}_{name}": size for part in ("encoder", "decoder") for name, size in layers.items()}
        sizes |= {"max_position_embeddings": 128, "decoder_start_token_id": end_id if begins or languages else pad_id}
    if begins:
        sizes["bos_token_id"] = tokenizer.bos_token_id
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model_type = {"nllb": "m2m_100", "mbart-50": "mbart"}.get(architecture, architecture)
        config = AutoConfig.for_model(model_type, **{**sizes, **configuration})
        model: Any = AutoModelForSeq2SeqLM.from_config(config, dtype=torch.float32)
        if begins:
            model.generation_config.forced_bos_token_id = tokenizer.bos_token_id
        if untied:
            model.lm_head.weight = torch.nn.Parameter(0.1 * torch.randn(rows, 64))
    model.save_pretrained(path)
    if untied:
        named = json.loads((path / "config.json").read_text())
        named.pop("scale_decoder_outputs", None)  # older versions of transformers wrote the other field alone
        (path / "config.json").write_text(json.dumps(named | {"tie_word_embeddings": False}))
    return path


def _ending_tokenizer(*, begins: bool) -> Any:
    from tokenizers import processors  # noqa: PLC0415

    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = None
    first, last = tokenizer.bos_token, tokenizer.eos_token
    tokens = [(first, tokenizer.bos_token_id), (last, tokenizer.eos_token_id)]
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{first} $A {last}" if begins else f"$A {last}", special_tokens=tokens
    )
    return tokenizer


def _marian_tokenizer(path: Path) -> tuple[int, int, int]:
    """Write a Marian tokenizer; return the tokens of padding and end, and how many there are."""
    model, pieces = _sentencepiece()
    for name in ("source.spm", "target.spm"):
        (path / name).write_bytes(model)
    names = ["</s>", "<unk>", *(p for p in pieces if p not in {"<s>", "</s>", "<unk>"}), ">>de<<", ">>fr<<", "<pad>"]
    (path / "vocab.json").write_text(json.dumps({name: number for number, name in enumerate(names)}))
    (path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "MarianTokenizer"}))
    return len(names) - 1, 0, len(names)


def _sentencepiece(**changes: Any) -> tuple[bytes, list[str]]:
    """Return a SentencePiece model of our texts, and its pieces."""
    import io  # noqa: PLC0415

    import sentencepiece  # noqa: PLC0415

    made = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS),
        model_writer=made,
        character_coverage=1.0,
        minloglevel=2,
        **{"vocab_size": 120, "hard_vocab_limit": False, **changes},
    )
    model = sentencepiece.SentencePieceProcessor(model_proto=made.getvalue())
    return made.getvalue(), [model.id_to_piece(number) for number in range(model.get_piece_size())]


_TOKENIZERS: Final = {
    "mt5": ("T5Tokenizer", "spiece.model"),
    "pegasus": ("PegasusTokenizer", "spiece.model"),
    "nllb": ("NllbTokenizer", "sentencepiece.bpe.model"),
    "m2m_100": ("M2M100Tokenizer", "sentencepiece.bpe.model"),
    "mbart": ("MBartTokenizer", "sentencepiece.bpe.model"),
    "mbart-50": ("MBart50Tokenizer", "sentencepiece.bpe.model"),
}
"""Model → its kind of tokenizer, and the file of its SentencePiece model."""


def _sentencepiece_tokenizer(path: Path, architecture: str) -> tuple[int, int, int]:
    """Write a tokenizer; return the tokens of padding and end, and how many rows of an embedding it needs."""
    from transformers import AutoTokenizer  # noqa: PLC0415
    from transformers.models.m2m_100.tokenization_m2m_100 import FAIRSEQ_LANGUAGE_CODES  # noqa: PLC0415

    kind, file = _TOKENIZERS[architecture]
    named: dict[str, Any] = {"tokenizer_class": kind}
    own = {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1} if file == "spiece.model" else {}
    model, pieces = _sentencepiece(**own)
    if architecture == "mt5":
        named["extra_ids"] = 0
    if architecture == "m2m_100":
        names = ["<s>", "<pad>", "</s>", "<unk>", *(p for p in pieces if p not in {"<s>", "</s>", "<unk>"})]
        (path / "vocab.json").write_text(json.dumps({name: number for number, name in enumerate(names)}))
        # As the folders of real ones have it: transformers does not see by itself that these are special.
        named["additional_special_tokens"] = [f"__{code}__" for code in FAIRSEQ_LANGUAGE_CODES["m2m100"]]
    if architecture == "nllb":
        _nllb_tokenizer().save_pretrained(path)
    else:
        (path / file).write_bytes(model)
        (path / "tokenizer_config.json").write_text(json.dumps(named))
    model_type = {"nllb": "m2m_100", "mbart-50": "mbart"}.get(architecture, architecture)
    # Which kind of tokenizer it is, transformers compares with the model's.
    (path / "config.json").write_text(json.dumps({"model_type": model_type}))
    tokenizer: Any = AutoTokenizer.from_pretrained(path, local_files_only=True)
    # M2M100's numbers of languages, of which its folder names none, follow those of its pieces.
    return tokenizer.pad_token_id, tokenizer.eos_token_id, 200 if architecture == "m2m_100" else len(tokenizer)


def _nllb_tokenizer() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers  # noqa: PLC0415
    from transformers import NllbTokenizer  # noqa: PLC0415

    core: Any = Tokenizer(models.BPE(unk_token="<unk>"))  # type: ignore[call-arg]
    core.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer: Any = trainers.BpeTrainer(
        vocab_size=160, special_tokens=["<s>", "<pad>", "</s>", "<unk>"], show_progress=False
    )
    core.train_from_iterator(TEXTS, trainer)
    made = json.loads(core.to_str())["model"]
    languages = ["deu_Latn", "eng_Latn", "zho_Hans", "zho_Hant"]
    vocabulary = made["vocab"] | {name: len(made["vocab"]) + number for number, name in enumerate(languages)}
    merges = [tuple(merge) for merge in made["merges"]]
    return NllbTokenizer(vocab=vocabulary, merges=merges, extra_special_tokens=languages)

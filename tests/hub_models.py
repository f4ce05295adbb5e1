"""Tiny models of Hugging Face in folders, of random weights: made in seconds, with a tokenizer of their own."""

import json
from pathlib import Path
from typing import Any

TEXTS = ("open the window", "close the door", "save the file", "the letter was sent", "print this page")
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
SMALL = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 32,
    "initializer_range": 0.3,
}


def save_tokenizer(folder: Path, *, padding: bool = True, max_length: int = 24) -> int:
    """A word-piece tokenizer as BERT's, the same bytes every time; returns how many ids it has."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordPiece(_vocabulary(), unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens(list(SPECIAL))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {"unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
    names |= {"pad_token": "[PAD]"} if padding else {}
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=max_length, **names)
    fast.save_pretrained(folder)
    return int(tokenizer.get_vocab_size())


def _vocabulary(size: int = 90) -> dict[str, int]:
    """Characters, words and parts of them; not learnt: tokenizers 0.23 breaks ties of its training by chance."""
    words = sorted({word for text in TEXTS for word in text.split()})
    characters = sorted({character for word in words for character in word})
    inner = sorted({f"##{character}" for word in words for character in word[1:]})
    parts = sorted({part for word in words for n in range(2, len(word)) for part in (word[:n], f"##{word[n:]}")})
    pieces = dict.fromkeys((*SPECIAL, *characters, *inner, *words, *parts))
    return {piece: index for index, piece in enumerate(tuple(pieces)[:size])}


def save_sentence_pieces(folder: Path, *, max_length: int = 24) -> int:
    """A tokenizer of word pieces with their spaces, as T5's; returns how many ids it has."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    special = ["<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(vocab_size=60, special_tokens=special, unk_token="<unk>", show_progress=False)
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    names = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=max_length, **names).save_pretrained(folder)
    return int(tokenizer.get_vocab_size())


def save_bert(folder: Path, auto: str, *, padding: bool = True, **options: Any) -> Path:
    """A BERT of one small layer for a task, `auto` being transformers' class for it."""
    import torch
    import transformers

    torch.manual_seed(0)
    folder.mkdir(parents=True)
    vocabulary = save_tokenizer(folder, padding=padding)
    config = transformers.BertConfig(vocab_size=vocabulary, **(SMALL | options))
    getattr(transformers, auto).from_config(config).save_pretrained(folder)
    return folder


def save_vit(folder: Path) -> Path:
    """A vision transformer of one small layer for three labels."""
    import torch
    import transformers

    torch.manual_seed(0)
    shape = {key: value for key, value in SMALL.items() if key != "max_position_embeddings"}
    labels = {0: "cat", 1: "dog", 2: "bird"}
    config = transformers.ViTConfig(image_size=16, patch_size=8, id2label=labels, **shape)
    transformers.ViTForImageClassification(config).save_pretrained(folder)
    settings = {"do_normalize": True, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return folder


def add_sentence_transformer(folder: Path) -> None:
    """Say, as sentence-transformers does, that an embedding is the normalized mean."""
    kinds = (("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize"))
    modules = [{"path": path, "type": f"sentence_transformers.models.{kind}"} for path, kind in kinds]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    modes = {"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": False}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(modes))

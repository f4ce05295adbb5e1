import pydantic
import pytest

from edgekit.model.config import TransformerConfig

SMALLEST = {"vocab_size": 10, "num_labels": 2, "hidden_size": 8, "num_layers": 1, "num_heads": 2, "ffn_size": 16}


def test_config_survives_json() -> None:
    config = TransformerConfig(**SMALLEST, embedding_size=4, norm="rmsnorm", shared_layers=True, dropout=0.1)
    assert TransformerConfig.model_validate_json(config.model_dump_json()) == config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_heads": 3}, "hidden_size 8 is not a multiple of num_heads 3"),
        ({"num_heads": 8, "positions": "rotary"}, "rotary positions need an even head size"),
        ({"pad_id": 10}, "pad_id 10 is not in the vocabulary of 10"),
        ({"num_labels": 1}, "num_labels"),
        ({"hidden_size": 0}, "hidden_size"),
        ({"hidden_size": "8"}, "hidden_size"),
        ({"num_layers": 10**9}, "num_layers"),
        ({"max_length": 0}, "max_length"),
        ({"dropout": 1.0}, "dropout"),
        ({"norm_eps": 0.0}, "norm_eps"),
        ({"norm_eps": float("inf")}, "norm_eps"),
        ({"norm": "batchnorm"}, "norm"),
        ({"task": "summarize"}, "task"),
        ({"task": "generate"}, "num_labels 2 is for the task classify, not generate"),
        ({"task": "classify", "num_labels": 0}, "num_labels is 0: to classify takes at least 2"),
        ({"num_decoder_layers": 2}, "num_decoder_layers is for the task translate, not classify"),
        ({"num_kv_heads": 3}, "num_heads 2 is not a multiple of num_kv_heads 3"),
        ({"hidden_dim": 8}, "hidden_dim"),
    ],
)
def test_config_refuses(change: dict[str, object], message: str) -> None:
    with pytest.raises(pydantic.ValidationError, match=message):
        TransformerConfig.model_validate({**SMALLEST, **change})


def test_config_is_frozen() -> None:
    config = TransformerConfig(**SMALLEST)
    with pytest.raises(pydantic.ValidationError, match="frozen"):
        config.hidden_size = 16  # type: ignore[misc]  # what is tested

"""Gives the small models of hf_zoo.py answers that they are sure of: some steps of training, the same every time.

A model of random weights is undecided about every text, and which of its labels change in int8 is left to chance. These
learn to tell how long a text is, in thirds, or how bright an image.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

TEXTS, IMAGES, STEPS = 200, 96, 300
#: loss at which a model is sure enough
LOSS = 0.05


def text_inputs(folder: Path, length: int) -> tuple[dict[str, Any], Any]:
    """Texts that no proof of the zoo reads, as ids and mask, and which third of their lengths each is of."""
    import transformers

    from edgekit.proof.texts import interface_strings

    texts, _ = interface_strings(2 * TEXTS)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    given = tokenizer(
        list(texts[TEXTS:]), padding="max_length", truncation=True, max_length=length, return_tensors="pt"
    )
    inputs = {name: given[name] for name in ("input_ids", "attention_mask")}
    return inputs, thirds(inputs["attention_mask"].sum(1))


def image_inputs(size: int) -> tuple[dict[str, Any], Any]:
    """Drawn images, normalized to [-1, 1], and which third of their brightness each is of."""
    import numpy as np
    import torch

    from edgekit.export.prepare_hub import draw_image
    from edgekit.program import TensorSpec

    spec = TensorSpec(name="image", dtype="float32", shape=(1, 3, size, size))
    drawn = np.concatenate([draw_image(1000 + seed, spec) for seed in range(IMAGES)])
    return {"pixel_values": torch.from_numpy(2 * drawn - 1)}, thirds(torch.from_numpy(drawn.mean((1, 2, 3))))


def thirds(values: Any) -> Any:
    """0, 1 or 2 for each value."""
    import torch

    return torch.bucketize(values.float(), torch.quantile(values.float(), torch.tensor([1 / 3, 2 / 3])))


def train(model: Any, inputs: Mapping[str, Any], labels: Any) -> None:
    """Train on all of them at once, on one thread, without chance, until the loss is small."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for _ in range(STEPS):
        loss = torch.nn.functional.cross_entropy(model.eval()(**inputs).logits, labels)  # eval: no dropout
        if loss < LOSS:
            break
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    torch.set_num_threads(threads)

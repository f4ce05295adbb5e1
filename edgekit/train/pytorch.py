"""The trainer in PyTorch."""

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgekit.model.config import TransformerConfig
from edgekit.model.pytorch import Encoder, build_encoder, classification_loss, model_weights
from edgekit.model.weights import Weights
from edgekit.train.adamw_pytorch import AdamWTrainer
from edgekit.train.batches import Batch
from edgekit.train.distillation import PROJECT, Teacher, initial_projection
from edgekit.train.distillation_pytorch import Distiller
from edgekit.train.ngrams import GRAMS, TOKENS, NgramMatrix, initial_grams
from edgekit.train.settings import TrainSettings
from edgekit.train.trainer import StepPlan, StepResult


class PytorchTrainer(AdamWTrainer):
    """Trains an Encoder with torch.optim.AdamW; `average` is a second Encoder that holds the averaged weights.

    With `ngrams`, the Encoders hold the tokens' own rows, and run on the table that the sums are folded into. With
    the settings' `qat`, both run on rounded weights and activations; the weights themselves stay what they are.
    """

    def __init__(
        self,
        config: TransformerConfig,
        weights: Weights,
        settings: TrainSettings,
        ngrams: NgramMatrix | None = None,
        teacher: Teacher | None = None,
    ) -> None:
        self.settings = settings
        self.model = build_encoder(config, weights).train()
        self.average = build_encoder(config, weights)
        self.parameters = dict(self.model.named_parameters())
        self.averages = dict(self.average.named_parameters())
        self.table = None
        if ngrams is not None:
            self.table = _NgramTable(ngrams)
            grams = torch.from_numpy(initial_grams(ngrams, config.token_size, settings.seed))
            self.parameters[GRAMS], self.averages[GRAMS] = nn.Parameter(grams), nn.Parameter(grams.clone())
        self.rounding = None
        if settings.qat != "none":
            from edgekit.train.qat_pytorch import FakeQuantizer  # torchao: seconds that no other training needs

            self.rounding = FakeQuantizer(config, settings.qat)
            self.rounding.attach(self.model, watch=True)
            self.rounding.attach(self.average, watch=False)
        self.distiller = None if teacher is None else Distiller(teacher, self.model, settings)
        if teacher is not None and teacher.compares_states and settings.hidden_weight:
            first = torch.from_numpy(initial_projection(teacher.config, config, settings.seed))
            self.parameters[PROJECT], self.averages[PROJECT] = nn.Parameter(first), nn.Parameter(first.clone())
        self.begin()

    def step(self, batch: Batch, plan: StepPlan) -> StepResult:
        """Take one training step."""
        labels = torch.from_numpy(batch.labels)
        with torch.random.fork_rng(devices=[]):  # the caller's random numbers stay the caller's
            torch.manual_seed(plan.seed)
            logits = self._run(self.model, self.parameters, batch.ids, batch.mask)
        loss = classification_loss(logits, labels, self.settings.label_smoothing)
        if self.distiller is not None:
            loss = self.distiller.loss(loss, logits, batch, self.parameters.get(PROJECT))
        self.update(loss, plan)
        return StepResult(loss=loss.item(), correct=int((logits.argmax(-1) == labels).sum()))

    def _run(
        self, model: Encoder, parameters: Mapping[str, Tensor], ids: NDArray[np.int32], mask: NDArray[np.int32]
    ) -> Tensor:
        """Return the logits of `model`, whose parameters and n-grams are `parameters`."""
        inputs = (torch.from_numpy(ids), torch.from_numpy(mask))
        replaced = {TOKENS: self.table.folded(parameters)} if self.table is not None else {}
        if self.rounding is not None:
            replaced |= self.rounding.weights({**parameters, **replaced})
        return torch.func.functional_call(model, replaced, inputs) if replaced else model(*inputs)

    @torch.no_grad()
    def observe(self, batch: Batch) -> None:
        """Let a batch widen the ranges of activations, without a step."""
        if self.rounding is not None:
            self.model.eval()
            self._run(self.model, self.parameters, batch.ids, batch.mask)
            self.model.train()
            if self.distiller is not None:
                self.distiller.forget()

    @torch.no_grad()
    def logits(self, ids: NDArray[np.int32], mask: NDArray[np.int32]) -> NDArray[np.float32]:
        """Return the averaged weights' logits."""
        found: NDArray[np.float32] = self._run(self.average, self.averages, ids, mask).numpy()
        return found

    @torch.no_grad()
    def weights(self) -> Weights:
        """Return a copy of the averaged weights."""
        weights = model_weights(self.average)
        if self.table is not None:
            weights[TOKENS] = self.table.folded(self.averages).numpy()
        if self.rounding is not None:
            weights |= {name: value.numpy() for name, value in self.rounding.weights(self.averages).items()}
        return weights

    def ranges(self) -> Mapping[str, Tensor]:
        """Return the ranges of quantized activations, by tap."""
        return self.rounding.ranges if self.rounding is not None else {}


class _NgramTable:
    """The token table with the sums of the n-grams' embeddings folded in."""

    def __init__(self, matrix: NgramMatrix) -> None:
        self._matrix, self._transposed = _sparse(matrix), _sparse(matrix.transposed())

    def folded(self, parameters: Mapping[str, Tensor]) -> Tensor:
        """Return the table [vocab, size] of the tokens' rows and the n-grams' embeddings in `parameters`."""
        sums: Tensor = _Product.apply(self._matrix, self._transposed, parameters[GRAMS])
        return parameters[TOKENS] + sums


class _Product(torch.autograd.Function):
    """matrix @ dense, for a constant matrix: PyTorch's own gradient transposes it anew at every step."""

    @staticmethod
    def forward(ctx: Any, matrix: Tensor, transposed: Tensor, dense: Tensor) -> Tensor:
        """Return matrix @ dense."""
        ctx.transposed = transposed
        return matrix @ dense

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, None, Tensor]:
        """Return the gradient of `dense`."""
        return None, None, ctx.transposed @ gradients[0]


def _sparse(matrix: NgramMatrix) -> Tensor:
    starts, columns, values = map(torch.from_numpy, (matrix.row_starts, matrix.columns, matrix.values))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # PyTorch 2.x calls CSR beta, whatever is done with it
        return torch.sparse_csr_tensor(starts, columns, values, matrix.shape, check_invariants=True)

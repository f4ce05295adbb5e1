"""The trainer of models that write, in PyTorch; in several processes by DistributedDataParallel."""

import torch
from torch import Tensor, distributed, nn

from edgekit.model.config import TransformerConfig
from edgekit.model.decoder_pytorch import Decoder, EncoderDecoder, build_model, cached_step, token_loss
from edgekit.model.greedy import Ids, greedy_ids
from edgekit.model.pytorch import model_weights
from edgekit.model.weights import Weights
from edgekit.text.processor import EOS_ID
from edgekit.train.adamw_pytorch import AdamWTrainer
from edgekit.train.batches import TextBatch
from edgekit.train.settings import TrainSettings
from edgekit.train.trainer import StepPlan, StepResult, TextScores
from edgekit.train.workers import Worker


class PytorchWriter(AdamWTrainer):
    """Trains a Decoder or EncoderDecoder; `average` is a second one that holds the averaged weights.

    Every worker is given the whole batch and takes its rows of it; the gradient is that of the whole batch.
    """

    def __init__(self, config: TransformerConfig, weights: Weights, settings: TrainSettings, worker: Worker) -> None:
        self.settings, self.worker, self.config = settings, worker, config
        self.model, self.average = _built(config, weights).train(), _built(config, weights)
        self.parameters = dict(self.model.named_parameters())
        self.averages = dict(self.average.named_parameters())
        self.forward: nn.Module = self.model
        if worker.count > 1:
            if not distributed.is_initialized():
                distributed.init_process_group("gloo")
            self.forward = nn.parallel.DistributedDataParallel(self.model)
        self.begin()

    def step(self, batch: TextBatch, plan: StepPlan) -> StepResult:
        """Take one training step."""
        mine = batch.share(self.worker.rank, self.worker.count)
        with torch.random.fork_rng(devices=[]):  # the caller's random numbers stay the caller's
            torch.manual_seed(plan.seed + self.worker.rank)
            logits = self.forward(*map(torch.from_numpy, mine.inputs))
        targets, counted = torch.from_numpy(mine.targets), torch.from_numpy(mine.counted)
        loss = token_loss(logits, targets, counted, self.settings.label_smoothing) / batch.predictions
        # DistributedDataParallel gives the mean of the workers' gradients, and the losses are parts of a sum.
        self.update(loss * self.worker.count, plan)
        total, correct = self._summed(torch.stack([loss.detach(), _correct(logits, targets, counted)])).tolist()
        return StepResult(loss=total, correct=round(correct))

    def _summed(self, values: Tensor) -> Tensor:
        """Return the sum of all workers' values."""
        if self.worker.count > 1:
            distributed.all_reduce(values)
        return values

    @torch.inference_mode()
    def evaluate(self, batch: TextBatch) -> TextScores:
        """Score the tokens of a batch, each after the real ones before it."""
        logits = self.average(*map(torch.from_numpy, batch.inputs))
        targets, counted = torch.from_numpy(batch.targets), torch.from_numpy(batch.counted)
        loss = token_loss(logits.double(), targets, counted)
        return TextScores(loss_sum=loss.item(), correct=int(_correct(logits, targets, counted)))

    def write(self, source: tuple[Ids, Ids] | None, prompts: Ids) -> list[list[int]]:
        """Return the ids that follow each prompt [batch, n], greedily; to translate, `source` is ids and mask."""
        step = cached_step(self.average, len(prompts), source)
        return greedy_ids(step, prompts, max_length=self.config.max_length, stop_id=EOS_ID)

    def weights(self) -> Weights:
        """Return a copy of the averaged weights."""
        return model_weights(self.average)

    def agree(self, flag: bool) -> bool:
        """Tell whether the flag is set in any worker; all of them must ask."""
        return bool(self._summed(torch.tensor(float(flag))) > 0)


def _built(config: TransformerConfig, weights: Weights) -> Decoder | EncoderDecoder:
    model = build_model(config, weights)
    if not isinstance(model, Decoder | EncoderDecoder):
        raise TypeError(f"a model for the task {config.task} does not write")
    return model


def _correct(logits: Tensor, targets: Tensor, counted: Tensor) -> Tensor:
    right = (logits.argmax(-1) == targets) & (counted == 1)
    return right.sum().to(torch.float32)

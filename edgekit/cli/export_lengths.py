"""What `export` makes of `--sequence-length` and `--prefill-length`, and which lengths it takes by default."""

from typing import TYPE_CHECKING

from edgekit.cli.export_options import TargetOptions
from edgekit.cli.output import split_list, stderr
from edgekit.errors import RefusedError

if TYPE_CHECKING:
    from edgekit.cache import Cache
    from edgekit.checkpoint import Checkpoint
    from edgekit.export.foreign import Foreign
    from edgekit.export.plan import PlannedExport
    from edgekit.export.writer_plan import Limits


def check_prefill(lengths: tuple[int, ...], shape: "Limits") -> None:
    """Raise RefusedError for prefill lengths that the source has no use for."""
    from edgekit.export.writer_plan import refuse_prefill

    if refused := refuse_prefill(lengths, shape):
        raise RefusedError(refused)


def source_lengths(lengths: tuple[int, ...], shape: "Limits", targets: TargetOptions) -> tuple[int, ...]:
    """The lengths of source texts that files read beside the longest, ascending; raises RefusedError."""
    from edgekit.export.writer_plan import refuse_source_lengths

    if refused := refuse_source_lengths(lengths, shape, split_list(targets.target or ["tflite"])):
        raise RefusedError(refused)
    return tuple(sorted(set(lengths) - {shape.max_length}))


def choose_lengths(
    source: "Checkpoint | Foreign", plans: "list[PlannedExport]", eval_samples: int | None, cache: "Cache | None"
) -> tuple[int, ...]:
    """The lengths for the data's own texts, where a target has a signature for each; what each target takes is said."""
    from edgekit.export.foreign import Foreign, hub_lengths
    from edgekit.export.lengths import default_lengths

    longest = source.model.max_length if isinstance(source, Foreign) else source.config.max_length

    def named(kind: str) -> str:
        taken = (plan for plan in plans if plan.target.lengths == kind and plan.kv_cache != "static")
        return ", ".join(dict.fromkeys(plan.target.name for plan in taken))

    free, several = named("dynamic"), named("signatures")
    if free:
        stderr.print(f"Sequence lengths of {free}: any, up to {longest}.", markup=False)
    if not several:
        return ()
    choice = hub_lengths(source) if isinstance(source, Foreign) else default_lengths(source, eval_samples, cache=cache)
    names = ", ".join(map(str, choice.lengths))
    stderr.print(f"Sequence lengths of {several}: {names} ({choice.reason}).", markup=False)
    return choice.lengths

"""SourceRef → Program, whatever kind of source it names; called in worker processes."""

from edgekit.program import Program, SourceRef
from edgekit.sources import checkpoint


def open_source(source: SourceRef, *, length: int | None = None) -> Program:
    """Build the Program that `source` names; `length`, in tokens, is for checkpoints.

    Raises CheckpointError where the source is broken, or no longer the one that was named, RefusedError for what it
    can't be built as, MissingExtraError without its framework.
    """
    if source.kind == "checkpoint":
        return checkpoint.open_source(source, length=length)
    if source.kind == "huggingface":
        from edgekit.sources.huggingface import build_hub_program

        return build_hub_program(source)
    if source.kind == "factory":
        from edgekit.sources.factory import build_factory_program

        return build_factory_program(source)
    from edgekit.sources.files import build_file_program

    return build_file_program(source)

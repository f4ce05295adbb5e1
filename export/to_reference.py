"""References for servers: a TensorFlow SavedModel and a PyTorch `.pt2`, float32, each from its own framework only."""

import io
from pathlib import Path

from edgekit.errors import RefusedError
from edgekit.program import Framework, Program


def convert_savedmodel(program: Program, output: Path, *, scheme: str = "none") -> None:
    """Write `output` as a SavedModel folder with the program's signatures, its weights inside as constants.

    Raises RefusedError for a PyTorch program or a scheme other than `none`.
    """
    _check(program, "tensorflow", "savedmodel", scheme)
    from edgekit.export.tf_graphs import save_frozen

    save_frozen(program, output)


def convert_pt2(program: Program, output: Path, *, scheme: str = "none") -> None:
    """Write `output` as an archive of `torch.export.save`, which `torch.export.load` reads.

    Raises RefusedError for a TensorFlow program, several signatures, or a scheme other than `none`.
    """
    _check(program, "torch", "pt2", scheme)
    if len(program.signatures) != 1:
        raise RefusedError("a .pt2 holds one signature; this program has several")
    import torch

    from edgekit.export.torch_modules import captured

    archive = io.BytesIO()  # torch 2.13 aborts the process where its own writer meets a full disk
    torch.export.save(captured(program, program.signatures[0]), archive)
    output.write_bytes(archive.getvalue())


def _check(program: Program, framework: Framework, target: str, scheme: str) -> None:
    if program.framework != framework:
        raise RefusedError(
            f"{target} is {framework}'s own format and can't be written from a {program.framework} program: "
            f"use --via {framework}"
        )
    if scheme != "none":
        raise RefusedError(f"{target} is a float32 reference for servers: it does not offer {scheme}")

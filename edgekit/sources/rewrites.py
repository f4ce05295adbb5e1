"""Program → Program: the rewrites of `edgekit.model.rewrites`, in the framework that the program is built in."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from edgekit.errors import RefusedError
from edgekit.model.rewrites import rewrite_signature
from edgekit.program import Program


def rewrite_program(program: Program, rewrites: Sequence[str]) -> Program:
    """The program with these rewrites done to its module, in place; the program itself where there are none.

    Raises RefusedError for a module that is none of edgekit's encoders.
    """
    if not rewrites:
        return program
    rewrite = _torch_rewrite if program.framework == "torch" else _tensorflow_rewrite
    signatures = tuple(rewrite_signature(signature, rewrites) for signature in program.signatures)
    return replace(program, module=rewrite(program.module, rewrites), signatures=signatures)


def _torch_rewrite(module: Any, rewrites: Sequence[str]) -> Any:
    from edgekit.model.pytorch import Encoder
    from edgekit.model.rewrites_pytorch import rewrite_encoder

    return rewrite_encoder(_checked(module, Encoder, rewrites), rewrites)


def _tensorflow_rewrite(module: Any, rewrites: Sequence[str]) -> Any:
    from edgekit.model.keras import Encoder
    from edgekit.model.rewrites_keras import rewrite_encoder

    return rewrite_encoder(_checked(module, Encoder, rewrites), rewrites)


def _checked(module: Any, encoder: type, rewrites: Sequence[str]) -> Any:
    if isinstance(module, encoder):
        return module
    kind = type(module).__name__
    raise RefusedError(f"{', '.join(rewrites)}: only edgekit's own encoder is rewritten, not a {kind}")

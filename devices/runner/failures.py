"""The exceptions of the runner."""

#: what can go wrong, as the `kind` of an error event
KINDS = ("bad-job", "runtime-missing", "refused", "load-failed", "bad-input", "run-failed")


class RunError(Exception):
    """Something that ends a run; `kind` is one of KINDS, the text one clear line."""

    def __init__(self, kind: str, message: str) -> None:
        self.kind = kind
        super().__init__(message)


class AcceleratorError(Exception):
    """The accelerator that a job asks for can't be had for its file; the text says why. The CPU may still run it."""


def first_line(error: BaseException) -> str:
    """The first line of an exception's text, or its class where it has none."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__

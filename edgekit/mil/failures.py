"""The one exception of the evaluator."""

#: what can go wrong, as the runner on devices names it
KINDS = ("bad-job", "runtime-missing", "load-failed", "bad-input", "run-failed")


class MilError(Exception):
    """A package that can't be read, an input that does not fit, an operation that can't be computed: one clear line.

    Attributes: kind (one of KINDS), message_has_place (whether the message names the operation already).
    """

    def __init__(self, kind: str, message: str, *, message_has_place: bool = False) -> None:
        self.kind, self.message_has_place = kind, message_has_place
        super().__init__(message)


def first_line(error: BaseException) -> str:
    """The first line of an exception's text, or its class where it has none."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__

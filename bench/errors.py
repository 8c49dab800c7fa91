"""Errors that a user can act on; all others are faults of this program and keep their traceback."""

from __future__ import annotations

INTERRUPTED = 130
"""Exit code where Ctrl-C or SIGTERM ended the command."""


class BenchError(Exception):
    """Something that the user can correct; the message says what is wrong, where, and what to do next."""


class SpecError(BenchError):
    """A spec, a ``--set`` or another argument is wrong (exit code 2)."""


class TokenError(SpecError):
    """A method names a token that the vocabulary does not have."""


class DataError(BenchError):
    """A data set is missing, broken or not the one expected; names file and record."""


class WeightsError(BenchError):
    """Model weights are missing, unsafe to load or do not fit the model; names the tensors."""


class RecordError(BenchError):
    """A results file cannot be read, written or locked."""


class OutputError(BenchError):
    """A report or stdout cannot be written; the records are kept."""


class AuditError(BenchError):
    """The trained tensors do not match the freeze pattern; names part and tensors."""


class DivergedError(BenchError):
    """The loss became NaN or infinite; names the step."""


class EstimateError(BenchError):
    """The costs of a cell cannot be modelled; names what stands in the way."""


class LibraryMismatchError(BenchError):
    """Installed libraries do not fit each other or this package; names their versions."""

"""Errors a user can act on. Everything else is a fault of ours and keeps its traceback."""

from __future__ import annotations

INTERRUPTED = 130
"""Exit code where Ctrl-C or SIGTERM ended the command."""


class BenchError(Exception):
    """Something the user can put right: the message says what is wrong, where, and what to do next."""


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
    """What is trained does not agree with the freeze pattern; names part and tensors."""


class DivergedError(BenchError):
    """The loss became NaN or infinite; names the step."""


class EstimateError(BenchError):
    """The costs of a cell cannot be modelled; names what stands in the way."""


class LibraryMismatchError(BenchError):
    """Two installed libraries do not fit together, or not this package; names their versions."""

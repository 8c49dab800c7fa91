"""Training and evaluating a cell, as workers and estimators share it."""

"""How far an estimate can be trusted: ``python -m bench.estimate.validation cpu|paper|gpu|all``."""

"""Costs without a run: exact parameters, predicted GPU memory, counted FLOPs, on PyTorch's meta device."""

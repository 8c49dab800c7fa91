#!/usr/bin/env python3
"""Run, list or report a benchmark spec: ``python run_bench.py specs/table1.yaml``."""

from bench.start import main

if __name__ == "__main__":
    main()

"""From records to statements: rows, statistics, comparisons."""

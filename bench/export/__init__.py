"""Records as flat files, and views of a spec's table as LaTeX and Markdown."""

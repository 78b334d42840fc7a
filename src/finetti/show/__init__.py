"""What is shown: figures, tables in the terminal, the HTML report, the files of `--out`, the command line.

This is the uppermost part of finetti. It reads a finished fit and computes no statistics: a number that
appears here was made by `finetti.posterior`. Matplotlib, Rich and Typer are imported only when something is shown.
"""

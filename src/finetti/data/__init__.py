"""What was observed: frames of any make become design matrices, grouping factors and the scales that priors need.

`frames` reads a table, `columns` converts one column, `matrices` is the only place that calls formulaic, `groups`
turns identifiers into levels, `checks` refuses what cannot be modelled, `design` puts a formula and a table
together, `newdata` replays that on other rows, and `bound` resolves the priors of a model on its data.
"""

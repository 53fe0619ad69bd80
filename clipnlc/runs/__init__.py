"""What the stages share: finding inputs, checking that they are fresh, fitting and applying.

Stores meet heads, combiners and measures here and in `extraction`, nowhere else:

- `fitted`: `fit` makes a `Fitted` of labelled rows; `apply` is the only road from it to a prediction;
- `members`: which backbones a run was fitted on, as a name;
- `heads`: the heads of a store, built again, and the ensemble that they make of features;
- `finding`: which data sets, ensembles and runs a store has, and what to run where one is missing;
- `freshness`: whether what a file was made from is still what it was.
"""

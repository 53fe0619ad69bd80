"""Stages: one module and one plain keyword-only function per subcommand.

A stage is the only place where stores meet backbones, data sets, heads, combiners and metrics.
Stages do not import one another: what one has made, the next finds in the store.
"""

"""How images become features: an order, cut into ranges of rows, worked off by engines.

An `Order` says what to embed and where its shards go, and can be pickled. Its unit of work is a
`Span`: a range of rows and the backbones that lack it. `pixels` decodes and resizes ahead,
`worker` embeds and seals, `engines` and `on_ray` decide in which processes. What comes out is the
same bytes whichever engine did it.

To add an engine: a function like `engines.run_here`, and its row in `engines.ENGINES`.
"""

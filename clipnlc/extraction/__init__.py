"""How images become features.

A `request.Request` says what to embed. Its backbones go over the images in `passes`, as many at a
time as fit in memory, which `estimate` predicts. For each split the stage makes an `order.Order`:
the rows, and one `order.Job` (a feature file) per backbone. The order is cut into `order.Span`s,
ranges of rows, which a `crew` embeds: this process, one process per device, or a Ray cluster
(`on_ray`). Each of them is a `worker`: `pixels` decodes and resizes ahead of the device,
`embedding` turns batches into features, and the worker seals them as shards. `finishing` merges
the shards. The bytes are the same whichever crew did the work.

`photos` streams the features of images that belong to no data set, by the same code, into memory.

To add a crew: a class with the methods of `crew.Workers`, and its case in `crew.open_workers`.
"""

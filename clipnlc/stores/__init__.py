"""The HDF5 stores: what each stage leaves on disk for the next.

`layout` says where a file lies, `key` what shaped it, `_h5` how it is sealed and checked;
`features`, `logits` and `combined` are the three formats (`docs/formats/`), `shards` what a feature
file is merged from; `aligned` opens several stores row by row, whole or by the rows needed; `locks`
keeps two writers apart, `status` lists and `verify` reads every byte.

To add a format: write its page in `docs/formats/`, one module here with its `write_…`, `read_…`
and `read_…_header`, its command in `_h5.MAKERS`, its path in `layout`, and one row each in
`status` and `verify`; leave a small file of it in `tests/data/archives/`.
"""

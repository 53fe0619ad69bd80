"""Reports: what evaluate and diversity measured, as records, tables and pictures.

`record` holds the typed values and their JSON text (`docs/formats/record.md`); `tables` lays them
out; `terminal`, `markdown`, `spreadsheet` and `heatmaps` show them. Everything shown follows from a
record alone: no store is opened and nothing is measured here.

`diagnosis` does the same for what doctor found.

To add a way of showing: one module here with a function of the record, or of `tables.Report`.
"""

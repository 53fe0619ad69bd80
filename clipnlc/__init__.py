"""clipnlc: the most accuracy out of the CLIP models that already exist.

The folders are the field's vocabulary; `clipnlc.stages` holds one plain function per subcommand.
Nothing is imported here, so that `clipnlc --help` answers at once.
"""

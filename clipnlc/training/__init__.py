"""Train open_clip models, with the same bits after every interruption.

`captions` makes captioned images ready for one backbone, `contrastive` has the CLIP loss and the
augmentation, `loop` the optimiser, the schedule and the checkpoints.
"""

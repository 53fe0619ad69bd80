"""Workflows: chains of stages, for the person who wants a result from one command.

A workflow calls stages in their order and hands on what they return. It decides nothing that a stage
could decide; what a folder of photos is, `clipnlc.datasets.recognition` says. It writes nothing
itself, so it is as cached and as resumable as its stages.
"""

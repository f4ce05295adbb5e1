"""Runs an exported file: the code that goes onto a device.

A leaf: the standard library (Python 3.9 or later), numpy and one runtime; relative imports only, so that the folder can
be copied anywhere and started as `python3 -m runner JOB.json`. On the host it is `edgekit.devices.runner`. It is the
one place of edgekit that loads a target file into a runtime: what was verified is what is measured.
"""

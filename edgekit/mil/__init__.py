"""Evaluates Core ML programs in numpy, on any system: what an .mlpackage computes, operation by operation.

A leaf: numpy and coremltools only. It is an evaluator, not a runtime: nothing times it as one.
"""

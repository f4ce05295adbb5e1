"""The compact Transformer, written once in PyTorch and once in Keras, with one set of weights."""

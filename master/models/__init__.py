"""Which weights the master serves, and what it knows of them without torch.

Owns the catalogue of torchvision's classifiers, the inspection of weights
files and cards, the order in which weights are looked for, and slices of the
file for workers. Promises to import neither torch nor numpy: the master starts
fast and stays small. Leaves loading and inference to `worker`.
"""

"""Training of a classifier on a folder-per-class data set, for `worker train`."""

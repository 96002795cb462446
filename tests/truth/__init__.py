"""The accuracy harness: policies against the engines of known truth, targets, page and picture."""

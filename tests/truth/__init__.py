"""The accuracy harness: engines whose Shapley truth is known, independent of estimator and simulator."""

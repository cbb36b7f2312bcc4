"""Runs on a cluster: where Kubeflow Pipelines is, what is asked of it, how a run is followed."""

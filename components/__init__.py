"""The KFP components, one file each: load the inputs, make one core call, save, log metrics.

Only a function's own source travels to where it runs, so the core is imported inside. These files lack
`from __future__ import annotations`: KFP reads the annotations as objects, not as text.
"""

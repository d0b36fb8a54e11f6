"""Volumes: reads NIfTI, DICOM and stacks, slices them along an axis of the body, and writes answers where they lie."""

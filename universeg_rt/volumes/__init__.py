"""Volumes: reads NIfTI, DICOM and stacks, slices them along an anatomical axis, and writes answers in their geometry."""

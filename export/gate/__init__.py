"""Compares every exported model with the reference network, and fails the export where one differs too much."""

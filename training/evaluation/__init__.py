"""Judges a bundle by the paper's protocol: Dice, few examples, worst images, and studies of choices."""

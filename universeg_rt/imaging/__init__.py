"""Images in and out: files, normalisation, the way to the network's grid and back, Dice."""

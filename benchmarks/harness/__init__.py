"""What every benchmark shares: cases, sides in processes of their own, the machine's description, tables."""

"""How near generated clips are to real ones."""

"""What processes share and how they wait for it. Segments, ring, slots and layout are to move in here."""

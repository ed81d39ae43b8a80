"""Images on disk: distilled sets, and what methods publish turned into them."""

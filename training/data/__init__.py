"""What a generator learns from: photos, art, and the pairs that are made of them."""

"""From a trained generator to pictures: export, plans, and the backends that run them."""

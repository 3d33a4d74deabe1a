"""Other people's measured winners as evidence for the cost model, and its fit to them."""

"""Proof that the engine computes what Hugging Face computes, token by token.

Three tiers: in fp32 the same token ids, however the work is cut and disturbed; in half precision
log-probabilities along Hugging Face's own tokens, compared at every position; and free running,
where a different token is a mistake unless the two were closer than the precision can tell.
"""

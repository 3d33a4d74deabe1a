"""Models that no file of ours names, computed by transformers' own modelling code.

What crosses tokens is ours: every attention call goes to the paged KV cache. All else, from the
embedding to the logits, is the model's class as transformers has it. The idea of serving models
through transformers' attention interface is vLLM's Transformers backend.
"""

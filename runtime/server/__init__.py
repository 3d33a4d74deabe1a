"""The OpenAI-compatible server: an engine in a process of its own, and a web front end.

The only package that knows the web stack. Front end and engine process speak `messages` over an
anonymous socket pair; nothing is ever pickled.
"""

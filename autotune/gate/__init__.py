"""The performance gate: does a change make a generated kernel worse?"""

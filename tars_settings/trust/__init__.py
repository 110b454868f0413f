"""Who may say what: keys, signed envelopes, the trust document, validity, secrets, seals.

Pure: bytes and keys in, verdicts and bytes out. Nonces and seeds are arguments. PyNaCl's one door.
"""

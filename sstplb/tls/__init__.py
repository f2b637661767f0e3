"""How it is kept secret: certificates, contexts, the TLS engine, OpenSSL's errors as sentences.

Nothing here opens a socket: an engine takes ciphertext and gives plaintext (and back).
"""

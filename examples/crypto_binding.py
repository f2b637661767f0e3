"""Why a man in the middle is caught: a crypto binding, computed step by step ([MS-SSTP] 3.2.5.2).

    python examples/crypto_binding.py

The key of the first step is the specification's own example (4.7), so its result can be compared
with the book. Then a client signs for the certificate it saw, and the server checks it twice: as it
is, and with another certificate in its own hands, which is what inspection of TLS looks like.
"""

import hashlib

from sstplb.errors import BindingError
from sstplb.protocol import binding
from sstplb.protocol.packet import connected
from sstplb.protocol.registry import HashProtocol

HLAK = bytes.fromhex("2a1bb40d55ab0f5ef32f06f2b3cc73c48fd3fac41d7a1315a19228d9024ca164")
CMK_IN_THE_BOOK = "ecf59ac9fe155cf0a9e7d66adc1b363c1ad7ba91a9217f0cec2a534298828df6"
NONCE = hashlib.sha256(b"what the server sent in CALL_CONNECT_ACK").digest()
SEEN = hashlib.sha256(b"the certificate the client saw").digest()
OTHER = hashlib.sha256(b"the certificate of somebody in the middle").digest()


def main() -> None:
    """Compute, sign and verify."""
    cmk = binding.compound_mac_key(HashProtocol.SHA256, HLAK)
    print(f"HLAK  {HLAK.hex()}  (both ends have it after MS-CHAPv2; nobody between them)")
    print(f"CMK   {cmk.hex()}  ({'as' if cmk.hex() == CMK_IN_THE_BOOK else 'NOT as'} in 4.7)")

    signed = binding.bind(HashProtocol.SHA256, hlak=HLAK, nonce=NONCE, certificate_hash=SEEN)
    message = connected(signed)
    print(f"MAC   {signed.compound_mac.hex()}")
    print(f"CALL_CONNECTED, {len(message.encode())} bytes:")
    print(message.encode().hex(" ", 4))

    for whose, certificate in (("its own certificate", SEEN), ("another certificate", OTHER)):
        try:
            binding.verify(
                message, hlak=HLAK, nonce=NONCE, offered=2, certificate_hashes={certificate}
            )
        except BindingError as error:
            print(f"a server with {whose}: refused, {error.reason}")
        else:
            print(f"a server with {whose}: accepted")


if __name__ == "__main__":
    main()

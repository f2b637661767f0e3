"""What to do at the RRAS servers, as PowerShell, for each mode.

SSTP's crypto binding decides: RRAS compares the hash of the certificate the client saw with one it
knows (docs/sstp.md). Passing TLS through changes nothing; offloading, RRAS must be told the hash;
re-encrypting, it must hold the same certificate.
"""

from sstplb.config.schema import Mode
from sstplb.control.first.text import Wanted
from sstplb.tls.certificate import Certificate

PARAMETERS = r"HKLM:\SYSTEM\CurrentControlSet\Services\SstpSvc\Parameters"


def explain(wanted: Wanted, certificate: Certificate | None) -> str:
    """Return what to do as text; ``certificate``: what clients are shown."""
    if wanted.mode is Mode.PASSTHROUGH:
        return _passthrough(wanted)
    assert certificate is not None, "where TLS ends there is a certificate"
    if wanted.mode is Mode.OFFLOAD:
        return _offload(wanted, certificate)
    return _reencrypt(wanted, certificate)


def _servers(wanted: Wanted) -> str:
    return ", ".join(server.name for server in wanted.servers)


def _passthrough(wanted: Wanted) -> str:
    return f"""\
At the RRAS servers ({_servers(wanted)}) nothing changes: clients see their certificates, so each
must hold one for the name that clients call.
"""


def _offload(wanted: Wanted, certificate: Certificate) -> str:
    sha256 = certificate.sha256.hex().upper()
    return f"""\
On each RRAS ({_servers(wanted)}), in PowerShell as administrator. It restarts RemoteAccess: every
call on that server drops. The command comes with the module AOVPNTools of the PowerShell Gallery.

    Install-Module AOVPNTools
    Enable-SSTPOffload -CertificateHash {sha256} -Restart

Look whether it took (UseHttps 0, and the hash above):

    $p = Get-ItemProperty {PARAMETERS}
    $p.UseHttps; [BitConverter]::ToString($p.SHA256CertificateHash) -replace '-'

Let this machine, and nobody else, reach its port 80: what comes there is no longer encrypted.

    New-NetFirewallRule -DisplayName 'SSTP offload' -Direction Inbound -Protocol TCP `
        -LocalPort 80 -RemoteAddress <this machine's address> -Action Allow

A renewed certificate has another hash: tell every RRAS again, and the file
(rras_certificate_sha256), or each call is cut off after its login.
"""


def _reencrypt(wanted: Wanted, certificate: Certificate) -> str:
    thumbprint = certificate.sha1.hex().upper()
    chain, key = wanted.chain, wanted.key or wanted.chain
    return f"""\
Each RRAS ({_servers(wanted)}) must hold this very certificate. Is it there already?

    netsh http show sslcert 'ipport=0.0.0.0:443'
    netsh http show sslcert 'ipport=[::]:443'

Both must show the Certificate Hash {thumbprint.lower()}.
If not, take it there. Here (it asks for a password to protect the key with):

    openssl pkcs12 -export -in {chain} -inkey {key} -out vpn.pfx   # Server 2016: -legacy

On each RRAS, in PowerShell as administrator (the restart drops every call on that server):

    Import-PfxCertificate -FilePath vpn.pfx -CertStoreLocation Cert:\\LocalMachine\\My `
        -Password (Read-Host -AsSecureString)
    Set-RemoteAccess -SslCertificate (Get-Item Cert:\\LocalMachine\\My\\{thumbprint})
    Restart-Service RemoteAccess

The other way round, from an RRAS to here:

    Export-PfxCertificate -Cert Cert:\\LocalMachine\\My\\<its thumbprint> -FilePath vpn.pfx `
        -Password (Read-Host -AsSecureString)              # there
    openssl pkcs12 -in vpn.pfx -nodes -out vpn.pem         # here: certificate and key

Delete vpn.pfx afterwards: it holds the private key. A server with another certificate gets no
calls; sstplb ctl certs and the log say which hashes differ.
"""

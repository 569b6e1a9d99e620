"""How a job looks at the certificates of the service: as the client does.

It travels with what asks the service, or its object store, from inside a job.
"""

import os
import ssl


def ssl_context(tls):
    """Return the context for connections; ``tls``: what the client's settings say of certificates, if anything."""
    context = ssl.create_default_context()
    authority = os.environ.get("PROMINENCE_SSL_VERIFY", "")
    if tls and tls.get("certificates"):
        context.load_verify_locations(cadata=tls["certificates"])
    elif tls and tls.get("verify") is False:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif os.path.isfile(authority):
        context.load_verify_locations(authority)
    return context

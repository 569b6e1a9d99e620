"""The platform's REST API and object model, for people and programs that describe jobs by hand.

It knows no calls and no pickles, and starts no threads.

    model, validation, job, workflow, submitted    what a job or workflow is, and its life at the service
    client, data, keys                             the verbs of the API
    session, request_parts, transfers              how a request goes out
    bodies, shapes, responses                      what comes back: how much of it, of what shape, what it means
    watching                                       what a caller has seen, so that the service can wait for more
    auth                                           where the service is, who asks, whom to trust
"""

from .client import KEY_VALUE_LIMIT, ProminenceClient, Source

__all__ = ["KEY_VALUE_LIMIT", "ProminenceClient", "Source"]

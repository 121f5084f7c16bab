"""Whether timm's pretrained weights are at hand: in a cache of this machine, or on a hub that answers within seconds.

The hub's own client retries for most of a minute where there is no network, also for weights that are in its cache.
"""

import os
import socket
import ssl
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

TIMEOUT = 5.0
"""Seconds within which a hub has to answer."""


def cached_weights(config: Any) -> Path | None:
    """Returns the file of pretrained weights in a cache of this machine; ``None`` if they are not there.

    ``config`` is the ``PretrainedCfg`` of ``timm.get_pretrained_cfg``.
    """
    from huggingface_hub import try_to_load_from_cache
    from torch.hub import get_dir

    if config.file:
        return Path(config.file) if Path(config.file).is_file() else None
    if config.hf_hub_id:
        repository, _, revision = config.hf_hub_id.partition("@")
        for name in _file_names(config.hf_hub_filename or "pytorch_model.bin"):
            found = try_to_load_from_cache(repository, name, revision=revision or None)
            if isinstance(found, str):
                return Path(found)
    if config.url and not config.custom_load:  # else a format of its own, which timm downloads
        path = Path(get_dir(), "checkpoints", Path(urlparse(config.url).path).name)
        return path if path.is_file() else None
    return None


def _file_names(name: str) -> tuple[str, ...]:
    """Returns under which names timm looks for a file of weights on the hub, in its order."""
    safe = {"pytorch_model.bin": "model.safetensors", "open_clip_pytorch_model.bin": "open_clip_model.safetensors"}
    return (safe.get(name, name.removesuffix(".bin") + ".safetensors"), name) if name.endswith(".bin") else (name,)


def why_unreachable(config: Any) -> str:
    """Returns why the weights can't be downloaded, such as ``huggingface.co cannot be reached``; empty if they can.

    A proxy that is set in the environment is used.
    """
    from huggingface_hub import constants

    if config.hf_hub_id and constants.is_offline_mode():
        return "HF_HUB_OFFLINE is set"
    address = os.environ.get("HF_ENDPOINT", constants.ENDPOINT) if config.hf_hub_id else config.url
    host = urlparse(address).hostname or address
    try:
        if not urllib.request.getproxies():
            socket.getaddrinfo(host, urlparse(address).port or 443)  # a name that is unknown fails at once
        request = urllib.request.Request(address, method="HEAD")  # noqa: S310 - the address of a hub
        with urllib.request.urlopen(request, timeout=TIMEOUT):  # noqa: S310
            return ""
    except urllib.error.HTTPError:
        return ""  # it answers
    except OSError as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        if isinstance(reason, ssl.SSLError):
            return ""  # it is there; the client may know its certificate
        text = getattr(reason, "strerror", None) or str(reason) or type(reason).__name__
        return f"{host} cannot be reached ({text})"

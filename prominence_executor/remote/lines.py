"""The text of scripts whose files are not here, for tracebacks, warnings and `inspect`, which ask linecache for it.

Importing linecache costs a job more than most calls do: it is given the text once somebody imports it.
"""

import sys
import zlib

_texts = {}  # type: dict[str, bytes]  # compressed, by file name


def keep(texts):
    """Let linecache have these texts, by file name and compressed."""
    if "linecache" in sys.modules:
        give(texts)
    elif texts:
        _texts.update(texts)
        if not any(isinstance(finder, Finder) for finder in sys.meta_path):
            sys.meta_path.insert(0, Finder())


def give(texts):
    """Put texts into linecache."""
    import linecache

    for name, content in texts.items():
        text = zlib.decompress(content).decode("utf-8", "surrogatepass")
        linecache.cache[name] = (len(text), None, text.splitlines(True), name)


class Finder:
    """Waits for linecache to be imported, and finds nothing else."""

    def find_spec(self, name, path=None, target=None):
        """Have it imported by whoever finds it, and give it the texts then."""
        if name != "linecache":
            return None
        if self in sys.meta_path:
            sys.meta_path.remove(self)
        for finder in sys.meta_path:
            spec = finder.find_spec(name, path, target)
            if spec is not None:
                if spec.loader is not None:
                    spec.loader = Loader(spec.loader)  # type: ignore[assignment]
                return spec
        return None


class Loader:
    """Loads it as its own loader does."""

    def __init__(self, loader):
        self._loader = loader

    def create_module(self, spec):
        """Let its own loader do it."""
        return self._loader.create_module(spec)

    def exec_module(self, module):
        """Let its own loader do it, and seem to be that one; then give it what has been kept."""
        module.__spec__.loader = module.__loader__ = self._loader
        self._loader.exec_module(module)
        texts = dict(_texts)
        _texts.clear()
        for name, content in texts.items():
            text = zlib.decompress(content).decode("utf-8", "surrogatepass")
            module.cache[name] = (len(text), None, text.splitlines(True), name)

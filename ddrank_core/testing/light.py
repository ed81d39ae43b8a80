"""Checks that manifests and component classes import nothing heavy, in a process of their own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from functools import cached_property

import attrs

from ddrank_core.testing.case import Case, ContractBroken, hold

HEAVY = frozenset(
    {
        *("torch", "torchvision", "torchaudio", "timm", "kornia", "transformers", "lightning"),
        *("tensorflow", "jax", "numpy", "scipy", "pandas", "sklearn", "skimage", "numba", "cv2", "PIL"),
        *("matplotlib", "tensorboard", "wandb", "mlflow"),
    }
)
"""Top-level packages that make a start slow."""

# Only this distribution's plugins are in the registry: what another one imports is not held against it.
_SCRIPT = """
import json, sys
asked = json.load(sys.stdin)
sys.path[:] = asked["path"]
from ddrank_core.plugins import CONTAINED, PluginHost, installed
from ddrank_core.registry import Registry
from ddrank_core.spec import parameters_of
heavy, seen = set(asked["heavy"]), set()

def newly(action):
    try:
        action()
    except CONTAINED:
        pass
    found = heavy & {name.partition(".")[0] for name in sys.modules} - seen
    seen.update(found)
    return sorted(found)

plugins = [plugin for plugin in installed() if plugin.distribution == asked["distribution"]]
manifests = {plugin.name: newly(plugin.load) for plugin in plugins}
registry = Registry(PluginHost(plugins), "0")
classes = [newly(lambda: parameters_of(registry.load(*one))) for one in asked["components"]]
print(json.dumps({"manifests": manifests, "classes": classes}))
"""


@attrs.frozen(kw_only=True, eq=False)
class LightStart:
    """What importing a distribution's manifests and component classes brings in, found out once."""

    distribution: str
    components: Sequence[tuple[str, str]]
    """Kind and name of each."""

    def manifests(self) -> None:
        """Check the modules that the entry points name."""
        found = {plugin: heavy for plugin, heavy in self._found.manifests.items() if heavy}
        what = "; ".join(f"the entry point {plugin} imports {', '.join(h)}" for plugin, h in found.items())
        hold(not found, f"{what}; a manifest names its targets as text and imports nothing heavy")

    def class_of(self, case: Case) -> None:
        """Check the module of one component; what one before it has imported already is not seen again."""
        place = list(self.components).index((case.kind, case.name))
        heavy = self._found.classes[place]
        hold(
            not heavy,
            f"importing its class imports {', '.join(heavy)}; import it inside the methods, "
            "so that a config error is found without it",
        )

    @cached_property
    def _found(self) -> _Found:
        asked = {
            "path": sys.path,
            "heavy": sorted(HEAVY),
            "distribution": self.distribution,
            "components": self.components,
        }
        done = subprocess.run(
            [sys.executable, "-c", _SCRIPT], input=json.dumps(asked), capture_output=True, text=True
        )
        if done.returncode != 0:
            last = (done.stderr.strip().splitlines() or ["no output"])[-1]
            raise ContractBroken(f"a process that imports the manifests and classes failed: {last}")
        # What a plugin prints on import comes before the last line.
        return _Found(**json.loads(done.stdout.splitlines()[-1]))


@attrs.frozen
class _Found:
    manifests: dict[str, list[str]]
    """Entry point -> the heavy packages that it imports."""
    classes: list[list[str]]
    """The same for each component."""

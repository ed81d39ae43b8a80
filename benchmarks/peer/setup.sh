#!/bin/sh
# Makes the environment of the peer, ddranking 0.2.0, for benchmarks/one_trial.py and benchmarks/agreement.
#
#   sh benchmarks/peer/setup.sh [FOLDER]
#
# FOLDER is ~/.cache/ddrank/peer where not given. PYTHON says which Python to use (3.11 or newer). The
# environment has the torch and torchvision that PYTHON has, where it has them, so that both sides run on
# the same; ddranking itself asks for numpy below 2.
set -eu
python=${PYTHON:-python3}
folder=${1:-${XDG_CACHE_HOME:-$HOME/.cache}/ddrank/peer}

same=$("$python" - <<'END'
from importlib import metadata
for name in ("torch", "torchvision"):
    try:
        print(f"{name}=={metadata.version(name).partition('+')[0]}")
    except metadata.PackageNotFoundError:
        print(name)
END
)
"$python" -m venv "$folder"
# shellcheck disable=SC2086 # two requirements, on purpose; the last four are for benchmarks/agreement
"$folder/bin/python" -m pip install --quiet ddranking==0.2.0 $same attrs cattrs pluggy pyyaml
"$folder/bin/python" -c "import torch, ddranking.utils; print('ddranking 0.2.0 on torch', torch.__version__)"
echo "python benchmarks/one_trial.py --peer-python $folder/bin/python"

"""``python -m tests.calibration.predict``: a profile of a model that was never measured, from its parameters.

``predict --model qwen3-32b --parameters 32e9 --gpu B200 --gpus 2 --out FILE.toml``; a mixture of experts
needs ``--active`` too. How far such profiles are from measurements: ``docs/simulator.md``.
"""

import argparse
import sys
from pathlib import Path

from tests.calibration import fit, roofline


def main() -> int:
    """The program; the profile goes to a file or to stdout."""
    parser = argparse.ArgumentParser(prog="python -m tests.calibration.predict", description=__doc__)
    fit.add_model_options(parser)
    parser.add_argument("--out", type=Path, help="a TOML file; else stdout")
    given = parser.parse_args()
    setting = fit.setting_of(given)
    if setting is None:
        parser.error("--model and --parameters are needed")
    text = fit.toml(roofline.predict(setting, roofline.load()))
    if given.out is None:
        sys.stdout.write(text)
    else:
        given.out.write_text(text, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

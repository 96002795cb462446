"""``python -m proxy.gpu``: run all parts on this machine's GPU, or SIMULATED without one.

Exit status: 0; 1 if a part failed (the report has the others and the reason); 2 if nothing could be started.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import pynvml

from proxy.gpu import parts, report
from proxy.gpu.device import CudaDevice, SimulatedGpu
from proxy.simulator.gpu.fake_nvml import FakeNvmlError


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m proxy.gpu", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/gpu"))
    parser.add_argument("--size", choices=("tiny", "1b", "3b", "8b"), help="by default the largest that fits")
    parser.add_argument(
        "--parts", default=",".join(parts.PARTS), help="some of a,c,d,e; b is the engine of all"
    )
    given = parser.parse_args()
    unknown = [part for part in given.parts.split(",") if part not in parts.PARTS]
    if unknown:
        parser.error(f"--parts {given.parts}: no part {unknown[0]!r}; give some of {','.join(parts.PARTS)}")
    return given


def main() -> int:
    """Run the parts that were chosen, write the report, print the page."""
    given = _arguments()
    try:
        from proxy.gpu import model  # noqa: PLC0415 - its absence is reported in one line
    except ImportError as error:
        sys.stderr.write(f"proxy.gpu: {error}: install torch (a CPU build is enough to simulate)\n")
        return 2
    given.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="jouleproxy-gpu-") as folder:
        try:
            device, reason = _device(Path(folder))
        except (FakeNvmlError, pynvml.NVMLError) as error:
            sys.stderr.write(f"proxy.gpu: no GPU, and no substitute: {error}\n")
            return 2
        size = given.size or ("tiny" if device.simulated else model.fitting_size())
        found = report.Report(device.simulated, size, model.versions())
        if device.simulated:
            sys.stderr.write(f"SIMULATED: {reason}; every figure below is that of a model of power\n")
        scale = parts.TINY if device.simulated else parts.REAL

        def make_runner() -> model.Decoder:
            runner = model.Decoder(model.SIZES[size], scale.slots, scale.length)
            runner.fill()
            return runner

        parts.run(given.parts.split(","), found, device, make_runner, scale, given.out)
        report.write(found, given.out)
        device.close()
    sys.stdout.write(report.page(found))
    sys.stderr.write(f"written: {given.out / 'gpu.json'}, {given.out / 'gpu.md'}\n")
    return 1 if found.failed else 0


def _device(folder: Path) -> tuple[CudaDevice | SimulatedGpu, str]:
    """Return the GPU; without one its substitute and the reason."""
    try:
        return CudaDevice(), ""
    except (RuntimeError, pynvml.NVMLError) as error:
        return SimulatedGpu(folder), f"no GPU: {error}"


if __name__ == "__main__":
    raise SystemExit(main())

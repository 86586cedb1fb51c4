"""The table of the sizes of checkpoints."""

from collections.abc import Iterable
from pathlib import Path

import polars as pl

from quantrust.artifacts.tables import write_csv
from quantrust.files import read_object


def write(csv: str | Path, *, checkpoints: Iterable[str | Path]) -> None:
    """Write the bytes of every checkpoint as its own record states them.

    Parameters
    ----------
    csv : str or Path
        The file to write, with the columns model, scheme, bytes_on_disk, bytes_bf16, share_of_bf16 (of the weights
        file), bytes_resident, bytes_resident_bf16, resident_share_of_bf16 (of the loaded model in bfloat16),
        bytes_resident_packed, resident_packed_share_of_bf16 (the same with packed kernels on the CPU, which widen codes
        of 2, 3, 5 and 6 bits), bits_per_quantized_weight, bits_per_weight (of the whole model, on disk).
    checkpoints : iterable of str or Path
        Folders `<model>/<scheme>` with a `quantization.json`.
    """
    rows = []
    for folder in map(Path, checkpoints):
        record = read_object(folder / "quantization.json")
        size = record["bytes"]
        rows.append(
            {
                "model": folder.parent.name,
                "scheme": record["scheme"],
                "bytes_on_disk": size["weights_file"],
                "bytes_bf16": size["bfloat16"],
                "share_of_bf16": size["weights_file"] / size["bfloat16"],
                "bytes_resident": size["resident"],
                "bytes_resident_bf16": size["resident_bfloat16"],
                "resident_share_of_bf16": size["resident"] / size["resident_bfloat16"],
                "bytes_resident_packed": size["resident_packed"],
                "resident_packed_share_of_bf16": size["resident_packed"] / size["resident_bfloat16"],
                "bits_per_quantized_weight": size["quantized_bits_per_weight"],
                "bits_per_weight": size["model_bits_per_weight"],
            }
        )
    write_csv(pl.DataFrame(rows, infer_schema_length=None), csv)

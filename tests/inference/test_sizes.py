"""What features files take on disk, from numbers of questions, channels and logits alone."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from quantrust.inference.sizes import features_bytes


@pytest.mark.parametrize(("hidden", "top_k"), [(64, 20), (3584, 20), (64, 512)])
@pytest.mark.parametrize("shared_by", [1, 5])
def test_states_and_logits_that_do_not_compress_stay_below_the_bound_and_near_it(hidden, top_k, shared_by, tmp_path):
    rng = np.random.default_rng(0)
    count = 600

    def state(repeats):
        values = rng.standard_normal((count // repeats, hidden)).repeat(repeats, axis=0).astype(np.float16)
        return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), hidden)

    columns = {
        "image_state": state(shared_by),
        "question_state": state(1),
        "answer_state": state(1),
        "top_ids": pa.array(list(rng.integers(0, 150_000, (count, top_k), dtype=np.int32))),
        "top_logits": pa.array(list(rng.standard_normal((count, top_k)).astype(np.float32))),
    }
    pq.write_table(pa.table(columns), tmp_path / "f.parquet", compression="zstd", use_dictionary=False)
    share = (tmp_path / "f.parquet").stat().st_size / features_bytes(count, hidden, top_k)
    assert 0.5 < share < 1
